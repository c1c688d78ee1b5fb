//! Elementwise kernels.

use dunlin_kernels::{Add, Backend, Best, Mul, Scalar, available};

use crate::{Random, others};

/// All 65536 pairs, `b` varying fastest.
fn pairs() -> (Vec<i8>, Vec<i8>) {
    (0..=u16::MAX).map(|i| ((i >> 8) as i8, i as i8)).unzip()
}

/// Lengths of `a` and `b` around those of vectors and of repeated rows.
const BROADCASTS: [[usize; 2]; 12] = [
    [0, 1],
    [1, 1],
    [15, 15],
    [16, 1],
    [33, 11],
    [100, 1],
    [240, 3],
    [2400, 24],
    [1000, 1000],
    [771, 257],
    [5130, 513],
    [4096, 256],
];

/// ONNX Runtime's `QLinearAdd`, with the zero point of a shifted u8 graph.
fn by_hand(p: &Add, a: i8, b: i8) -> i8 {
    let (a, b) = (i32::from(a) + p.a_offset, i32::from(b) + p.b_offset);
    let v = (a as f32).mul_add(p.a_scale, (b as f32).mul_add(p.b_scale, p.offset));
    let y = v.round_ties_even() as i32 + p.zero_point;
    y.clamp(i32::from(p.lo), i32::from(p.hi)) as i8
}

#[test]
fn add() {
    let params = [
        Add {
            a_scale: 0.5,
            b_scale: 0.25,
            offset: -0.125,
            a_offset: 3,
            b_offset: -9,
            zero_point: 0,
            lo: -128,
            hi: 127,
        },
        Add {
            a_scale: 0.731_3,
            b_scale: 1.119,
            offset: 93.4,
            a_offset: 128,
            b_offset: 128,
            zero_point: -128,
            lo: -100,
            hi: 110,
        },
        Add {
            a_scale: f32::INFINITY,
            b_scale: f32::NEG_INFINITY,
            offset: 0.0,
            a_offset: 0,
            b_offset: i32::MAX,
            zero_point: 5,
            lo: -128,
            hi: 127,
        },
    ];
    let (a, b) = pairs();
    let mut random = Random(8);
    for p in params {
        let check = |a: &[i8], b: &[i8]| {
            let mut want = vec![0; a.len()];
            Scalar.add(a, b, &mut want, &p);
            if p.a_scale.is_finite() {
                let exact: Vec<i8> = a.iter().zip(b.iter().cycle()).map(|(a, b)| by_hand(&p, *a, *b)).collect();
                assert_eq!(want, exact, "{p:?}");
            }
            for backend in available() {
                let mut got = vec![0; a.len()];
                backend.add(a, b, &mut got, &p);
                assert_eq!(got, want, "{} {p:?}", backend.name());
                let mut got = a.to_vec();
                backend.add_in_place(&mut got, b, &p);
                assert_eq!(got, want, "{} {p:?} in place", backend.name());
            }
        };
        check(&a, &b);
        for [a, b] in BROADCASTS {
            check(&random.bytes(a), &random.bytes(b));
        }
    }
}

#[test]
fn mul() {
    let params = [
        Mul { scale: 0.5, a_offset: 3, b_offset: -9, offset: 0.0, zero_point: 1, lo: -128, hi: 127 },
        Mul { scale: 0.003_921_569, a_offset: 128, b_offset: 128, offset: 0.25, zero_point: -128, lo: -100, hi: 110 },
        Mul { scale: f32::NAN, a_offset: i32::MAX, b_offset: i32::MIN, offset: 0.0, zero_point: 5, lo: -128, hi: 127 },
    ];
    let (a, b) = pairs();
    let mut random = Random(9);
    for p in params {
        let check = |a: &[i8], b: &[i8]| {
            let mut want = vec![0; a.len()];
            Scalar.mul(a, b, &mut want, &p);
            for backend in available() {
                let mut got = vec![0; a.len()];
                backend.mul(a, b, &mut got, &p);
                assert_eq!(got, want, "{} {p:?}", backend.name());
                let mut got = a.to_vec();
                backend.mul_in_place(&mut got, b, &p);
                assert_eq!(got, want, "{} {p:?} in place", backend.name());
            }
        };
        check(&a, &b);
        for [a, b] in BROADCASTS {
            check(&random.bytes(a), &random.bytes(b));
        }
    }
}

#[test]
fn map() {
    let mut random = Random(10);
    let table: [u8; 256] = std::array::from_fn(|_| random.next() as u8);
    for len in [0, 1, 31, 32, 33, 256, 1000] {
        let x: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        let want: Vec<u8> = x.iter().map(|&x| table[usize::from(x)]).collect();
        for backend in available() {
            let mut got = vec![0; len];
            backend.map(&x, &table, &mut got);
            assert_eq!(got, want, "{}", backend.name());
            let mut got = x.clone();
            backend.map_in_place(&mut got, &table);
            assert_eq!(got, want, "{}", backend.name());
        }
    }
}

#[test]
fn quantize() {
    let mut x: Vec<f32> = (-2000..2000).map(|half| half as f32 * 0.5).collect();
    x.extend([f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 1e30, -1e30]);
    x.extend([2_147_483_648.0, -2_147_483_648.0, f32::MAX, f32::MIN]);
    for scale in [1.0, 0.5, 3.0, 0.1, -1.0, 1e-30, 0.0, f32::INFINITY, f32::NAN] {
        for zero_point in [0, -128, 127, 7, i32::MIN, i32::MAX] {
            for len in [x.len(), 17, 16, 15, 1, 0] {
                let x = &x[x.len() - len..];
                let mut want = vec![0; len];
                Scalar.quantize(x, scale, zero_point, &mut want);
                for backend in others() {
                    let mut got = vec![0; len];
                    backend.quantize(x, scale, zero_point, &mut got);
                    assert_eq!(got, want, "{} {scale} {zero_point}", backend.name());
                }
                if scale == 1.0 && zero_point == 7 {
                    for (&x, want) in x.iter().zip(want) {
                        let exact = (x.round_ties_even() as i64).saturating_add(7);
                        let exact = if x.is_nan() { -128 } else { exact.clamp(-128, 127) };
                        assert_eq!(i64::from(want), exact, "{x}");
                    }
                }
            }
        }
    }
}

#[test]
fn dequantize() {
    let x: Vec<i8> = (0..1000).map(|i| i as u8 as i8).collect();
    for (scale, zero_point) in [(0.1, 0), (0.003, -128), (1e30, 127), (1.0, i32::MIN)] {
        for len in [0, 1, 15, 16, 17, 1000] {
            let x = &x[..len];
            let run = |backend: Best| {
                let mut out = vec![77.0; len];
                backend.dequantize(x, scale, zero_point, &mut out);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let want = run(Best::Scalar(Scalar));
            for backend in others() {
                assert_eq!(run(backend), want, "{} {scale} {zero_point}", backend.name());
            }
        }
    }
}
