//! Memory that a model needs with the kernels of a target, computed on any machine.

use dunlin_engine::{LoadError, Model, ops};
use dunlin_kernels::Kernels;
use dunlin_package::Package;

/// Returns the bytes that operators need besides the tensors on a target: the most of any kernels that can run there.
pub(crate) fn scratch_len(model: &Model<'_, Kernels>, target: &str) -> usize {
    Kernels::of(target).iter().map(|&kernels| model.scratch_len(kernels)).max().unwrap_or(0)
}

/// Returns the bytes of arena, tensors and scratch, that a package needs on a target: the most of any kernels that can run
/// there.
///
/// # Errors
/// When the package's plan is not sound.
pub fn memory_on(package: &Package<'_>, target: &str) -> Result<usize, LoadError> {
    let model = Model::<Kernels>::load_hybrid(package, ops::all())?;
    Ok(Kernels::of(target).iter().map(|&kernels| model.arena_len(kernels)).max().unwrap_or(0))
}
