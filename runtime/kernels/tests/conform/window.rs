//! Depthwise convolution and pooling.

use dunlin_kernels::{Backend, Best, Depthwise, GemmOut, Pool, Requant, Scalar, Weights, Windows, available};

use crate::{Packed, Random, others};

/// The output size of a window with padding on both sides, or 0.
fn windows(input: usize, kernel: usize, stride: usize, dilation: usize, pads: usize) -> usize {
    match (input + pads).checked_sub((kernel - 1) * dilation + 1) {
        Some(room) => room / stride + 1,
        None => 0,
    }
}

fn random_depthwise(random: &mut Random, channels: usize) -> Depthwise {
    let mut pick = |range| [random.below(range), random.below(1..10)];
    let ([in_h, _], [in_w, _]) = (pick(1..12), pick(1..12));
    let kernel = match pick(0..5) {
        [0, any] => [any.min(4), pick(1..8)[0]],
        [1, _] => [5, 5],
        [2, _] => [12, 11],
        _ => [3, 3],
    };
    let stride = [pick(1..4)[0], pick(1..4)[0]];
    let dilation = [pick(1..3)[0], pick(1..3)[0]];
    let pad = [pick(0..4)[0], pick(0..4)[0]];
    let out = |axis: usize, input| {
        let pads = pad[axis] + 2;
        windows(input, kernel[axis], stride[axis], dilation[axis], pads)
    };
    Depthwise {
        in_h,
        in_w,
        out_h: out(0, in_h),
        out_w: out(1, in_w),
        channels,
        kernel,
        stride,
        dilation,
        pad,
        pad_value: random.i8(),
    }
}

#[test]
fn depthwise() {
    let mut random = Random(6);
    for round in 0..1500 {
        let channels = match round {
            0..70 => round + 1,
            // More than are packed on the stack at a time.
            1490.. => random.below(800..2000),
            _ => random.below(1..150),
        };
        let shape = random_depthwise(&mut random, channels);
        let taps = shape.kernel[0] * shape.kernel[1];
        let mut x = random.bytes(shape.in_h * shape.in_w * channels);
        let mut w = random.bytes(channels * taps);
        if round % 16 == 0 {
            x.fill(-128);
            w.fill(-128);
        }
        let bias = if round % 3 == 0 { vec![] } else { random.biases(channels) };
        let scale = random.scales(channels);
        let requant = Requant { scale: &scale, zero_point: i32::from(random.i8()), lo: -120, hi: 121 };
        let run = |backend: Best, packed: &[u8]| {
            let mut y = vec![77; shape.out_h * shape.out_w * channels];
            let weights = Weights { canonical: &w, packed };
            backend.depthwise(&x, weights, &bias, requant, &mut y, &shape);
            y
        };
        let want = run(Best::Scalar(Scalar), &[]);
        for backend in others() {
            let packed = Packed::new(backend.depthwise_packed_len(channels, taps), |packed| {
                backend.depthwise_pack(&w, channels, taps, packed);
            });
            assert_eq!(run(backend, packed.get()), want, "{} {shape:?}", backend.name());
            assert_eq!(run(backend, &[]), want, "{} {shape:?}, unpacked", backend.name());
        }
    }
}

#[test]
fn depthwise_is_a_product_per_channel() {
    let mut random = Random(7);
    for _ in 0..200 {
        let channels = random.below(1..20);
        let shape = random_depthwise(&mut random, channels);
        let [kernel_h, kernel_w] = shape.kernel;
        let taps = kernel_h * kernel_w;
        let x = random.bytes(shape.in_h * shape.in_w * channels);
        let w = random.bytes(channels * taps);
        let requant = Requant { scale: &[0.01], zero_point: 3, lo: -128, hi: 127 };
        let mut want = Vec::new();
        for oy in 0..shape.out_h {
            for ox in 0..shape.out_w {
                for c in 0..channels {
                    let mut acc = 0;
                    for tap in 0..taps {
                        let at = |axis: usize, out: usize, tap: usize| {
                            (out * shape.stride[axis] + tap * shape.dilation[axis]) as isize - shape.pad[axis] as isize
                        };
                        let (iy, ix) = (at(0, oy, tap / kernel_w), at(1, ox, tap % kernel_w));
                        let inside = (0..shape.in_h as isize).contains(&iy) && (0..shape.in_w as isize).contains(&ix);
                        let value = if inside {
                            x[(iy as usize * shape.in_w + ix as usize) * channels + c]
                        } else {
                            shape.pad_value
                        };
                        acc += i32::from(value) * i32::from(w[c * taps + tap]);
                    }
                    want.push(requant.apply(acc, 0));
                }
            }
        }
        let mut y = vec![0; want.len()];
        let weights = Weights { canonical: &w, packed: &[] };
        Scalar.depthwise(&x, weights, &[], requant, &mut y, &shape);
        assert_eq!(y, want, "{shape:?}");
    }
}

/// The rows that the windows see, one element after the other.
fn rows_by_hand(x: &[i8], w: &Windows, border: i8) -> Vec<i8> {
    let mut rows = Vec::new();
    let places = (0..w.batch).flat_map(|b| (0..w.out_h).flat_map(move |oy| (0..w.out_w).map(move |ox| (b, oy, ox))));
    for (b, oy, ox) in places {
        for tap in 0..w.kernel[0] * w.kernel[1] {
            let at = |axis: usize, out: usize, tap: usize| {
                (out * w.stride[axis] + tap * w.dilation[axis]) as isize - w.pad[axis] as isize
            };
            let (iy, ix) = (at(0, oy, tap / w.kernel[1]), at(1, ox, tap % w.kernel[1]));
            let inside = (0..w.in_h as isize).contains(&iy) && (0..w.in_w as isize).contains(&ix);
            for c in w.first..w.first + w.taken {
                let at = |(iy, ix)| ((b * w.in_h + iy) * w.in_w + ix) * w.channels + c;
                rows.push(if inside { x[at((iy as usize, ix as usize))] } else { border });
            }
        }
    }
    rows
}

#[test]
fn conv() {
    let mut random = Random(13);
    for round in 0..1200 {
        let shape = random_depthwise(&mut random, 1);
        let groups = [1, 1, 1, 2, 3][random.below(0..5)];
        let taken = if round % 2 == 0 { 4 * random.below(1..6) } else { random.below(1..20) };
        let (n, batch) = (random.below(1..20), random.below(1..3));
        let windows = Windows {
            batch,
            in_h: shape.in_h,
            in_w: shape.in_w,
            channels: groups * taken,
            first: taken * random.below(0..groups),
            taken,
            out_h: shape.out_h,
            out_w: shape.out_w,
            kernel: shape.kernel,
            stride: shape.stride,
            dilation: shape.dilation,
            pad: shape.pad,
        };
        let (m, k) = (windows.rows(), windows.row_len());
        let x = random.bytes(batch * windows.in_h * windows.in_w * windows.channels);
        let w = random.bytes(n * k);
        let bias = if round % 3 == 0 { vec![] } else { random.biases(n) };
        let scale = random.scales(n);
        let requant = Requant { scale: &scale, zero_point: i32::from(random.i8()), lo: -120, hi: 121 };
        let ldc = n + random.below(0..4);
        let border = random.i8();
        let rows = rows_by_hand(&x, &windows, border);
        let weights = Weights { canonical: &w, packed: &[] };
        let (mut want, mut sums) = (vec![77; m * ldc], vec![77; m * ldc]);
        Scalar.gemm(&rows, k, m, weights, n, k, &bias, GemmOut::I8(&mut want, requant), ldc, &mut []);
        Scalar.gemm(&rows, k, m, weights, n, k, &bias, GemmOut::I32(&mut sums), ldc, &mut []);
        for backend in available() {
            let what = format!("{} {windows:?} {n}", backend.name());
            let packed = Packed::new(backend.gemm_packed_len(n, k), |packed| {
                backend.gemm_pack(&w, n, k, packed);
            });
            let weights = Weights { canonical: &w, packed: packed.get() };
            let mut scratch = vec![0x5A; backend.conv_scratch_len(&windows, n) + 1];
            let (mut y, mut acc) = (vec![77; m * ldc], vec![77; m * ldc]);
            let out = GemmOut::I8(&mut y, requant);
            backend.conv(&x, &windows, border, weights, n, &bias, out, ldc, &mut scratch[1..]);
            assert_eq!(y, want, "{what}");
            let out = GemmOut::I32(&mut acc);
            backend.conv(&x, &windows, border, weights, n, &bias, out, ldc, &mut scratch[1..]);
            assert_eq!(acc, sums, "{what}");
            acc.fill(77);
            let weights = Weights { canonical: &w, packed: &[] };
            let out = GemmOut::I32(&mut acc);
            backend.conv(&x, &windows, border, weights, n, &bias, out, ldc, &mut scratch[1..]);
            assert_eq!(acc, sums, "{what}, unpacked");
        }
    }
}

#[test]
fn max_pool() {
    let mut random = Random(11);
    for round in 0..600 {
        let channels = if round < 100 { round + 1 } else { random.below(1..130) };
        let shape = random_depthwise(&mut random, channels);
        let shape = Pool {
            in_h: shape.in_h,
            in_w: shape.in_w,
            out_h: shape.out_h,
            out_w: shape.out_w,
            channels,
            kernel: shape.kernel,
            stride: shape.stride,
            dilation: shape.dilation,
            pad: shape.pad,
        };
        let x = random.bytes(shape.in_h * shape.in_w * channels);
        let run = |backend: Best| {
            let mut y = vec![77; shape.out_h * shape.out_w * channels];
            backend.max_pool(&x, &mut y, &shape);
            y
        };
        let want = run(Best::Scalar(Scalar));
        for backend in others() {
            assert_eq!(run(backend), want, "{} {shape:?}", backend.name());
        }
    }
}

#[test]
fn sum_rows() {
    let mut random = Random(12);
    for channels in 0..=70 {
        let (rows, row_stride) = (random.below(0..60), channels + random.below(0..5));
        let x = random.bytes(rows * row_stride);
        let start: Vec<i32> = random.biases(channels + 3);
        let run = |backend: Best| {
            let mut acc = start.clone();
            backend.sum_rows(&x, rows, channels, row_stride, &mut acc);
            acc
        };
        let want = run(Best::Scalar(Scalar));
        for backend in others() {
            assert_eq!(run(backend), want, "{} [{rows}, {channels}]", backend.name());
        }
    }
}
