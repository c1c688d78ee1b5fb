//! The target's own kernels beside the scalar ones, on small shapes of every remainder, bit for bit: the suite of
//! `dunlin-kernels` needs an operating system, and not every board's instructions exist under one.

use dunlin::kernels::{Backend, Depthwise, GemmOut, Requant, Scalar, Weights, Windows, native};

/// Elements of each operand.
const MOST: usize = 1024;

/// xorshift.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn fill(&mut self, bytes: &mut [i8]) {
        bytes.iter_mut().for_each(|b| *b = (self.next() >> 9) as i8);
    }
}

/// How many shapes were compared; `None` when one gave other bits.
pub fn run() -> Option<u32> {
    let mut random = Random(0x9E37_79B9);
    let (mut a, mut w) = ([0i8; MOST], [0i8; MOST]);
    let bias = [-70_000, 3, 0, 12_345, i32::MAX, i32::MIN, -1, 900, 77];
    let scale = [0.01, 0.5, 0.003, 1e-4, 0.25, 0.007_812_5, 0.02, 1.5, 0.1];
    let requant = Requant { scale: &scale, zero_point: -3, lo: -120, hi: 121 };
    let mut compared = 0;
    for (m, n) in (1..=3).flat_map(|m| (1..=9).map(move |n| (m, n))) {
        for k in (0..=21).chain([31, 32, 33, 48, 79]) {
            random.fill(&mut a);
            random.fill(&mut w);
            if k % 7 == 0 {
                // The greatest products there are.
                (a, w) = ([i8::MIN; MOST], [i8::MIN; MOST]);
            }
            let (mut ours, mut theirs) = ([77i8; 64], [77i8; 64]);
            let (mut sums, mut others) = ([77i32; 64], [77i32; 64]);
            let mut scratch = [0x5A; 2048];
            let weights = Weights { canonical: &w, packed: &[] };
            let bias = if m == 2 { &[][..] } else { &bias };
            // Rows may overlap, and a row of the output may have more than `n`.
            let (lda, ldc) = (k.max(1) - k % 2, n + m % 2);
            native().gemm(&a, lda, m, weights, n, k, bias, GemmOut::I8(&mut ours, requant), ldc, &mut scratch);
            Scalar.gemm(&a, lda, m, weights, n, k, bias, GemmOut::I8(&mut theirs, requant), ldc, &mut []);
            native().gemm(&a, lda, m, weights, n, k, bias, GemmOut::I32(&mut sums), ldc, &mut scratch);
            Scalar.gemm(&a, lda, m, weights, n, k, bias, GemmOut::I32(&mut others), ldc, &mut []);
            if ours != theirs || sums != others {
                return None;
            }
            compared += 1;
        }
    }
    for (channels, kernel) in (1..=9).flat_map(|c| [[3, 3], [1, 5], [2, 2], [5, 5]].map(|k| (c, k))) {
        for stride in 1..=2 {
            random.fill(&mut a);
            random.fill(&mut w);
            let out = |i: usize| (5 + 2 - kernel.get(i).copied().unwrap_or(1)) / stride + 1;
            let shape = Depthwise {
                in_h: 5,
                in_w: 5,
                out_h: out(0),
                out_w: out(1),
                channels,
                kernel,
                stride: [stride; 2],
                dilation: [1; 2],
                pad: [1; 2],
                pad_value: 4,
            };
            let (mut ours, mut theirs) = ([77i8; 512], [77i8; 512]);
            // No longer than it has to be: nothing may be read behind it.
            let (x, weights) = (a.get(..25 * channels)?, Weights { canonical: &w, packed: &[] });
            native().depthwise(x, weights, &bias, requant, &mut ours, &shape);
            Scalar.depthwise(x, weights, &bias, requant, &mut theirs, &shape);
            if ours != theirs {
                return None;
            }
            compared += 1;
        }
    }
    for (taken, kernel) in (1..=8).flat_map(|c| [[3, 3], [1, 5], [2, 2], [1, 1]].map(|k| (c, k))) {
        for stride in 1..=2 {
            random.fill(&mut a);
            random.fill(&mut w);
            let out = |i: usize| (5 + 2 - kernel.get(i).copied().unwrap_or(1)) / stride + 1;
            let windows = Windows {
                batch: 1,
                in_h: 5,
                in_w: 5,
                channels: taken,
                first: 0,
                taken,
                out_h: out(0),
                out_w: out(1),
                kernel,
                stride: [stride; 2],
                dilation: [1; 2],
                pad: [1; 2],
            };
            let (mut ours, mut theirs) = ([77i8; 512], [77i8; 512]);
            let (x, weights) = (a.get(..25 * taken)?, Weights { canonical: &w, packed: &[] });
            // The scalar kernels gather into as much.
            let mut scratch = [0x5A; 8192];
            native().conv(x, &windows, 4, weights, 5, &bias, GemmOut::I8(&mut ours, requant), 6, &mut scratch);
            Scalar.conv(x, &windows, 4, weights, 5, &bias, GemmOut::I8(&mut theirs, requant), 6, &mut scratch);
            if ours != theirs || ours == [77; 512] {
                return None;
            }
            compared += 1;
        }
    }
    Some(compared)
}
