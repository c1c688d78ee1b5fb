//! How a smaller tensor repeats over a larger one: axes are matched from the last, an extent of one repeats.

use dunlin_package::plan::{MAX_RANK, Tensor};

/// Extent of axis `i` counted from the last.
pub(crate) fn extent(tensor: &Tensor, i: usize) -> usize {
    tensor.shape().iter().rev().nth(i).map_or(1, |&d| d as usize)
}

/// Whether `a` and `b` broadcast to `y`, and to nothing else.
pub(crate) fn broadcasts(a: &Tensor, b: &Tensor, y: &Tensor) -> bool {
    a.rank <= y.rank
        && b.rank <= y.rank
        && (0..MAX_RANK).all(|i| {
            let (a, b, y) = (extent(a, i), extent(b, i), extent(y, i));
            (a == y || a == 1) && (b == y || b == 1) && (a == y || b == y)
        })
}

/// Whether `part` is `whole`'s last axes, after ones: then its elements repeat in order.
pub(crate) fn repeats(part: &Tensor, whole: &Tensor) -> bool {
    let mut ones = false;
    (0..MAX_RANK).all(|i| {
        ones |= extent(part, i) != extent(whole, i);
        !ones || extent(part, i) == 1
    })
}

/// Calls `each(offset, length)` for every row of `whole`, until it gives `None`.
pub(crate) fn rows(whole: &Tensor, mut each: impl FnMut(usize, usize) -> Option<()>) {
    let len = extent(whole, 0);
    let mut at = 0;
    while len > 0 && at < whole.len() && each(at, len).is_some() {
        at += len;
    }
}

/// The row of `part` that belongs to the row of `whole` at `at`: as long, or one element.
pub(crate) fn row<'d, T>(part: &Tensor, whole: &Tensor, at: usize, data: &'d [T]) -> Option<&'d [T]> {
    let (start, len) = row_of(part, whole, at)?;
    data.get(start..start + len)
}

/// Where [`row`] begins, and how long it is.
pub(crate) fn row_of(part: &Tensor, whole: &Tensor, mut at: usize) -> Option<(usize, usize)> {
    let (mut offset, mut stride) = (0, 1);
    for i in 0..MAX_RANK {
        let (size, own) = (extent(whole, i), extent(part, i));
        let index = at.checked_rem(size)?;
        at = at.checked_div(size)?;
        if own > 1 {
            offset += index * stride;
        }
        stride *= own;
    }
    Some((offset, extent(part, 0)))
}
