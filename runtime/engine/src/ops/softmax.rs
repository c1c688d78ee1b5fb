//! `Softmax`: quantized softmax over the last axis, to the bits of ONNX Runtime's `QLinearSoftmax`.
//!
//! With `e(q) = table[q - max + 255]` and `sum` their f32 sum in order, a result is
//! `round_half_even(f64(e) * f64(factor) / f64(sum)) + zero_point`, within the type.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Op, Softmax};

use super::Operator;
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Softmax, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Softmax = view.need_params()?;
    if [x.dtype, y.dtype] != [DType::I8; 2] {
        return Err(Fault::Type);
    }
    view.need_constant(1, DType::F32, &[256])?;
    if p.axis == 0 || x.len() != y.len() || !x.len().is_multiple_of(p.axis as usize) {
        return Err(Fault::Shape);
    }
    if (-128..=255).contains(&p.zero_point) && p.unsigned < 2 { Ok(()) } else { Err(Fault::Params) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let p: Softmax = view.params()?;
    let table: &[f32; 256] = cast(view.constant(1)?)?.first_chunk()?;
    let loan = memory.lend([view.input(0)?], view.output(0)?)?;
    let [x] = loan.inputs;
    let (x, y): (&[i8], &mut [i8]) = (cast(x)?, cast_mut(loan.output)?);
    let (least, most, flip) = if p.unsigned == 1 { (0, 255, 0x80) } else { (-128, 127, 0) };
    for (x, y) in x.chunks_exact(p.axis as usize).zip(y.chunks_exact_mut(p.axis as usize)) {
        let max = i32::from(*x.iter().max()?);
        // At most 255 below the greatest, so that the index is a byte.
        let exp = |q: i8| table.get((i32::from(q) - max + 255) as usize & 255).copied().unwrap_or(0.0);
        let sum = x.iter().fold(0.0f32, |sum, &q| sum + exp(q));
        for (y, &q) in y.iter_mut().zip(x) {
            let value = libm::rint(f64::from(exp(q)) * f64::from(p.factor) / f64::from(sum));
            let code = value as i32;
            *y = (code.saturating_add(p.zero_point).clamp(least, most) as u8 ^ flip).cast_signed();
        }
    }
    Some(())
}
