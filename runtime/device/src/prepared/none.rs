//! Keeps nothing.

use dunlin_engine::ops::Operator;
use dunlin_engine::{Arena, Model, Session};
use dunlin_kernels::Backend;
use dunlin_package::Package;

/// Keeps nothing, and takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Prepared;

/// What a session is made from, besides the model.
#[derive(Debug)]
pub(crate) struct Weights;

impl Prepared {
    /// Proves a package's plan; `None` when it does not load.
    pub(crate) fn load<'p, B: Backend>(
        &mut self,
        package: &Package<'p>,
        ops: &'p [Operator<B>],
        _: B,
    ) -> Option<(Model<'p, B>, Weights)> {
        Model::load(package, ops).ok().map(|model| (model, Weights))
    }
}

impl Weights {
    /// A session, if the arena is large enough.
    pub(crate) fn session<'s, 'p, B: Backend>(
        &'s self,
        model: &'s Model<'p, B>,
        arena: Arena<'s>,
        backend: B,
    ) -> Option<Session<'s, 'p, B>> {
        Session::new(model, arena, backend).ok()
    }

    /// Bytes of arena that a session needs.
    pub(crate) fn arena_len<B: Backend>(&self, model: &Model<'_, B>, backend: B) -> usize {
        model.arena_len(backend)
    }
}
