//! `Map`: any function of one byte, as a table that the compiler filled.

use dunlin_kernels::Backend;
use dunlin_package::DType;
use dunlin_package::op::{Map, Op};

use super::Operator;
use crate::memory::{Lent, Memory};
use crate::model::{Fault, StepView};

/// Entries of a table.
const TABLE: usize = 256;

/// The operator.
#[must_use]
pub const fn operator<B: Backend>() -> Operator<B> {
    Operator::plain(Op::Map, true, check, run)
}

fn check(view: &StepView<'_>) -> Result<(), Fault> {
    let (x, y) = (view.need_input(0)?, view.need_output()?);
    let p: Map = view.need_params()?;
    if x.dtype.size_bytes() != 1 || y.dtype.size_bytes() != 1 {
        return Err(Fault::Type);
    }
    let channels = (p.channels as usize).max(1);
    if x.len() != y.len() || !x.len().is_multiple_of(channels) {
        return Err(Fault::Shape);
    }
    view.need_constant(1, DType::U8, &[channels.checked_mul(TABLE).ok_or(Fault::Params)?])?;
    Ok(())
}

fn run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) {
    let _ = try_run(view, memory, backend);
}

fn try_run<B: Backend>(view: &StepView<'_>, memory: &mut Memory<'_>, backend: B) -> Option<()> {
    let (x, y) = (view.input(0)?, view.output(0)?);
    let tables = view.constant(1)?;
    let channels = view.params::<Map>()?.channels as usize;
    let lent = memory.lend_or_same::<u8, u8>(x, y)?;
    if channels <= 1 {
        let table = tables.first_chunk::<TABLE>()?;
        match lent {
            Lent::Apart(x, y) => backend.map(x, table, y),
            Lent::Same(xy) => backend.map_in_place(xy, table),
        }
        return Some(());
    }
    let xy = match lent {
        Lent::Same(xy) => xy,
        Lent::Apart(x, y) => {
            y.copy_from_slice(x);
            y
        }
    };
    for row in xy.chunks_exact_mut(channels) {
        for (value, table) in row.iter_mut().zip(tables.chunks_exact(TABLE)) {
            *value = table.get(usize::from(*value)).copied().unwrap_or(0);
        }
    }
    Some(())
}
