//! `Binary`: a function of two floats, with broadcast of both.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Binary, BinaryKind, Op};

use super::Operator;
use super::broadcast::{self, broadcasts};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Binary, true, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    let p: Binary = view.need_params()?;
    BinaryKind::from_u32(p.kind).ok_or(Fault::Params)?;
    if [a.dtype, b.dtype, y.dtype] != [DType::F32; 3] {
        return Err(Fault::Type);
    }
    if broadcasts(&a, &b, &y) { Ok(()) } else { Err(Fault::Shape) }
}

/// The function's value.
#[must_use]
pub fn apply(kind: BinaryKind, a: f32, b: f32) -> f32 {
    match kind {
        BinaryKind::Add => a + b,
        BinaryKind::Sub => a - b,
        BinaryKind::Mul => a * b,
        BinaryKind::Div => a / b,
        BinaryKind::Max => {
            if a.is_nan() || a > b {
                a
            } else {
                b
            }
        }
        BinaryKind::Min => {
            if a.is_nan() || a < b {
                a
            } else {
                b
            }
        }
        BinaryKind::Pow => libm::powf(a, b),
        BinaryKind::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
    }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    // One loop for each function, so that the choice stays outside.
    match BinaryKind::from_u32(view.params::<Binary>()?.kind)? {
        BinaryKind::Add => each(view, memory, |a, b| a + b),
        BinaryKind::Sub => each(view, memory, |a, b| a - b),
        BinaryKind::Mul => each(view, memory, |a, b| a * b),
        BinaryKind::Div => each(view, memory, |a, b| a / b),
        kind => each(view, memory, |a, b| apply(kind, a, b)),
    }
}

fn each(view: &StepView<'_>, memory: &mut Memory<'_>, f: impl Fn(f32, f32) -> f32) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    if a.place == y.place {
        let loan = memory.lend([b], y)?;
        let [b_data] = loan.inputs;
        let (b_data, y_data): (&[f32], &mut [f32]) = (cast(b_data)?, cast_mut(loan.output)?);
        if b.len() == y.len() {
            y_data.iter_mut().zip(b_data).for_each(|(y, b)| *y = f(*y, *b));
            return Some(());
        }
        broadcast::rows(&y, |at, len| {
            let to = y_data.get_mut(at..at + len)?;
            match broadcast::row(&b, &y, at, b_data)? {
                [b] => to.iter_mut().for_each(|y| *y = f(*y, *b)),
                b => to.iter_mut().zip(b).for_each(|(y, b)| *y = f(*y, *b)),
            }
            Some(())
        });
        return Some(());
    }
    let loan = memory.lend([a, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let (a_data, b_data, y_data): (&[f32], &[f32], &mut [f32]) = (cast(a_data)?, cast(b_data)?, cast_mut(loan.output)?);
    if a.len() == y.len() && b.len() == y.len() {
        y_data.iter_mut().zip(a_data.iter().zip(b_data)).for_each(|(y, (a, b))| *y = f(*a, *b));
        return Some(());
    }
    broadcast::rows(&y, |at, len| {
        let row = y_data.get_mut(at..at + len)?;
        match (broadcast::row(&a, &y, at, a_data)?, broadcast::row(&b, &y, at, b_data)?) {
            ([a], [b]) => row.fill(f(*a, *b)),
            ([a], b) => row.iter_mut().zip(b).for_each(|(y, b)| *y = f(*a, *b)),
            (a, [b]) => row.iter_mut().zip(a).for_each(|(y, a)| *y = f(*a, *b)),
            (a, b) => row.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = f(*a, *b)),
        }
        Some(())
    });
    Some(())
}
