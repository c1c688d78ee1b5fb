//! The int8 matrix product: two rows with two output channels at a time, so that a word that was widened serves twice.

use core::arch::asm;

use super::{multiply_both, whole_word, widen, word};
use crate::GemmOut;
use crate::gemm::{operands_fit, rows_fit};
use crate::requant::{Bounds, scale_at};

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
            let bounds = Bounds::new(requant.zero_point, requant.lo, requant.hi);
            operands.run(m, n, y, ldc, rows, |acc, j| bounds.quantize(acc as f32 * scale_at(requant.scale, j)));
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
        for i in (0..m).step_by(2) {
            let Some(first) = row(i) else { return };
            // A row without a neighbour is its own.
            let second = if i + 1 < m { row(i + 1) } else { Some(first) };
            let Some(second) = second else { return };
            prepare(first, second, rows);
            for j in (0..n).step_by(2) {
                let two = j + 1 < n;
                let acc = self.dots(rows, [j, if two { j + 1 } else { j }]);
                for (r, acc) in acc.into_iter().enumerate().take(m - i) {
                    let out = y.get_mut((i + r) * ldc + j..).unwrap_or(&mut []);
                    for (c, (out, acc)) in out.iter_mut().zip(acc).enumerate().take(if two { 2 } else { 1 }) {
                        *out = finish(acc, j + c);
                    }
                }
            }
        }
    }

    /// The sums of two rows with two output channels.
    #[inline(always)]
    fn dots(&self, rows: &[Quad], channels: [usize; 2]) -> [[i32; 2]; 2] {
        let bias = channels.map(|j| self.bias.get(j).copied().unwrap_or(0));
        let [v, w] = channels.map(|j| self.w.get(j * self.k..).and_then(|rest| rest.get(..self.k)).unwrap_or(&[]));
        let mut acc = [bias; 2];
        let ((v, v_rest), (w, w_rest)) = (v.as_chunks::<4>(), w.as_chunks::<4>());
        let whole = v.len().min(w.len()).min(rows.len());
        add_all(&mut acc, rows.get(..whole).unwrap_or(&[]), [v, w]);
        if let Some(x) = rows.get(whole) {
            add(&mut acc, words(x), [word(v_rest), word(w_rest)]);
        }
        acc
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
