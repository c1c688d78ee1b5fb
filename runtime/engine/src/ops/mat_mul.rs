//! `MatMul`: integer product of two activations, the last two axes of each being matrices; axes before them repeat.
//!
//! `acc = sum((a - a_zero_point) * (b - b_zero_point))` in wrapping i32, then as for [`conv`](super::conv).

use dunlin_kernels::{Backend, GemmOut, Weights};
use dunlin_package::DType;
use dunlin_package::op::{MatMul, Op};
use dunlin_package::plan::{MAX_RANK, Tensor};

use super::broadcast::extent;
use super::{Operator, bounds, requant};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// Rows whose accumulators are held at a time.
const ROWS: usize = 16;

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { scratch, ..Operator::plain(Op::MatMul, false, check, run) }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: MatMul = view.need_params()?;
    if [a.dtype, b.dtype] != [DType::I8; 2] || !matches!(y.dtype, DType::I8 | DType::I32 | DType::F32) {
        return Err(Fault::Type);
    }
    check_shapes([&a, &b, &y])?;
    let byte = |z: i32| (-128..=127).contains(&z);
    if !byte(p.a_zero_point) || !byte(p.b_zero_point) {
        return Err(Fault::Params);
    }
    if y.dtype == DType::I8 {
        bounds(&p.range)?;
    }
    Ok(())
}

/// Matrices that fit, and axes before them that repeat.
pub(crate) fn check_shapes([a, b, y]: [&Tensor; 3]) -> Result<(), Fault> {
    let fits = a.rank >= 2
        && b.rank >= 2
        && y.rank >= a.rank.max(b.rank)
        && extent(a, 0) == extent(b, 1)
        && extent(y, 0) == extent(b, 0)
        && extent(y, 1) == extent(a, 1)
        && !(a.is_empty() || b.is_empty() || y.is_empty())
        && (2..MAX_RANK).all(|i| {
            let (a, b, y) = (extent(a, i), extent(b, i), extent(y, i));
            (a == y || a == 1) && (b == y || b == 1)
        });
    if fits { Ok(()) } else { Err(Fault::Shape) }
}

/// Rows, columns, and the length of the sums.
pub(crate) fn sizes(a: &Tensor, b: &Tensor) -> [usize; 3] {
    [extent(a, 1), extent(b, 0), extent(a, 0)]
}

/// The matrix of `part` that belongs to matrix `number` of `whole`.
pub(crate) fn matrix<'d, T>(part: &Tensor, whole: &Tensor, mut number: usize, data: &'d [T]) -> Option<&'d [T]> {
    let len = extent(part, 0) * extent(part, 1);
    let (mut at, mut stride) = (0, 1);
    for i in 2..MAX_RANK {
        let (size, own) = (extent(whole, i), extent(part, i));
        let index = number.checked_rem(size)?;
        number = number.checked_div(size)?;
        if own > 1 {
            at += index * stride;
        }
        stride *= own;
    }
    data.get(at * len..(at + 1) * len)
}

/// Room for one right factor with its columns as rows, packed too, its columns' terms, and rows of accumulators.
struct Room {
    columns: usize,
    packed: usize,
    terms: usize,
    rows: usize,
    gemm: usize,
}

impl Room {
    fn new<B: Backend>([_, n, k]: [usize; 3], backend: B) -> Self {
        Self {
            columns: (n * k).next_multiple_of(64),
            packed: backend.gemm_packed_len(n, k).next_multiple_of(64),
            terms: 4 * n,
            rows: 4 * n * ROWS,
            gemm: backend.gemm_scratch_len(ROWS, n, k),
        }
    }
}

fn scratch<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    let (Some(a), Some(b)) = (view.input(0), view.input(1)) else { return 0 };
    let room = Room::new(sizes(&a, &b), backend);
    room.columns + room.packed + room.terms + room.rows + room.gemm
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let (a, b, y, p) = (view.input(0)?, view.input(1)?, view.output(0)?, view.params::<MatMul>()?);
    let [m, n, k] = sizes(&a, &b);
    let room = Room::new([m, n, k], backend);
    let loan = memory.lend([a, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let (a_data, b_data): (&[i8], &[i8]) = (cast(a_data)?, cast(b_data)?);
    let (columns, rest) = loan.scratch.split_at_mut_checked(room.columns)?;
    let (packed, rest) = rest.split_at_mut_checked(room.packed)?;
    let (terms, rest) = rest.split_at_mut_checked(room.terms)?;
    let (rows, rest) = rest.split_at_mut_checked(room.rows)?;
    let (columns, terms, rows): (&mut [i8], &mut [i32], &mut [i32]) =
        (cast_mut(columns.get_mut(..n * k)?)?, cast_mut(terms)?, cast_mut(rows)?);
    let scale = [p.scale];
    let finish = requant(&scale, &p.range);
    let size = y.dtype.size_bytes();
    for (number, out) in loan.output.chunks_exact_mut(m * n * size).enumerate() {
        let (left, right) = (matrix(&a, &y, number, a_data)?, matrix(&b, &y, number, b_data)?);
        for (j, (column, term)) in columns.chunks_exact_mut(k).zip(&mut *terms).enumerate() {
            let mut sum = 0i32;
            for (to, &from) in column.iter_mut().zip(right.get(j..)?.iter().step_by(n)) {
                *to = from;
                sum = sum.wrapping_add(i32::from(from));
            }
            // -za * sum(b) + k * za * zb
            let shifted = sum.wrapping_sub((k as i32).wrapping_mul(p.b_zero_point));
            *term = p.a_zero_point.wrapping_mul(shifted).wrapping_neg();
        }
        backend.gemm_pack(columns, n, k, packed);
        let weights = Weights { canonical: columns, packed };
        let outs = out.chunks_mut(ROWS * n * size);
        for (block, out) in left.chunks(ROWS * k).zip(outs) {
            let count = block.len() / k;
            let rows = rows.get_mut(..count * n)?;
            backend.gemm(block, k, count, weights, n, k, terms, GemmOut::I32(rows), n, rest);
            for ((row, a), out) in
                rows.chunks_exact_mut(n).zip(block.chunks_exact(k)).zip(out.chunks_exact_mut(n * size))
            {
                let sum = a.iter().fold(0i32, |sum, &a| sum.wrapping_add(i32::from(a)));
                let term = p.b_zero_point.wrapping_mul(sum);
                row.iter_mut().for_each(|acc| *acc = acc.wrapping_sub(term));
                match y.dtype {
                    DType::I8 => {
                        let out: &mut [i8] = cast_mut(out)?;
                        out.iter_mut().zip(&*row).for_each(|(y, &acc)| *y = finish.apply(acc, 0));
                    }
                    DType::I32 => out.copy_from_slice(bytemuck::cast_slice(row)),
                    _ => {
                        let out: &mut [f32] = cast_mut(out)?;
                        out.iter_mut().zip(&*row).for_each(|(y, &acc)| *y = acc as f32 * p.scale);
                    }
                }
            }
        }
    }
    Some(())
}
