//! Compiles a model and runs it on vectors.

use std::collections::BTreeSet;

use dunlin::kernels::{Backend, Best};
use dunlin::onnx::{self, Compiled, Executor};
use dunlin::package::op::Op;
use dunlin::{Arena, Block, DType, Model, Package, Session, ops};
pub use dunlin_cli::difference::{Difference, compare};

/// A compiled model with what it takes to run it again and again.
pub struct Loaded {
    bytes: Block,
    /// What the compiler says of it.
    pub compiled: Compiled,
}

impl Loaded {
    /// Compiles an ONNX model.
    ///
    /// # Errors
    /// The compiler's.
    pub fn compile(model: &[u8], options: &onnx::Options) -> Result<Self, String> {
        let compiled = onnx::compile(model, options).map_err(|e| e.to_string())?;
        Ok(Self { bytes: Block::from(&compiled.package[..]), compiled })
    }

    /// The operators of its steps.
    #[must_use]
    pub fn ops(&self) -> BTreeSet<u8> {
        self.compiled.graph.steps.iter().map(|s| s.op as u8).collect()
    }

    /// Whether some step runs in tract.
    #[must_use]
    pub fn hybrid(&self) -> bool {
        self.ops().contains(&(Op::Foreign as u8))
    }

    /// Runs samples one after the other in one session, weights in place or repacked, and gives the outputs' bytes.
    ///
    /// # Errors
    /// When the package does not load, an input does not fit or a step of tract fails.
    pub fn run(&self, samples: &[Vec<&[u8]>], backend: Best, packed: bool) -> Result<Vec<Vec<Vec<u8>>>, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let package = Package::open(&self.bytes).map_err(|e| text(&e))?;
        let model = Model::load_hybrid(&package, ops::all()).map_err(|e| text(&e))?;
        let blobs = package.foreign().into_iter().flat_map(|f| f.blobs());
        let mut executor = Executor::new(blobs).map_err(|e| text(&e))?;
        let mut memory = Block::zeroed(model.arena_len(backend));
        let mut weights = Block::zeroed(if packed { model.packed_len(backend) } else { 0 });
        if packed {
            model.pack(backend, &mut weights);
        }
        let arena = Arena::new(&mut memory);
        let session = if packed {
            Session::with_packed(&model, arena, &weights, backend)
        } else {
            Session::new(&model, arena, backend)
        };
        let mut session = session.map_err(|e| text(&e))?;
        let mut all = Vec::new();
        for inputs in samples {
            for (i, bytes) in inputs.iter().enumerate() {
                let to = session.input(i).into_bytes();
                if to.len() != bytes.len() {
                    return Err(format!("input {i} takes {} bytes, not {}", to.len(), bytes.len()));
                }
                to.copy_from_slice(bytes);
            }
            session.run_with(&mut executor).map_err(|e| text(&e))?;
            let outputs = 0..model.plan().output_count();
            all.push(outputs.map(|i| session.output(i).bytes().to_vec()).collect());
        }
        Ok(all)
    }

    /// The type of output `i`.
    #[must_use]
    pub fn output_type(&self, i: usize) -> Option<DType> {
        let (_, id) = self.compiled.graph.outputs.get(i)?;
        Some(self.compiled.graph.tensors.get(*id)?.dtype)
    }
}

/// The names of backends, for messages.
#[must_use]
pub fn names(backends: &[Best]) -> String {
    backends.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ")
}
