//! What can go wrong between an ONNX file and a package, with the place and what to do.

use std::fmt;

/// The kinds of failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are no ONNX model.
    NotOnnx,
    /// The graph contradicts itself or the ONNX specification.
    InvalidGraph,
    /// A shape is not known at compile time.
    DynamicShape,
    /// A type, operator or attribute that is not supported.
    Unsupported,
    /// A scale or zero point that no arithmetic can use.
    Quantization,
    /// Golden vectors that do not fit the model's inputs and outputs.
    Golden,
    /// Outputs that differ from the golden vectors by more than the tolerance.
    Differs,
    /// A limit of the package format.
    TooLarge,
    /// A fault of this compiler: please report it.
    Internal,
}

/// A failure with its place.
#[derive(Clone, Debug)]
pub struct CompileError {
    kind: ErrorKind,
    node: Option<String>,
    op: Option<String>,
    message: String,
    hint: Option<String>,
}

impl CompileError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, node: None, op: None, message: message.into(), hint: None }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidGraph, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, node: &str, op: &str) -> Self {
        if self.node.is_none() {
            self.node = Some(node.to_owned());
            self.op = Some(op.to_owned());
        }
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(node), Some(op)) = (&self.node, &self.op) {
            write!(f, "node '{node}' ({op}): ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}
