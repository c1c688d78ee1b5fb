//! The int8 matrix product: two rows with two output channels at a time, so that a word that was widened serves twice.

use core::arch::asm;

use super::{Narrow, multiply_both, whole_word, widen, word};
use crate::GemmOut;
use crate::gemm::{operands_fit, rows_fit};
use crate::requant::scale_at;

/// Four of `k` of two widened rows, in native byte order: even and odd elements of the one, then of the other.
type Quad = [u8; 16];

/// Bytes of scratch for rows of `k`.
pub(super) fn scratch_len(k: usize) -> usize {
    k.div_ceil(4).saturating_mul(size_of::<Quad>())
}

#[inline(always)]
fn words(quad: &Quad) -> [u32; 4] {
    let [a, b, c, d] = quad.as_chunks::<4>().0 else { return [0; 4] };
    [*a, *b, *c, *d].map(u32::from_ne_bytes)
}

/// [`Backend::gemm`](crate::Backend::gemm); `rows` are as long as a row has fours.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
pub(super) fn gemm(
    a: &[i8],
    lda: usize,
    m: usize,
    w: &[i8],
    n: usize,
    k: usize,
    bias: &[i32],
    out: GemmOut<'_>,
    ldc: usize,
    rows: &mut [Quad],
) {
    if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
        return;
    }
    let w_fits = rows_fit(w.len(), n, k, k);
    debug_assert!(w_fits, "gemm: the weights are too short for [{n}, {k}]");
    if !w_fits {
        return;
    }
    let operands = Operands { a, lda, w, k, bias };
    match out {
        GemmOut::I8(y, requant) => {
            let narrow = Narrow::new(&requant);
            operands.run(m, n, y, ldc, rows, |acc, j| narrow.quantize(acc, scale_at(requant.scale, j)));
        }
        GemmOut::I32(y) => operands.run(m, n, y, ldc, rows, |acc, _| acc),
        GemmOut::F32(y, scale) => operands.run(m, n, y, ldc, rows, |acc, j| acc as f32 * scale_at(scale, j)),
    }
}

struct Operands<'a> {
    a: &'a [i8],
    lda: usize,
    w: &'a [i8],
    k: usize,
    bias: &'a [i32],
}

impl Operands<'_> {
    fn run<T>(&self, m: usize, n: usize, y: &mut [T], ldc: usize, rows: &mut [Quad], finish: impl Fn(i32, usize) -> T) {
        let row = |i: usize| self.a.get(i * self.lda..).and_then(|rest| rest.get(..self.k));
        let bias = |j: usize| self.bias.get(j).copied().unwrap_or(0);
        for i in (0..m).step_by(2) {
            let two = i + 1 < m;
            let Some(first) = row(i) else { return };
            let second = if two { row(i + 1) } else { Some(first) };
            let Some(second) = second else { return };
            prepare(first, second, rows);
            let (above, below) = y.get_mut(i * ldc..).unwrap_or_default().split_at_mut_checked(ldc).unwrap_or_default();
            // The last row may be shorter than `ldc`, and need not begin a pair.
            let (above, below) =
                if two { (above, below) } else { (y.get_mut(i * ldc..).unwrap_or_default(), &mut [][..]) };
            let (above, above_last) = above.get_mut(..n).unwrap_or_default().as_chunks_mut::<2>();
            let (below, below_last) = below.get_mut(..n).unwrap_or_default().as_chunks_mut::<2>();
            let mut below = below.iter_mut();
            let mut weights = self.w;
            let mut j = 0;
            for above in above {
                let Some((channels, rest)) = weights.split_at_checked(2 * self.k) else { return };
                let Some((v, w)) = channels.split_at_checked(self.k) else { return };
                weights = rest;
                let acc = if two { dots::<2>(rows, [v, w]) } else { dots::<1>(rows, [v, w]) };
                let bias = [bias(j), bias(j + 1)];
                let put = |to: &mut [T; 2], [a, b]: [i32; 2]| {
                    *to = [finish(a.wrapping_add(bias[0]), j), finish(b.wrapping_add(bias[1]), j + 1)];
                };
                put(above, acc[0]);
                if let Some(below) = below.next() {
                    put(below, acc[1]);
                }
                j += 2;
            }
            if let Some(w) = weights.get(..self.k).filter(|_| n % 2 == 1) {
                let acc = dots::<2>(rows, [w, w]);
                for (to, acc) in above_last.iter_mut().chain(below_last).zip(acc) {
                    *to = finish(acc[0].wrapping_add(bias(j)), j);
                }
            }
        }
    }
}

/// The sums of `R` of the two rows with two output channels; of the other anything.
#[inline(always)]
fn dots<const R: usize>(rows: &[Quad], [v, w]: [&[i8]; 2]) -> [[i32; 2]; 2] {
    let mut acc = [[0; 2]; 2];
    let ((v, v_rest), (w, w_rest)) = (v.as_chunks::<4>(), w.as_chunks::<4>());
    let whole = v.len();
    let (most, last) = rows.split_at_checked(whole).unwrap_or_default();
    if R == 1 {
        add_one(&mut acc[0], most, [v, w]);
    } else {
        add_all(&mut acc, most, [v, w]);
    }
    if let Some(x) = last.first() {
        add(&mut acc, words(x), [word(v_rest), word(w_rest)]);
    }
    acc
}

/// As [`add_all`], of the first row alone.
#[inline(always)]
fn add_one(acc: &mut [i32; 2], rows: &[Quad], [v, w]: [&[[i8; 4]]; 2]) {
    if rows.is_empty() || v.len() < rows.len() || w.len() < rows.len() {
        return;
    }
    let [first, second] = acc;
    // SAFETY: as in `add_all`.
    unsafe {
        asm!(
            "2:",
            "ldr {t}, [{v}], #4",
            "ldr {u}, [{w}], #4",
            "ldr {x0}, [{x}]",
            "ldr {x1}, [{x}, #4]",
            "sxtb16 {te}, {t}",
            "sxtb16 {t}, {t}, ror #8",
            "sxtb16 {ue}, {u}",
            "sxtb16 {u}, {u}, ror #8",
            "add {x}, #16",
            "smlad {a}, {x0}, {te}, {a}",
            "smlad {b}, {x0}, {ue}, {b}",
            "smlad {a}, {x1}, {t}, {a}",
            "smlad {b}, {x1}, {u}, {b}",
            "cmp {x}, {end}",
            "bne 2b",
            a = inout(reg) *first,
            b = inout(reg) *second,
            v = inout(reg) v.as_ptr() => _,
            w = inout(reg) w.as_ptr() => _,
            x = inout(reg) rows.as_ptr() => _,
            end = in(reg) rows.as_ptr_range().end,
            t = out(reg) _,
            te = out(reg) _,
            u = out(reg) _,
            ue = out(reg) _,
            x0 = out(reg) _,
            x1 = out(reg) _,
            options(readonly, nostack),
        );
    }
}

/// Adds the products of two rows with two channels; what is longer than `rows` is left.
#[inline(always)]
fn add_all(acc: &mut [[i32; 2]; 2], rows: &[Quad], [v, w]: [&[[i8; 4]]; 2]) {
    if rows.is_empty() || v.len() < rows.len() || w.len() < rows.len() {
        return;
    }
    let [[first, second], [third, fourth]] = acc;
    // The compiler runs out of registers where there are just enough.
    // SAFETY: `rows.len()` is not 0, and so many fours are read of the rows and of both channels, at any alignment, which
    // `ldr` takes. Nothing is written but the sums. The flag Q is nobody's.
    unsafe {
        asm!(
            "2:",
            "ldr {t}, [{v}], #4",
            "ldr {u}, [{w}], #4",
            "sxtb16 {te}, {t}",
            "sxtb16 {t}, {t}, ror #8",
            "sxtb16 {ue}, {u}",
            "sxtb16 {u}, {u}, ror #8",
            "ldr {xx}, [{x}], #4",
            "smlad {a}, {xx}, {te}, {a}",
            "smlad {b}, {xx}, {ue}, {b}",
            "ldr {xx}, [{x}], #4",
            "smlad {a}, {xx}, {t}, {a}",
            "smlad {b}, {xx}, {u}, {b}",
            "ldr {xx}, [{x}], #4",
            "smlad {c}, {xx}, {te}, {c}",
            "smlad {d}, {xx}, {ue}, {d}",
            "ldr {xx}, [{x}], #4",
            "smlad {c}, {xx}, {t}, {c}",
            "smlad {d}, {xx}, {u}, {d}",
            "cmp {x}, {end}",
            "bne 2b",
            a = inout(reg) *first,
            b = inout(reg) *second,
            c = inout(reg) *third,
            d = inout(reg) *fourth,
            v = inout(reg) v.as_ptr() => _,
            w = inout(reg) w.as_ptr() => _,
            x = inout(reg) rows.as_ptr() => _,
            end = in(reg) rows.as_ptr_range().end,
            t = out(reg) _,
            te = out(reg) _,
            u = out(reg) _,
            ue = out(reg) _,
            xx = out(reg) _,
            options(readonly, nostack),
        );
    }
}

/// Adds four products to each of the four sums.
#[inline(always)]
fn add(acc: &mut [[i32; 2]; 2], [even0, odd0, even1, odd1]: [u32; 4], weights: [u32; 2]) {
    let [[first, second], [third, fourth]] = acc;
    let [even, odd] = widen(weights[0]);
    *first = multiply_both(odd0, odd, multiply_both(even0, even, *first));
    *third = multiply_both(odd1, odd, multiply_both(even1, even, *third));
    let [even, odd] = widen(weights[1]);
    *second = multiply_both(odd0, odd, multiply_both(even0, even, *second));
    *fourth = multiply_both(odd1, odd, multiply_both(even1, even, *fourth));
}

/// Widens two rows.
fn prepare(first: &[i8], second: &[i8], rows: &mut [Quad]) {
    let ((a, a_rest), (b, b_rest)) = (first.as_chunks::<4>(), second.as_chunks::<4>());
    let mut rows = rows.iter_mut();
    let put = |row: &mut Quad, a: u32, b: u32| {
        let ([a, b], [c, d]) = (widen(a), widen(b));
        row.as_chunks_mut::<4>().0.iter_mut().zip([a, b, c, d]).for_each(|(to, from)| *to = from.to_ne_bytes());
    };
    for ((a, b), row) in a.iter().zip(b).zip(&mut rows) {
        put(row, whole_word(a), whole_word(b));
    }
    if let Some(row) = rows.next() {
        put(row, word(a_rest), word(b_rest));
    }
}
