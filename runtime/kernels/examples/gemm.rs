//! Measures the kernels of every backend on one core, with packed weights and without.
//!
//! `cargo run --release -p dunlin-kernels --features std --example gemm`

use std::hint::black_box;
use std::time::{Duration, Instant};

use dunlin_kernels::{Add, Backend, Depthwise, GemmOut, Pool, Requant, Weights, WeightsF32, available};

const REQUANT: Requant<'static> = Requant { scale: &[0.001], zero_point: 3, lo: -128, hi: 127 };

/// The shortest of many runs.
fn shortest(mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut best = Duration::MAX;
    while start.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    best
}

/// The shortest of many runs with the packed weights, then of as many with the canonical ones alone.
fn both(packed: &[u8], mut run: impl FnMut(&[u8])) -> [Duration; 2] {
    let with = shortest(|| run(packed));
    let without = if packed.is_empty() { with } else { shortest(|| run(&[])) };
    [with, without]
}

fn report_both(what: &str, count: usize, [packed, canonical]: [Duration; 2]) {
    report(what, count, "GMAC/s", packed);
    let ratio = canonical.as_secs_f64() / packed.as_secs_f64();
    println!("    unpacked {:>72.1} us  {ratio:.2} times", canonical.as_secs_f64() * 1e6);
}

fn report(what: &str, count: usize, unit: &str, time: Duration) {
    let rate = count as f64 / time.as_secs_f64() / 1e9;
    println!("  {what:<34} {rate:7.2} {unit}  {:9.1} us", time.as_secs_f64() * 1e6);
}

fn bytes(len: usize) -> Vec<i8> {
    (0..len).map(|i| (i * 37 % 251) as u8 as i8).collect()
}

fn gemm(backend: impl Backend, [m, n, k]: [usize; 3]) {
    let (a, w, bias) = (bytes(m * k), bytes(n * k), vec![7; n]);
    let mut packed = vec![0; backend.gemm_packed_len(n, k)];
    backend.gemm_pack(&w, n, k, &mut packed);
    let mut scratch = vec![0; backend.gemm_scratch_len(m, n, k)];
    let mut y = vec![0; m * n];
    let scale = vec![0.001; n];
    let requant = Requant { scale: &scale, ..REQUANT };
    let times = both(&packed, |packed| {
        let weights = Weights { canonical: &w, packed };
        let out = GemmOut::I8(&mut y, requant);
        backend.gemm(black_box(&a), k, m, weights, n, k, &bias, out, n, &mut scratch);
    });
    black_box(&y);
    report_both(&format!("gemm i8 M={m} N={n} K={k}"), m * n * k, times);
}

fn gemm_f32(backend: impl Backend, [m, n, k]: [usize; 3]) {
    let a: Vec<f32> = bytes(m * k).into_iter().map(f32::from).collect();
    let w: Vec<f32> = bytes(n * k).into_iter().map(f32::from).collect();
    let mut packed = vec![0; backend.gemm_f32_packed_len(n, k)];
    backend.gemm_f32_pack(&w, n, k, &mut packed);
    let mut y = vec![0.0; m * n];
    let times = both(&packed, |packed| {
        let weights = WeightsF32 { canonical: &w, packed };
        backend.gemm_f32(black_box(&a), k, m, weights, n, k, &[], &mut y, n);
    });
    black_box(&y);
    report_both(&format!("gemm f32 M={m} N={n} K={k}"), m * n * k, times);
}

fn depthwise(backend: impl Backend, size: usize, channels: usize, kernel: usize, stride: usize) {
    let out = size.div_ceil(stride);
    let shape = Depthwise {
        in_h: size,
        in_w: size,
        out_h: out,
        out_w: out,
        channels,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pad: [kernel / 2; 2],
        pad_value: 1,
    };
    let taps = kernel * kernel;
    let (x, w, bias) = (bytes(size * size * channels), bytes(channels * taps), vec![7; channels]);
    let mut packed = vec![0; backend.depthwise_packed_len(channels, taps)];
    backend.depthwise_pack(&w, channels, taps, &mut packed);
    let mut y = vec![0; out * out * channels];
    let times = both(&packed, |packed| {
        let weights = Weights { canonical: &w, packed };
        backend.depthwise(black_box(&x), weights, &bias, REQUANT, &mut y, &shape);
    });
    let what = format!("depthwise {size}x{size}x{channels} k{kernel} s{stride}");
    report_both(&what, y.len() * taps, times);
}

fn elementwise(backend: impl Backend) {
    let len = 56 * 56 * 64;
    let (a, b, mut y) = (bytes(len), bytes(len), vec![0; len]);
    let p =
        Add { a_scale: 0.5, b_scale: 0.25, offset: 0.0, a_offset: 1, b_offset: 2, zero_point: 3, lo: -128, hi: 127 };
    let time = shortest(|| backend.add(black_box(&a), &b, &mut y, &p));
    report("add", len, "G/s", time);
    let time = shortest(|| backend.add(black_box(&a), &b[..28], &mut y, &p));
    report("add, 28 channels", len, "G/s", time);

    let table: [u8; 256] = std::array::from_fn(|i| !(i as u8));
    let raw: Vec<u8> = a.iter().map(|&x| x as u8).collect();
    let mut mapped = vec![0; len];
    let time = shortest(|| backend.map(black_box(&raw), &table, &mut mapped));
    report("map", len, "G/s", time);

    let mut f = vec![0.0; len];
    let time = shortest(|| backend.dequantize(black_box(&a), 0.1, 3, &mut f));
    report("dequantize", len, "G/s", time);
    let time = shortest(|| backend.quantize(black_box(&f), 0.1, 3, &mut y));
    report("quantize", len, "G/s", time);

    let mut acc = vec![0; 64];
    let time = shortest(|| backend.sum_rows(black_box(&a), 56 * 56, 64, 64, &mut acc));
    report("sum_rows", len, "G/s", time);

    let shape = Pool {
        in_h: 56,
        in_w: 56,
        out_h: 28,
        out_w: 28,
        channels: 64,
        kernel: [3; 2],
        stride: [2; 2],
        dilation: [1; 2],
        pad: [1; 2],
    };
    let time = shortest(|| backend.max_pool(black_box(&a), &mut y, &shape));
    report("max_pool 56x56x64 k3 s2", len / 4 * 9, "G/s", time);
}

fn main() {
    for backend in available() {
        println!("{}", backend.name());
        for shape in [
            [3136, 64, 64],
            [3136, 64, 576],
            [784, 128, 1152],
            [196, 256, 2304],
            [49, 512, 4608],
            [12544, 16, 27],
            [3136, 24, 144],
            [49, 1280, 320],
            [28, 64, 576],
            [14, 128, 1152],
            [1, 10, 64],
            [1, 1000, 1280],
            [1, 4096, 4096],
        ] {
            gemm(backend, shape);
        }
        gemm_f32(backend, [196, 256, 256]);
        for m in [1, 2, 3, 4, 6, 12] {
            gemm_f32(backend, [m, 1000, 1280]);
        }
        gemm_f32(backend, [1, 64, 64]);
        gemm_f32(backend, [1, 10, 70]);
        for (size, channels, kernel, stride) in
            [(112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (14, 480, 5, 1), (7, 960, 3, 1)]
        {
            depthwise(backend, size, channels, kernel, stride);
        }
        elementwise(backend);
    }
}
