//! `MatMulFloat`: float product of two activations, the last two axes of each being matrices; axes before them repeat.
//!
//! `y = alpha * (a0 * b0 + a1 * b1 + ..)`, added in order, every product rounded before it is added.

use dunlin_kernels::{Backend, WeightsF32};
use dunlin_package::DType;
use dunlin_package::op::{MatMulFloat, Op};

use super::Operator;
use super::mat_mul::{check_shapes, matrix, sizes};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator { scratch, ..Operator::plain(Op::MatMulFloat, false, check, run) }
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    view.need_params::<MatMulFloat>()?;
    if [a.dtype, b.dtype, y.dtype] != [DType::F32; 3] {
        return Err(Fault::Type);
    }
    check_shapes([&a, &b, &y])
}

/// One right factor with its columns as rows, packed too.
fn scratch<B: Backend>(view: &StepView<'_>, backend: B) -> usize {
    let (Some(a), Some(b)) = (view.input(0), view.input(1)) else { return 0 };
    let [_, n, k] = sizes(&a, &b);
    4 * n * k + backend.gemm_f32_packed_len(n, k)
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    let alpha = view.params::<MatMulFloat>()?.alpha;
    let [m, n, k] = sizes(&a, &b);
    let loan = memory.lend([a, b], y)?;
    let [left, right] = loan.inputs;
    let (left, right, out): (&[f32], &[f32], &mut [f32]) = (cast(left)?, cast(right)?, cast_mut(loan.output)?);
    let (columns, rest) = loan.scratch.split_at_mut_checked(4 * n * k)?;
    let packed = rest.get_mut(..backend.gemm_f32_packed_len(n, k))?;
    let columns: &mut [f32] = cast_mut(columns)?;
    for (number, out) in out.chunks_exact_mut(m * n).enumerate() {
        let right = matrix(&b, &y, number, right)?;
        for (j, column) in columns.chunks_exact_mut(k).enumerate() {
            for (to, &from) in column.iter_mut().zip(right.get(j..)?.iter().step_by(n)) {
                *to = from;
            }
        }
        backend.gemm_f32_pack(columns, n, k, packed);
        let weights = WeightsF32 { canonical: columns, packed };
        backend.gemm_f32(matrix(&a, &y, number, left)?, k, m, weights, n, k, &[], out, n);
    }
    if alpha != 1.0 {
        out.iter_mut().for_each(|y| *y *= alpha);
    }
    Some(())
}
