//! `Copy`: the same bytes in another place, where a reshape could not share memory.

use dunlin_kernels::Backend;
use dunlin_package::op::Op;

use super::Operator;
use crate::memory::Memory;
use crate::model::{Fault, StepView};

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Copy, true, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    if x.bytes() == y.bytes() { Ok(()) } else { Err(Fault::Shape) }
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, _: B) {
    if let (Some(x), Some(y)) = (view.input(0), view.output(0)) {
        if x.place == y.place {
            return;
        }
        if let Some(loan) = memory.lend([x], y) {
            let [x] = loan.inputs;
            loan.output.copy_from_slice(x);
        }
    }
}
