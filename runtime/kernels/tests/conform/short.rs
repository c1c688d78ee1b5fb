//! Slices too short for their shape: nothing is computed, and nothing panics.
//! Debug builds assert instead, so these run with `--release`.
#![cfg(not(debug_assertions))]

use dunlin_kernels::{Backend, Depthwise, GemmOut, Pool, Requant, Weights, WeightsF32, Windows, available};

const REQUANT: Requant<'static> = Requant { scale: &[1.0], zero_point: 0, lo: -128, hi: 127 };

#[test]
fn gemm() {
    let [m, n, k] = [7, 20, 5];
    for backend in available() {
        let mut packed = vec![1; backend.gemm_packed_len(n, k)];
        backend.gemm_pack(&vec![1; n * k - 1], n, k, &mut packed);
        assert!(packed.iter().all(|&byte| byte == 1));
        // Each of: a, weights, bias, scale, out, leading dimension, shape.
        for short in 0..7 {
            let less = |which, len| if which == short { len - 1 } else { len };
            let a = vec![1; less(0, m * k)];
            let canonical = vec![1; less(1, n * k)];
            let bias = vec![1; less(2, n)];
            let scale = vec![1.0; less(3, n)];
            let mut y = vec![77; less(4, m * n)];
            let ldc = less(5, n);
            let m = if short == 6 { usize::MAX } else { m };
            let packed = if short == 1 { &packed[..packed.len().saturating_sub(1)] } else { &packed };
            let mut scratch = vec![0; 4096];
            let weights = Weights { canonical: &canonical, packed };
            let out = GemmOut::I8(&mut y, Requant { scale: &scale, ..REQUANT });
            backend.gemm(&a, k, m, weights, n, k, &bias, out, ldc, &mut scratch);
            assert!(y.iter().all(|&y| y == 77), "{} {short}", backend.name());
        }
        for n in [usize::MAX, usize::MAX / 32, usize::MAX / 2] {
            let mut y = [77.0; 8];
            let weights = WeightsF32 { canonical: &[1.0; 8], packed: &[0; 64] };
            backend.gemm_f32(&[1.0; 8], 1, 1, weights, n, 1, &[], &mut y, n);
            assert_eq!(y, [77.0; 8]);
        }
    }
}

#[test]
fn windows() {
    let shape = Depthwise {
        in_h: 5,
        in_w: 5,
        out_h: 5,
        out_w: 5,
        channels: 20,
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [1; 2],
        pad: [1; 2],
        pad_value: 0,
    };
    let shapes = [
        Depthwise { in_h: 6, ..shape },
        Depthwise { out_w: 6, ..shape },
        Depthwise { in_w: usize::MAX, ..shape },
        Depthwise { out_h: usize::MAX, channels: 0, ..shape },
        Depthwise { stride: [usize::MAX, 1], ..shape },
        Depthwise { dilation: [1, usize::MAX / 2], ..shape },
        Depthwise { kernel: [usize::MAX, 2], ..shape },
        Depthwise { kernel: [usize::MAX / 2, usize::MAX / 2], ..shape },
        Depthwise { pad: [usize::MAX, 0], ..shape },
    ];
    let (x, w) = ([1; 500], [1; 180]);
    for backend in available() {
        let mut packed = vec![0; backend.depthwise_packed_len(20, 9)];
        backend.depthwise_pack(&w, 20, 9, &mut packed);
        let weights = Weights { canonical: &w, packed: &packed };
        for shape in &shapes {
            let mut y = [77; 500];
            backend.depthwise(&x, weights, &[], REQUANT, &mut y, shape);
            assert_eq!(y, [77; 500], "{} {shape:?}", backend.name());
        }
        let mut y = [77; 500];
        backend.depthwise(&x, weights, &[1; 19], REQUANT, &mut y, &shape);
        backend.depthwise(&x[..499], weights, &[], REQUANT, &mut y, &shape);
        let weights = Weights { canonical: &w[..179], packed: &packed[..packed.len() / 2] };
        backend.depthwise(&x, weights, &[], REQUANT, &mut y, &shape);
        let pool = Pool {
            in_h: 5,
            in_w: 5,
            out_h: 5,
            out_w: 6,
            channels: 20,
            kernel: [3; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pad: [1; 2],
        };
        backend.max_pool(&x, &mut y, &pool);
        assert_eq!(y, [77; 500], "{}", backend.name());
        let mut acc = [77; 20];
        backend.sum_rows(&x, 26, 20, 20, &mut acc);
        backend.sum_rows(&x, 2, 21, 21, &mut acc);
        assert_eq!(acc, [77; 20], "{}", backend.name());
    }
}

#[test]
fn conv() {
    let shape = Windows {
        batch: 1,
        in_h: 5,
        in_w: 5,
        channels: 20,
        first: 0,
        taken: 20,
        out_h: 5,
        out_w: 5,
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [1; 2],
        pad: [1; 2],
    };
    let shapes = [
        Windows { in_h: 6, ..shape },
        Windows { batch: 2, ..shape },
        Windows { first: 1, ..shape },
        Windows { first: usize::MAX, ..shape },
        Windows { in_w: usize::MAX, ..shape },
        Windows { out_h: usize::MAX, ..shape },
        Windows { out_h: 6, ..shape },
        Windows { stride: [usize::MAX, 1], ..shape },
        Windows { dilation: [1, usize::MAX / 2], ..shape },
        Windows { kernel: [usize::MAX, 2], ..shape },
        Windows { kernel: [4, 3], ..shape },
        Windows { pad: [usize::MAX, 0], ..shape },
    ];
    let (x, w, n) = ([1; 500], [1; 720], 4);
    for backend in available() {
        let mut packed = vec![0; backend.gemm_packed_len(n, 180)];
        backend.gemm_pack(&w, n, 180, &mut packed);
        let weights = Weights { canonical: &w, packed: &packed };
        let mut scratch = vec![0; backend.conv_scratch_len(&shape, n)];
        let run = |x: &[i8], weights, bias: &[i32], scratch: &mut [u8], shape: &Windows| {
            let mut y = [77; 100];
            let out = GemmOut::I8(&mut y, REQUANT);
            backend.conv(x, shape, 0, weights, n, bias, out, n, scratch);
            assert_eq!(y, [77; 100], "{} {shape:?}", backend.name());
        };
        for shape in &shapes {
            // Too few weights for the one with more taps, whatever they are packed to.
            let weights = Weights { canonical: &w, packed: if shape.kernel == [3; 2] { &packed } else { &[] } };
            run(&x, weights, &[], &mut scratch, shape);
        }
        run(&x[..499], weights, &[], &mut scratch, &shape);
        run(&x, weights, &[1; 3], &mut scratch, &shape);
        run(&x, weights, &[], &mut [], &shape);
        let less = Weights { canonical: &w[..719], packed: &packed[..packed.len().saturating_sub(1)] };
        run(&x, less, &[], &mut scratch, &shape);
    }
}

#[test]
fn elementwise() {
    for backend in available() {
        let mut y = [77; 40];
        backend.quantize(&[1.0; 39], 1.0, 0, &mut y);
        let raw = &mut [77; 40];
        backend.map(&[1; 41], &[0; 256], raw);
        assert_eq!(raw, &[77; 40]);
        let mut floats = [77.0; 6];
        backend.chains_f32(&[1.0; 5], 3, 2, &[1.0; 9], 3, 3, &mut floats);
        backend.chains_f32(&[1.0; 6], 3, 2, &[1.0; 8], 3, 3, &mut floats);
        backend.chains_f32(&[1.0; 6], 3, 2, &[1.0; 9], 3, 3, &mut floats[..5]);
        backend.chains_f32(&[1.0; 6], 3, usize::MAX, &[1.0; 9], 3, 3, &mut floats);
        assert_eq!(floats, [77.0; 6]);
        let add = dunlin_kernels::Add {
            a_scale: 1.0,
            b_scale: 1.0,
            offset: 0.0,
            a_offset: 0,
            b_offset: 0,
            zero_point: 0,
            lo: -128,
            hi: 127,
        };
        backend.add(&[1; 40], &[1; 3], &mut y, &add);
        backend.add(&[1; 40], &[], &mut y, &add);
        backend.add(&[1; 41], &[1; 41], &mut y, &add);
        backend.add_in_place(&mut y, &[1; 80], &add);
        assert_eq!(y, [77; 40], "{}", backend.name());
    }
}
