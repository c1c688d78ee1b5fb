//! `Concat`: joins along one axis. Each input is `outer` runs of elements, and so is the result.

use dunlin_kernels::Backend;
use dunlin_package::op::{Concat, Op};

use super::Operator;
use crate::memory::Memory;
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Concat, false, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let y = view.need_output()?;
    let outer = view.need_params::<Concat>()?.outer as usize;
    if outer == 0 {
        return Err(Fault::Params);
    }
    let mut total = 0usize;
    for i in 0..view.step.input_count() {
        let x = view.need_input(i)?;
        if x.dtype != y.dtype {
            return Err(Fault::Type);
        }
        if !x.len().is_multiple_of(outer) {
            return Err(Fault::Shape);
        }
        total = total.saturating_add(x.len());
    }
    if total == y.len() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    let _ = try_run(view, memory);
}

fn try_run(view: &StepView<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let y = view.output(0)?;
    let outer = view.params::<Concat>()?.outer as usize;
    let whole = y.bytes().checked_div(outer)?;
    let mut at = 0;
    for i in 0..view.step.input_count() {
        let loan = memory.lend([view.input(i)?], y)?;
        let [x] = loan.inputs;
        let run = x.len().checked_div(outer)?;
        if run > 0 {
            for (to, from) in loan.output.chunks_exact_mut(whole).zip(x.chunks_exact(run)) {
                to.get_mut(at..at + run)?.copy_from_slice(from);
            }
        }
        at += run;
    }
    Some(())
}
