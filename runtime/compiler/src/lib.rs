//! Dunlin's compiler: a quantized ONNX graph in, a package out.
//!
//! tract reads the graph, infers shapes and folds constants; [`lower`] makes integer steps of it; the memory plan gives
//! every tensor its place; the result is a [`Package`](dunlin_package::Package), and [`compile`] runs its golden vectors.
#![forbid(unsafe_code)]

mod compile;
mod emit;
mod error;
mod foreign;
pub mod graph;
mod import;
mod kernels;
mod lower;
pub mod memory;
mod unsupported;
mod verify;

pub use compile::{Compiled, Golden, Options, compile};
pub use dunlin_kernels::Kernels;
pub use error::{CompileError, ErrorKind};
pub use foreign::Executor;
pub use import::{Pins, PortSummary, ports};
pub use kernels::memory_on;
pub use unsupported::{Group, Missing, Unsupported, groups};
