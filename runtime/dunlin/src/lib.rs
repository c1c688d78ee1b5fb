//! On-device inference that gives the same bits everywhere.
//!
//! A compiled model is a *package*, made by `dunlin compile model.onnx`. On a phone or a server, [`OwnedSession`] is all that an
//! application needs:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let samples = [0.0; 784];
//! # std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
#![cfg_attr(feature = "std", doc = "use dunlin::OwnedSession;")]
#![cfg_attr(feature = "std", doc = "")]
#![cfg_attr(feature = "std", doc = r#"let mut session = OwnedSession::open_file("examples/digits.dunlin")?;"#)]
#![cfg_attr(
    feature = "std",
    doc = "let scores = session.run(&samples)?; // f32 in, f32 out, with the fastest kernels of the CPU"
)]
#![cfg_attr(feature = "std", doc = "# assert_eq!(scores.len(), 10);")]
#![cfg_attr(feature = "std", doc = "let digit = session.output(0).argmax();")]
//! # Ok(())
//! # }
//! ```
//!
//! # Without an operating system
//!
//! Nothing here needs the standard library or an allocator. Three layers trust each other: a [`Package`] is bytes whose framing
//! and digest hold, a [`Model`] is a package whose plan is proved sound, a [`Session`] is a model with memory. After that,
//! [`Session::run`] cannot fail. [`include_model!`] puts the model into the program, with its sizes as constants:
//!
//! ```
//! use dunlin::{Arena, Model, Package, Session, kernels};
//!
//! dunlin::include_model!(mod digits = "examples/digits.dunlin");
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # let samples = [0.0; digits::INPUT_LEN];
//! let mut memory = [0; digits::ARENA_LEN];
//! let package = Package::open(digits::PACKAGE)?; // framing and digest
//! let model = Model::load(&package, digits::ops())?; // proved once, with the operators that it needs
//! let mut session = Session::new(&model, Arena::new(&mut memory), kernels::native())?;
//! session.input(0).copy_from_slice(&samples)?;
//! session.run(); // nothing left that can fail
//! let digit = session.output(0).argmax();
//! # assert!(digit.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! On a host with memory to spare, [`Model::pack`] and [`Session::with_packed`] are what [`OwnedSession`] uses: weights in the order
//! that the kernels like. [`Session::new`] says what it costs to do without.
//!
//! # Threads
//!
//! Sessions are `Send`. Each thread has its own: [`OwnedSession::clone`] shares package and weights, and any number of [`Session`]s
//! borrow one [`Model`].
//!
//! # ONNX files
//!
//! With the feature `onnx`, [`OwnedSession::open`] takes ONNX files as well: they are compiled in process, and what the engine lacks an
//! operator for runs in tract. With `macros-onnx`, [`include_model!`] compiles them while the program is built.
//!
//! # Updates
//!
//! With the feature `device`, [`device`] runs a model, has it replaced by signed updates, takes a bad one back by itself, reports and
//! obeys flags. `examples/host_device.rs` is a device on a host.
//!
//! # Features
//!
//! | feature | what it brings |
//! | --- | --- |
//! | `std` (default) | the CPU's instruction sets are found at run time; [`OwnedSession`], [`Block`] |
//! | `macros` (default) | [`include_model!`] |
//! | `macros-onnx` | [`include_model!`] of ONNX files; the macro links tract, the program does not |
//! | `onnx` | ONNX files at run time: [`onnx`], and [`OwnedSession::open`] takes them |
//! | `update` | [`update`]: signed releases, rollouts, differences, slots |
//! | `telemetry` | [`telemetry`]: recorder, reports, drift |
//! | `rollout` | [`rollout`]: cohorts, stages, gates, flags |
//! | `device` | [`device`]: all of these in one state machine without I/O |
//!
//! Without features nothing here allocates.
#![cfg_attr(not(feature = "std"), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

pub use dunlin_engine::{
    ARENA_ALIGN, Arena, Delegate, DelegateError, Element, Fault, ForeignStep, InputError, LoadError, Model, Proof,
    Session, SessionError, StepView, TensorMut, TensorRef, ops,
};
pub use dunlin_kernels as kernels;
pub use dunlin_package as package;
pub use dunlin_package::{DType, Package};

#[cfg(feature = "device")]
pub use dunlin_device as device;
#[cfg(feature = "rollout")]
pub use dunlin_rollout as rollout;
#[cfg(feature = "telemetry")]
pub use dunlin_telemetry as telemetry;
#[cfg(feature = "update")]
pub use dunlin_update as update;

#[cfg(feature = "std")]
mod block;
#[cfg(feature = "std")]
mod owned;
mod port;
#[cfg(feature = "std")]
pub use block::Block;
#[cfg(feature = "std")]
pub use owned::{OpenError, OwnedSession, PortInfo, RunError};
pub use port::ModelPort;

#[doc(hidden)]
#[cfg(feature = "macros")]
pub use dunlin_macros::include_model as __include_model;

/// Puts a model into the program: a module with the package, aligned for the engine, and what is known of it.
///
/// ```
/// dunlin::include_model!(
///     /// Reads handwritten digits.
///     pub mod digits = "examples/digits.dunlin"
/// );
///
/// assert_eq!(digits::NAME, "digits");
/// assert_eq!((digits::INPUT_LEN, digits::OUTPUT_LEN), (784, 10));
/// assert_eq!(digits::INPUTS[0].shape, [1, 1, 28, 28]);
/// let pixels = [0.0 as digits::Input; digits::INPUT_LEN];
/// # assert_eq!(pixels[0], 0.0);
/// assert!(dunlin::Package::open(digits::PACKAGE).is_ok());
/// ```
///
/// The path is relative to the folder of the program's `Cargo.toml`. The package is opened and proved while the program is built, so
/// that a damaged one is a compile error; the program is built again when the file changes.
///
/// | item | |
/// | --- | --- |
/// | `PACKAGE` | `&Aligned<[u8]>`, which dereferences to the bytes: for [`Package::open`] and `OwnedSession::open` |
/// | `ARENA_LEN` | bytes of memory that a session needs with [`kernels::native`], wherever they begin in memory |
/// | `ops()` | the operators that the model needs, for [`Model::load`]; the linker leaves out the rest |
/// | `INPUTS`, `OUTPUTS` | [`ModelPort`]s: name, type, shape, quantization, labels |
/// | `INPUT_LEN`, `OUTPUT_LEN` | elements of the first input and output |
/// | `Input`, `Output` | types of their elements |
/// | `NAME`, `VERSION` | those of the model |
///
/// With the feature `macros-onnx` the file may be an ONNX file, which is compiled for any target while the program is built. An
/// operator that the engine lacks is then a compile error.
#[cfg(feature = "macros")]
#[macro_export]
macro_rules! include_model {
    ($($input:tt)*) => {
        $crate::__include_model! { $crate; $($input)* }
    };
}

/// The compiler, for ONNX files that are loaded at run time.
#[cfg(feature = "onnx")]
pub mod onnx {
    pub use dunlin_compiler::{
        CompileError, Compiled, ErrorKind, Executor, Golden, Group, Kernels, Missing, Options, Pins, PortSummary,
        Unsupported, compile, graph, groups, memory, memory_on, ports,
    };
}

/// The README's snippets, as tests.
#[cfg(all(doctest, feature = "std", feature = "macros"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Those of the crate's own README.
#[cfg(all(doctest, feature = "std", feature = "macros"))]
#[doc = include_str!("../README.md")]
struct CrateReadme;
