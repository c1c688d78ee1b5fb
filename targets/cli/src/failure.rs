//! What goes wrong, with the exit code that says of what kind it is.

use dunlin::onnx::{CompileError, ErrorKind};

use crate::recognize::recognize;

/// Exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Outputs differ.
    Differs = 1,
    /// A wrong command line.
    Usage = 2,
    /// A file that cannot be read or written.
    File = 3,
    /// A file that is damaged or not what it should be.
    Damaged = 4,
    /// Something the model has and Dunlin has not.
    Unsupported = 5,
    /// A fault of Dunlin's own.
    Internal = 6,
    /// Documents that are not to be believed.
    Untrusted = 7,
    /// A fleet server that does not do what it was asked for, and says why.
    Refused = 8,
    /// A fleet server that cannot be reached, or cannot answer at this time.
    Unreachable = 9,
}

/// A failure: what to tell, and the exit code.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// What to tell, the hint included.
    pub text: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A damaged file.
    pub fn damaged(path: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Code::Damaged, format!("{path}: {why}"))
    }

    /// An error of opening a package: what the file is, where that can be told.
    #[must_use]
    pub fn package(path: &str, bytes: &[u8], error: impl std::fmt::Display) -> Self {
        if let Some(found) = recognize(bytes) {
            return Self::damaged(path, format!("not a package: {}", found.text()));
        }
        if dunlin::onnx::ports(bytes).is_some() {
            let hint = "compile it first: dunlin compile MODEL.onnx -o MODEL.dunlin";
            return Self::damaged(path, format!("not a package: this is an ONNX model\n  hint: {hint}"));
        }
        Self::damaged(path, error)
    }

    /// A compiler's error about a file.
    #[must_use]
    pub fn compiler(path: &str, error: &CompileError) -> Self {
        let code = match error.kind() {
            ErrorKind::NotOnnx | ErrorKind::InvalidGraph | ErrorKind::Quantization | ErrorKind::Golden => Code::Damaged,
            ErrorKind::Differs => Code::Differs,
            ErrorKind::Internal => Code::Internal,
            _ => Code::Unsupported,
        };
        Self::new(code, format!("{path}: {error}"))
    }
}

/// What every command gives.
pub type Outcome<T> = Result<T, Failure>;
