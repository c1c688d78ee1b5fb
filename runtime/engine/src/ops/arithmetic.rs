//! What `Add` and `Mul` share: shapes, broadcast, memory.

use dunlin_package::DType;
use dunlin_package::op::Arithmetic;

use super::bounds;
use super::broadcast::{broadcasts, repeats, row, rows};
use crate::memory::{Memory, cast, cast_mut};
use crate::model::{Fault, StepView};

/// One formula's kernels. `b` repeats until it is as long as `a`.
pub(crate) struct Kernels<A, S> {
    /// `(a, b, y)`
    pub(crate) apart: A,
    /// `(a and y, b)`
    pub(crate) same: S,
}

/// Both factors are i8 and broadcast to the result.
pub(crate) fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (a, b, y) = (view.need_input(0)?, view.need_input(1)?, view.need_output()?);
    if [a.dtype, b.dtype, y.dtype] != [DType::I8; 3] {
        return Err(Fault::Type);
    }
    let p: Arithmetic = view.need_params()?;
    bounds(&p.range)?;
    if broadcasts(&a, &b, &y) { Ok(()) } else { Err(Fault::Shape) }
}

/// Runs over the whole when the second repeats, and row by row otherwise.
pub(crate) fn run(
    view: &StepView<'_>,
    memory: &mut Memory<'_>,
    kernels: &Kernels<impl Fn(&[i8], &[i8], &mut [i8]), impl Fn(&mut [i8], &[i8])>,
) -> Option<()> {
    let (a, b, y) = (view.input(0)?, view.input(1)?, view.output(0)?);
    if a.place == y.place {
        // The second cannot lie over the result, so that it is lent apart.
        let loan = memory.lend([b], y)?;
        let [b_data] = loan.inputs;
        let (b_data, y_data): (&[i8], &mut [i8]) = (cast(b_data)?, cast_mut(loan.output)?);
        if repeats(&b, &y) {
            (kernels.same)(y_data, b_data);
        } else {
            rows(&y, |at, len| {
                (kernels.same)(y_data.get_mut(at..at + len)?, row(&b, &y, at, b_data)?);
                Some(())
            });
        }
        return Some(());
    }
    let loan = memory.lend([a, b], y)?;
    let [a_data, b_data] = loan.inputs;
    let (a_data, b_data, y_data): (&[i8], &[i8], &mut [i8]) = (cast(a_data)?, cast(b_data)?, cast_mut(loan.output)?);
    if a.len() == y.len() && repeats(&b, &y) {
        (kernels.apart)(a_data, b_data, y_data);
        return Some(());
    }
    // Spread `a` over the result, then work in place.
    rows(&y, |at, len| {
        let to = y_data.get_mut(at..at + len)?;
        match row(&a, &y, at, a_data)? {
            [one] => to.fill(*one),
            all => to.copy_from_slice(all),
        }
        (kernels.same)(to, row(&b, &y, at, b_data)?);
        Some(())
    });
    Some(())
}
