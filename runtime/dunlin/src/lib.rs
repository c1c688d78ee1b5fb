//! On-device inference that gives the same bits everywhere.
//!
//! A compiled model is a package; a model is a package proved sound; a session is a model with memory:
//!
//! ```no_run
//! use dunlin::{Arena, Block, Model, Package, Session, kernels, ops};
//!
//! # let samples = [0.0f32; 784];
//! let bytes = Block::from(&std::fs::read("digits.dunlin")?[..]);
//! let package = Package::open(&bytes)?; // framing and digest
//! let model = Model::load(&package, ops::all())?; // proved once
//! let backend = kernels::best();
//! let mut memory = Block::zeroed(model.arena_len(backend));
//! let mut session = Session::new(&model, Arena::new(&mut memory), backend)?;
//! session.input(0).copy_from_slice(&samples)?;
//! session.run(); // nothing left that can fail
//! let class = session.output(0).argmax();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features: `std` (default) finds the CPU's instruction sets and owns memory; `onnx` compiles ONNX files at run time.
//! Without features nothing here allocates.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub use dunlin_engine::{
    ARENA_ALIGN, Arena, Delegate, DelegateError, Element, Fault, ForeignStep, InputError, LoadError, Model, Proof,
    Session, SessionError, StepView, TensorMut, TensorRef, ops,
};
pub use dunlin_kernels as kernels;
pub use dunlin_package as package;
pub use dunlin_package::{DType, Package};

#[cfg(feature = "std")]
mod block;
#[cfg(feature = "std")]
mod owned;
#[cfg(feature = "std")]
pub use block::Block;
#[cfg(feature = "std")]
pub use owned::{OpenError, OwnedSession, PortInfo, RunError};

/// The compiler, for ONNX files that are loaded at run time.
#[cfg(feature = "onnx")]
pub mod onnx {
    pub use dunlin_compiler::{
        CompileError, Compiled, ErrorKind, Executor, Golden, Missing, Options, Pins, compile, graph, memory,
    };
}
