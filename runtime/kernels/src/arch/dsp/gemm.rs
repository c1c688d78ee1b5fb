//! The int8 matrix product: four rows at a time, with all output channels.

use super::finish::{columns, fours};
use super::product::{self, Panel, ROWS, Row, WORDS};
use super::{Narrow, widen, word};
use crate::gemm::{operands_fit, rows_fit};
use crate::requant::scale_at;
use crate::{GemmOut, Requant};

/// Output channels whose sums are held at a time.
const CHANNELS: usize = 16;

/// Words that `k` elements of as many rows take.
fn words(m: usize, k: usize) -> usize {
    k.div_ceil(4).saturating_mul(if m == 1 { WORDS / ROWS } else { WORDS })
}

/// Bytes of scratch for rows of `k`, which may begin anywhere.
pub(super) fn scratch_len(m: usize, k: usize) -> usize {
    words(m, k).saturating_add(1).saturating_mul(size_of::<u32>())
}

/// The words of scratch that [`scratch_len`] asked for.
pub(super) fn scratch(m: usize, k: usize, scratch: &mut [u8]) -> Option<&mut [u32]> {
    // SAFETY: any bytes are words, and words any bytes.
    let (_, whole, _) = unsafe { scratch.align_to_mut::<u32>() };
    whole.get_mut(..words(m, k))
}

/// [`Backend::gemm`](crate::Backend::gemm); `rows` is what [`scratch`] gives.
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::gemm`")]
#[inline(never)]
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
    rows: &mut [u32],
) {
    if m == 0 || n == 0 || !operands_fit((a, lda), [m, n, k], bias, (&out, ldc)) {
        return;
    }
    let Some(mut product) = Product::new(w, [n, k], bias, out, ldc) else { return };
    let mut i = 0;
    while i < m {
        let count = (m - i).min(ROWS);
        let row = |r: usize| a.get((i + r.min(count - 1)) * lda..).and_then(|rest| rest.get(..k)).unwrap_or(&[]);
        if count == 1 {
            product.one(i, row(0), rows);
        } else {
            prepare([row(0), row(1), row(2), row(3)], rows);
            product.several(i, count, rows);
        }
        i += count;
    }
}

/// All but the rows.
pub(super) struct Product<'a> {
    w: &'a [i8],
    n: usize,
    k: usize,
    bias: &'a [i32],
    out: GemmOut<'a>,
    /// For int8.
    narrow: Option<Narrow>,
    ldc: usize,
}

impl<'a> Product<'a> {
    /// `None` when the weights are too short; the other operands were seen to fit.
    pub(super) fn new(w: &'a [i8], [n, k]: [usize; 2], bias: &'a [i32], out: GemmOut<'a>, ldc: usize) -> Option<Self> {
        let w_fits = rows_fit(w.len(), n, k, k);
        debug_assert!(w_fits, "gemm: the weights are too short for [{n}, {k}]");
        let narrow = if let GemmOut::I8(_, requant) = &out { Some(Narrow::new(requant)) } else { None };
        w_fits.then_some(Self { w, n, k, bias, out, narrow, ldc })
    }

    /// `count` rows from row `i` of the output on, which were widened.
    pub(super) fn several(&mut self, i: usize, count: usize, rows: &[u32]) {
        const NOTHING: [i32; CHANNELS] = [0; CHANNELS];
        if rows.len() < words(ROWS, self.k) {
            return;
        }
        let mut acc = [[0; ROWS]; CHANNELS];
        // Rows that are not there go where the first goes.
        let others = [1, 2, 3].map(|r| if r < count { r * self.ldc } else { 0 });
        let mut first = 0;
        while first < self.n {
            let channels = (self.n - first).min(CHANNELS);
            let Some(acc) = acc.get_mut(..channels) else { return };
            let bias =
                if self.bias.is_empty() { NOTHING.get(..channels) } else { self.bias.get(first..first + channels) };
            let weights = self.w.get(first * self.k..(first + channels) * self.k);
            let (Some(bias), Some(weights)) = (bias, weights) else { return };
            let end = acc.as_mut_ptr_range();
            let call = Panel {
                weights: weights.as_ptr(),
                rows: rows.as_ptr(),
                bias: bias.as_ptr(),
                acc: end.start,
                end: end.end,
                fours: self.k / 4,
                rest: self.k % 4,
            };
            // SAFETY: of weights and biases there is what `channels` channels of `k` take, at least one; `rows` was seen to
            // have the words of `k`, which `prepare` wrote.
            unsafe { product::panel(&call) };
            let at = i * self.ldc + first;
            if let (GemmOut::I8(y, requant), Some(narrow)) = (&mut self.out, self.narrow) {
                let scale =
                    if requant.scale.len() == 1 { requant.scale } else { requant.scale.get(first..).unwrap_or(&[]) };
                columns(acc, scale, narrow, y.get_mut(at..).unwrap_or(&mut []), others);
            } else {
                for (r, offset) in [0].into_iter().chain(others).enumerate().take(count) {
                    self.put(at + offset, first, acc.as_flattened().iter().skip(r).step_by(ROWS));
                }
            }
            first += channels;
        }
    }

    /// Row `i` of the output.
    pub(super) fn one(&mut self, i: usize, row: &[i8], words: &mut [u32]) {
        let (whole, rest) = row.as_chunks::<4>();
        if row.len() != self.k || words.len() < 2 * whole.len() {
            return;
        }
        for (four, to) in whole.iter().zip(words.as_chunks_mut::<2>().0) {
            *to = widen(super::whole_word(four));
        }
        let mut acc = [[0; 4]; CHANNELS / 4];
        let mut first = 0;
        while first < self.n {
            // Fours, and at the end what is fewer than four.
            let left = self.n - first;
            let channels = if left < 4 { left } else { (left - left % 4).min(CHANNELS) };
            let Some(weights) = self.w.get(first * self.k..(first + channels) * self.k) else { return };
            let Some(acc) = acc.get_mut(..channels.div_ceil(4)) else { return };
            let sums = acc.as_flattened_mut();
            match self.bias.get(first..first + channels) {
                Some(bias) => sums.iter_mut().zip(bias).for_each(|(to, bias)| *to = *bias),
                None => sums.fill(0),
            }
            let end = acc.as_mut_ptr_range();
            let mut call = Row {
                weights: weights.as_ptr(),
                // Channels that are not there are computed with the last again.
                others: [1, 2, 3].map(|c| c.min(channels - 1) * self.k),
                row: words.as_ptr(),
                fours: whole.len(),
                acc: end.start,
                end: end.end,
                step: 3 * self.k + rest.len(),
            };
            // SAFETY: of weights there is what `channels` channels of `k` take; of words what was written above.
            unsafe { product::row(&mut call) };
            if !rest.is_empty() {
                for (c, acc) in acc.as_flattened_mut().iter_mut().enumerate().take(channels) {
                    let weights = weights.get(c * self.k + 4 * whole.len()..).unwrap_or(&[]);
                    for (&x, &w) in rest.iter().zip(weights) {
                        *acc = acc.wrapping_add(i32::from(x) * i32::from(w));
                    }
                }
            }
            self.put_one(i * self.ldc + first, first, channels, acc);
            first += channels;
        }
    }

    /// Sums of `channels` channels from `first` on, into the output from `at` on.
    fn put_one(&mut self, at: usize, first: usize, channels: usize, acc: &[[i32; 4]]) {
        let (GemmOut::I8(y, Requant { scale, .. }), Some(narrow)) = (&mut self.out, self.narrow) else {
            return self.put(at, first, acc.as_flattened().iter().take(channels));
        };
        let y = y.get_mut(at..).unwrap_or(&mut []);
        match scale.get(first..).and_then(|rest| rest.get(..channels)) {
            Some(scale) if scale.len() >= 4 => fours(acc, (scale, 4), narrow, y, 4, 4),
            _ => {
                let scale: [f32; 4] = core::array::from_fn(|c| scale_at(scale, first + c));
                fours(acc, (&scale, 0), narrow, y, 4, channels.min(4));
            }
        }
    }

    /// Sums of channels from `first` on, into the output from `at` on; rarely of int8.
    fn put<'s>(&mut self, at: usize, first: usize, acc: impl Iterator<Item = &'s i32>) {
        for (c, acc) in acc.enumerate() {
            self.out.put(at + c, first + c, *acc);
        }
    }
}

/// Widens four rows of as many elements.
pub(super) fn prepare(rows: [&[i8]; ROWS], to: &mut [u32]) {
    let len = rows.iter().fold(usize::MAX, |len, row| len.min(row.len()));
    let (fours, rest) = (len / 4, len % 4);
    if fours != 0 && fours * WORDS <= to.len() {
        // SAFETY: each row has so many elements, and `to` has the words that they take.
        unsafe { product::widen(&rows.map(<[i8]>::as_ptr), to.as_mut_ptr(), fours) };
    }
    if rest != 0 {
        let (even, odd) = to.get_mut(fours * WORDS..).unwrap_or(&mut []).split_at_mut_checked(ROWS).unwrap_or_default();
        for ((row, even), odd) in rows.into_iter().zip(even).zip(odd) {
            [*even, *odd] = widen(word(row.get(fours * 4..).unwrap_or(&[])));
        }
    }
}
