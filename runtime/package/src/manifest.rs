//! What a model is and needs.

mod port;

use serde::Deserialize;
#[cfg(feature = "alloc")]
use serde::Serialize;

pub use port::{Labels, Port, Ports};

use crate::error::ManifestError;

/// Inputs, and outputs, that a model may have.
pub const MAX_PORTS: u16 = 64;

/// A version of the engine or the compiler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(feature = "alloc", derive(Serialize))]
pub struct EngineVersion {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

/// The manifest of a package; strings and lists are borrowed from its bytes.
///
/// Fields are encoded in this order with postcard. A later minor version appends fields after the last.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "alloc", derive(Serialize))]
pub struct Manifest<'a> {
    /// Name of the model.
    pub name: &'a str,
    /// Version of the model, as its authors write it.
    pub version: &'a str,
    /// Compiler that wrote the package, with its version.
    pub producer: &'a str,
    /// What the plan was made for; `any` runs everywhere.
    pub target: &'a str,
    /// Least engine that runs it.
    pub engine_min: EngineVersion,
    /// Version of the operators' encoding and arithmetic.
    pub ops_version: u16,
    /// Bytes of the tensor arena.
    pub arena_bytes: u32,
    /// Bytes the operators need besides.
    pub scratch_bytes: u32,
    /// Length of the weights section.
    pub weight_bytes: u32,
    /// Bytes below which no memory plan of this model gets.
    pub lower_bound_bytes: u32,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// SHA-256 of the ONNX file.
    pub source_digest: [u8; 32],
    /// Whether every step is integer-exact, so that outputs are equal on all targets.
    pub exact: bool,
    /// Greatest difference to the golden outputs that is no error.
    pub tolerance: f32,
    pub(crate) input_count: u16,
    #[serde(borrow)]
    pub(crate) inputs: &'a [u8],
    pub(crate) output_count: u16,
    #[serde(borrow)]
    pub(crate) outputs: &'a [u8],
}

impl<'a> Manifest<'a> {
    /// Decodes and checks a manifest. `later` says that a later minor version wrote it.
    pub(crate) fn read(bytes: &'a [u8], later: bool) -> Result<Self, ManifestError> {
        let (manifest, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| ManifestError::Encoding)?;
        if !rest.is_empty() && !later {
            return Err(ManifestError::Trailing);
        }
        if manifest.input_count > MAX_PORTS || manifest.output_count > MAX_PORTS {
            return Err(ManifestError::TooManyPorts);
        }
        if !(manifest.tolerance.is_finite() && manifest.tolerance >= 0.0) {
            return Err(ManifestError::Tolerance);
        }
        port::check(manifest.inputs(), later, |index| ManifestError::Input { index })?;
        port::check(manifest.outputs(), later, |index| ManifestError::Output { index })?;
        Ok(manifest)
    }

    /// The inputs, in order.
    #[must_use]
    pub fn inputs(&self) -> Ports<'a> {
        Ports::new(self.inputs, self.input_count)
    }

    /// The outputs, in order.
    #[must_use]
    pub fn outputs(&self) -> Ports<'a> {
        Ports::new(self.outputs, self.output_count)
    }

    /// The input at `index`.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<Port<'a>> {
        self.inputs().nth(index)
    }

    /// The output at `index`.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<Port<'a>> {
        self.outputs().nth(index)
    }
}
