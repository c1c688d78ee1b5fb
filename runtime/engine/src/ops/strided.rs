//! Copies elements that lie at regular distances, the result in order.

use bytemuck::Pod;
use dunlin_package::plan::MAX_RANK;

use crate::memory::{cast, cast_mut};

/// An axis of the result: its extent, and how far apart its elements lie in the source.
pub(crate) type Axis = (usize, isize);

/// Copies bytes of elements of `size` bytes; the first lies at element `base` of the source.
pub(crate) fn copy(size: usize, from: &[u8], to: &mut [u8], base: usize, axes: &[Axis; MAX_RANK]) -> Option<()> {
    match size {
        1 => walk::<u8>(from, to, base, axes),
        4 => walk::<u32>(from, to, base, axes),
        _ => walk::<u64>(from, to, base, axes),
    }
}

fn walk<T: Pod>(from: &[u8], to: &mut [u8], base: usize, axes: &[Axis; MAX_RANK]) -> Option<()> {
    let (from, to): (&[T], &mut [T]) = (cast(from)?, cast_mut(to)?);
    let [a, b, c, d, e, (len, step)] = *axes;
    let mut rows = to.chunks_exact_mut(len.max(1));
    for i in 0..a.0 {
        for j in 0..b.0 {
            for k in 0..c.0 {
                for l in 0..d.0 {
                    let outer = [(i, a), (j, b), (k, c), (l, d)];
                    let outer = outer.iter().fold(base, |at, &(i, axis)| moved(at, i, axis.1));
                    for m in 0..e.0 {
                        row(from.get(..)?, moved(outer, m, e.1), step, rows.next()?)?;
                    }
                }
            }
        }
    }
    Some(())
}

/// `steps` steps from `at`; the caller has proved that it stays inside.
fn moved(at: usize, steps: usize, step: isize) -> usize {
    at.wrapping_add_signed((steps as isize).wrapping_mul(step))
}

fn row<T: Copy>(from: &[T], start: usize, step: isize, to: &mut [T]) -> Option<()> {
    if step == 1 {
        to.copy_from_slice(from.get(start..start.checked_add(to.len())?)?);
        return Some(());
    }
    if let Ok(step) = usize::try_from(step) {
        for (to, from) in to.iter_mut().zip(from.get(start..)?.iter().step_by(step.max(1))) {
            *to = *from;
        }
        return Some(());
    }
    let backwards = from.get(..=start)?.iter().rev().step_by(step.unsigned_abs());
    for (to, from) in to.iter_mut().zip(backwards) {
        *to = *from;
    }
    Some(())
}
