//! Matrix products, and requantisation through them.

use dunlin_kernels::{Backend, Best, GemmOut, Requant, Scalar, Weights, WeightsF32, available};

use crate::{Packed, Random, others};

/// The operands of one integer product.
struct Product {
    a: Vec<i8>,
    w: Vec<i8>,
    bias: Vec<i32>,
    scale: Vec<f32>,
    requant: Requant<'static>,
    m: usize,
    n: usize,
    k: usize,
    lda: usize,
    ldc: usize,
}

impl Product {
    fn random(random: &mut Random, [m, n, k]: [usize; 3]) -> Self {
        let lda = k + random.below(0..4);
        Self {
            a: random.bytes(m * lda),
            w: random.bytes(n * k),
            bias: if random.next() & 16 == 0 { vec![] } else { random.biases(n) },
            scale: random.scales(n),
            requant: Requant {
                scale: &[],
                zero_point: i32::from(random.i8()),
                lo: random.i8().min(0),
                hi: random.i8().max(1),
            },
            m,
            n,
            k,
            lda,
            ldc: n + random.below(0..4),
        }
    }

    /// The three kinds of output, elements between rows included.
    fn run(&self, backend: impl Backend, packed: &[u8], scratch: &mut [u8]) -> (Vec<i8>, Vec<i32>, Vec<u32>) {
        let len = self.m * self.ldc;
        let (mut i8s, mut i32s, mut f32s) = (vec![77; len], vec![77; len], vec![77.0; len]);
        let requant = Requant { scale: &self.scale, ..self.requant };
        for out in [GemmOut::I8(&mut i8s, requant), GemmOut::I32(&mut i32s), GemmOut::F32(&mut f32s, &self.scale)] {
            let weights = Weights { canonical: &self.w, packed };
            let &Self { ref a, ref bias, m, n, k, lda, ldc, .. } = self;
            backend.gemm(a, lda, m, weights, n, k, bias, out, ldc, scratch);
        }
        (i8s, i32s, f32s.into_iter().map(f32::to_bits).collect())
    }

    fn check(&self) {
        let want = self.run(Scalar, &[], &mut []);
        let &Self { m, n, k, .. } = self;
        for backend in others() {
            let what = format!("{} [{m}, {n}, {k}]", backend.name());
            let packed = Packed::new(backend.gemm_packed_len(n, k), |packed| {
                backend.gemm_pack(&self.w, n, k, packed);
            });
            let len = backend.gemm_scratch_len(m, n, k);
            let mut scratch = vec![0x5A; len + 1];
            assert_eq!(self.run(backend, packed.get(), &mut scratch[1..]), want, "{what}");
            let scratch = &mut scratch[..len / 2];
            assert_eq!(self.run(backend, packed.get(), scratch), want, "{what}, half scratch");
            assert_eq!(self.run(backend, &[], scratch), want, "{what}, unpacked, half scratch");
            assert_eq!(self.run(backend, &[], &mut []), want, "{what}, unpacked, no scratch");
            let mut scratch = vec![0x5A; len + 1];
            assert_eq!(self.run(backend, &[], &mut scratch[1..]), want, "{what}, unpacked");
        }
    }
}

#[test]
fn gemm_small() {
    let mut random = Random(1);
    for m in 1..=13 {
        for n in 1..=50 {
            for _ in 0..3 {
                let k = random.below(1..71);
                Product::random(&mut random, [m, n, k]).check();
            }
        }
    }
    for k in 0..=70 {
        Product::random(&mut random, [7, 19, k]).check();
    }
}

#[test]
fn gemm_in_several_blocks() {
    let mut random = Random(2);
    for shape in [[301, 17, 576], [25, 33, 4609], [7, 5, 40_000], [1, 100, 1280], [1000, 3, 27]] {
        Product::random(&mut random, shape).check();
    }
}

#[test]
fn gemm_around_the_room_for_an_unpacked_panel() {
    let mut random = Random(15);
    for k in [509, 510, 511, 512, 513, 1023, 1024, 1025, 1026] {
        for m in [1, 2, 3, 11, 12, 40] {
            for n in [5, 16, 37] {
                Product::random(&mut random, [m, n, k]).check();
            }
        }
    }
}

#[test]
fn gemm_extremes() {
    let mut random = Random(3);
    for (a, w) in [(-128, -128), (-128, 127), (127, -128), (127, 127)] {
        for shape in [[7, 18, 69], [1, 16, 2], [6, 16, 4096]] {
            let mut product = Product::random(&mut random, shape);
            product.a.fill(a);
            product.w.fill(w);
            product.bias = vec![if w < 0 { i32::MAX } else { i32::MIN }; shape[1]];
            product.check();
        }
    }
}

#[test]
fn gemm_rows_may_overlap() {
    let mut random = Random(4);
    let mut product = Product::random(&mut random, [20, 9, 24]);
    product.lda = 3;
    product.check();
}

#[test]
fn requant_ties_saturation_and_nan() {
    // The accumulator is the bias: one activation of zero.
    let bias: Vec<i32> = (-700..700).chain([i32::MIN, i32::MAX, i32::MAX - 1]).collect();
    let n = bias.len();
    let scales = [0.5, 0.25, 1.5, -0.5, 1e30, -1e30, 0.0, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE];
    for scale in scales {
        for zero_point in [0, -128, 127, -3, 1 << 20, i32::MIN, i32::MAX] {
            for (lo, hi) in [(-128, 127), (0, 127), (-7, 9), (5, -5)] {
                let product = Product {
                    a: vec![0],
                    w: vec![0; n],
                    bias: bias.clone(),
                    scale: vec![scale],
                    requant: Requant { scale: &[], zero_point, lo, hi },
                    m: 1,
                    n,
                    k: 1,
                    lda: 1,
                    ldc: n,
                };
                // As f32 the output would be NaN, whose bits may differ.
                if scale.is_nan() || scale.is_infinite() {
                    for backend in others() {
                        let packed = Packed::new(backend.gemm_packed_len(n, 1), |packed| {
                            backend.gemm_pack(&product.w, n, 1, packed);
                        });
                        let mut scratch = vec![0; backend.gemm_scratch_len(1, n, 1)];
                        let got = product.run(backend, packed.get(), &mut scratch).0;
                        assert_eq!(got, product.run(Scalar, &[], &mut []).0);
                    }
                } else {
                    product.check();
                }
                let requant = Requant { scale: &[scale], zero_point, lo, hi };
                let want: Vec<_> = bias.iter().map(|&acc| requant.apply(acc, 0)).collect();
                assert_eq!(product.run(Scalar, &[], &mut []).0, want);
            }
        }
    }
}

#[test]
fn gemm_f32() {
    let mut random = Random(5);
    for m in 1..=13 {
        for n in 1..=35 {
            let k = random.below(0..40);
            check_gemm_f32(&mut random, [m, n, k]);
        }
    }
    for k in [255, 256, 257, 511, 512, 513, 700] {
        check_gemm_f32(&mut random, [1, 17, k]);
        check_gemm_f32(&mut random, [8, 33, k]);
        // With weights as they are, a panel is packed for so many rows.
        check_gemm_f32(&mut random, [31, 9, k]);
        check_gemm_f32(&mut random, [37, 33, k]);
    }
}

fn check_gemm_f32(random: &mut Random, [m, n, k]: [usize; 3]) {
    let (lda, ldc) = (k + random.below(0..3), n + random.below(0..3));
    let mut float = |_| (random.next() >> 40) as f32 * 1e-6 - 8.0;
    let a: Vec<f32> = (0..m * lda).map(&mut float).collect();
    let w: Vec<f32> = (0..n * k).map(&mut float).collect();
    let bias: Vec<f32> = (0..n).map(&mut float).collect();
    let bias = if m % 2 == 0 { &bias[..] } else { &[] };
    let run = |backend: Best, packed: &[u8]| {
        let mut out = vec![77.0; m * ldc];
        let weights = WeightsF32 { canonical: &w, packed };
        backend.gemm_f32(&a, lda, m, weights, n, k, bias, &mut out, ldc);
        out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let want = run(Best::Scalar(Scalar), &[]);
    for backend in others() {
        let packed = Packed::new(backend.gemm_f32_packed_len(n, k), |packed| {
            backend.gemm_f32_pack(&w, n, k, packed);
        });
        assert_eq!(run(backend, packed.get()), want, "{} [{m}, {n}, {k}]", backend.name());
        assert_eq!(run(backend, &[]), want, "{} [{m}, {n}, {k}], unpacked", backend.name());
    }
}

#[test]
fn chains_f32() {
    let mut random = Random(14);
    for (m, n) in (0..=26).flat_map(|m| [0, 1, 3, 4, 8, 9, 15, 16, 17, 33].map(|n| (m, n))) {
        let k = random.below(0..30);
        let lda = k + random.below(0..3);
        let mut float = |_| (random.next() >> 40) as f32 * 1e-5 - 80.0;
        let a: Vec<f32> = (0..m * lda).map(&mut float).collect();
        let w: Vec<f32> = (0..k * n).map(&mut float).collect();
        let chain = |i: usize, j: usize| (0..k).fold(0.0f32, |sum, p| a[i * lda + p].mul_add(w[p * n + j], sum));
        let want: Vec<u32> =
            (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| chain(i, j).to_bits()).collect();
        for backend in available() {
            let mut out = vec![77.0; m * n];
            backend.chains_f32(&a, lda, m, &w, n, k, &mut out);
            let out: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
            assert_eq!(out, want, "{} [{m}, {n}, {k}]", backend.name());
        }
    }
}
