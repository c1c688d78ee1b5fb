//! Convolution: rows of windows are widened from where they are in the input; only those that reach over its ends, or are
//! not runs of whole words, are gathered first.

use super::gemm::{Product, prepare, scratch, scratch_len};
use super::product::{ROWS, WORDS};
use crate::gather::{copy, gather, signed};
use crate::gemm::operands_fit;
use crate::{GemmOut, Windows};

/// Bytes of scratch for rows of `k`.
pub(super) fn room(k: usize) -> usize {
    k.saturating_mul(ROWS).saturating_add(scratch_len(ROWS, k))
}

/// [`Backend::conv`](crate::Backend::conv).
#[allow(clippy::too_many_arguments, reason = "the arguments of `Backend::conv`")]
#[inline(never)]
pub(super) fn conv(
    x: &[i8],
    windows: &Windows,
    border: i8,
    w: &[i8],
    n: usize,
    bias: &[i32],
    out: GemmOut<'_>,
    ldc: usize,
    room: &mut [u8],
) {
    let (m, k) = (windows.rows(), windows.row_len());
    if m == 0 || n == 0 || !windows.fits(x.len()) || !operands_fit((&[], 0), [m, n, 0], bias, (&out, ldc)) {
        return;
    }
    let Some((gathered, rest)) = room.split_at_mut_checked(ROWS * k) else { return };
    let (gathered, Some(rows)) = (signed(gathered), scratch(ROWS, k, rest)) else { return };
    let Some(mut product) = Product::new(w, [n, k], bias, out, ldc) else { return };
    let &Windows { kernel: [kh, kw], channels, in_w, .. } = windows;
    // Whether what a row sees of a line is one run, and whether runs can be widened one by one.
    let run = kw * channels;
    let whole = windows.taken == channels && (windows.dilation[1] == 1 || kw == 1) && run != 0;
    let direct = whole && (run % 4 == 0 || kh == 1);
    let line = windows.dilation[0] * in_w * channels;
    let mut places = Places::new(windows);
    let mut i = 0;
    while i < m {
        let count = (m - i).min(ROWS);
        let mut starts = [None; ROWS];
        if whole {
            starts.iter_mut().take(count).for_each(|start| *start = places.next());
        }
        if !whole {
            gather(windows, x, border, i, count, gathered);
        }
        for (r, (start, to)) in starts.iter_mut().zip(gathered.chunks_exact_mut(k.max(1))).enumerate().take(count) {
            match *start {
                Some(start) if !direct || count == 1 => runs(x, start, line, to, run),
                Some(_) => continue,
                None if whole => gather(windows, x, border, i + r, 1, to),
                None => {}
            }
            *start = None;
        }
        let missing = |r: usize| starts.get(r).is_some_and(Option::is_none);
        // Rows that are not there are the last again.
        let of = |r: usize| r.min(count - 1);
        if count == 1 {
            product.one(i, gathered.get(..k).unwrap_or(&[]), rows);
        } else if (0..count).all(missing) {
            let row = |r: usize| gathered.get(of(r) * k..).and_then(|rest| rest.get(..k)).unwrap_or(&[]);
            prepare([row(0), row(1), row(2), row(3)], rows);
            product.several(i, count, rows);
        } else {
            for (ky, rows) in (0..kh).zip(rows.chunks_mut(run.div_ceil(4) * WORDS)) {
                let row = |r: usize| {
                    let (from, at) = match starts.get(of(r)) {
                        Some(Some(start)) => (x, start + ky * line),
                        _ => (&*gathered, of(r) * k + ky * run),
                    };
                    from.get(at..).and_then(|rest| rest.get(..run)).unwrap_or(&[])
                };
                prepare([row(0), row(1), row(2), row(3)], rows);
            }
            product.several(i, count, rows);
        }
        i += count;
    }
}

/// A row of runs, that begin `line` apart.
#[inline(never)]
fn runs(x: &[i8], mut start: usize, line: usize, to: &mut [i8], run: usize) {
    for to in to.chunks_exact_mut(run.max(1)) {
        copy(to, x.get(start..).and_then(|rest| rest.get(..run)).unwrap_or(&[]));
        start += line;
    }
}

/// Where the rows of the matrix begin in the input, one after the other; `None` for those that reach over its ends.
struct Places<'a> {
    windows: &'a Windows,
    /// Where the line of the input begins that is the first under this line of the output, if all lines under it are there.
    line: Option<usize>,
    batch: usize,
    oy: usize,
    ox: usize,
}

impl<'a> Places<'a> {
    fn new(windows: &'a Windows) -> Self {
        let mut places = Self { windows, line: None, batch: 0, oy: 0, ox: 0 };
        places.line = places.line();
        places
    }

    /// The coordinate along `axis` where the window of output `out` begins, if it ends within `size` too.
    fn start(&self, axis: usize, out: usize, size: usize) -> Option<usize> {
        let w = self.windows;
        let last = w.kernel.get(axis)?.saturating_sub(1) * w.dilation.get(axis)?;
        let start = (out * w.stride.get(axis)?).checked_sub(*w.pad.get(axis)?)?;
        (start + last < size).then_some(start)
    }

    fn line(&self) -> Option<usize> {
        let iy = self.start(0, self.oy, self.windows.in_h)?;
        Some((self.batch * self.windows.in_h + iy) * self.windows.in_w)
    }

    fn next(&mut self) -> Option<usize> {
        let place = self.line.and_then(|line| {
            let ix = self.start(1, self.ox, self.windows.in_w)?;
            Some((line + ix) * self.windows.channels)
        });
        self.ox += 1;
        if self.ox >= self.windows.out_w {
            self.ox = 0;
            self.oy += 1;
            if self.oy >= self.windows.out_h {
                self.oy = 0;
                self.batch += 1;
            }
            self.line = self.line();
        }
        place
    }
}
