//! `Mul`: quantized arithmetic on two tensors with broadcast; `FORMAT.md` has the formula.

use dunlin_kernels::{Backend, Mul as Formula};
use dunlin_package::op::{Arithmetic, Op};

use super::Operator;
use super::arithmetic::{self, Kernels};
use crate::memory::Memory;
use crate::model::StepView;

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Mul, true, arithmetic::check, run)
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let Some(formula) = view.params().and_then(formula) else { return };
    let kernels = Kernels {
        apart: |a: &[i8], b: &[i8], y: &mut [i8]| backend.mul(a, b, y, &formula),
        same: |y: &mut [i8], b: &[i8]| backend.mul_in_place(y, b, &formula),
    };
    let _ = arithmetic::run(view, memory, &kernels);
}

fn formula(p: Arithmetic) -> Option<Formula> {
    Some(Formula {
        scale: p.a_scale,
        offset: p.constant,
        a_offset: p.a_offset,
        b_offset: p.b_offset,
        lo: i8::try_from(p.range.lo).ok()?,
        hi: i8::try_from(p.range.hi).ok()?,
        zero_point: p.range.zero_point,
    })
}
