//! What an application does with a model, and what it hears of it.

use dunlin_engine::{InputError, Session};
use dunlin_kernels::Backend;
use dunlin_update::{Inference, UpdateError, Verdict};

/// What an application does with a model.
pub trait Task<B: Backend> {
    /// Fills the inputs. It is asked again for the same inputs when a second model is to see them too, so it should fill what
    /// it holds and take something new elsewhere.
    ///
    /// # Errors
    /// When the model's inputs are not what the application has; the inference then counts as failed.
    fn fill(&mut self, session: &mut Session<'_, '_, B>) -> Result<(), InputError>;

    /// Reads the outputs; says whether it can use them. A model in the shadow is never read.
    fn read(&mut self, session: &Session<'_, '_, B>) -> bool;
}

/// What came of an inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Digest of the package that ran.
    pub digest: [u8; 32],
    /// How it went; `None` when the package was taken back before: it did not load, or a golden vector failed.
    pub inference: Option<Inference>,
    /// What became of a trial.
    pub verdict: Verdict,
    /// If a model ran in the shadow: whether it gave the same class.
    pub shadow: Option<bool>,
}

/// Why nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The flag [`SERVE`](crate::flags::SERVE) is off: the application does what it does without a model.
    Off,
    /// There is no package whose bytes are what was signed.
    NoPackage,
    /// The confirmed package does not load: this firmware lacks an operator or memory that it needs.
    Load,
    /// The storage failed.
    Update(UpdateError),
}

impl From<UpdateError> for RunError {
    fn from(error: UpdateError) -> Self {
        Self::Update(error)
    }
}

impl core::fmt::Display for RunError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Off => f.write_str("a flag says that no model runs"),
            Self::NoPackage => f.write_str("there is no package that may run"),
            Self::Load => f.write_str("the package needs an operator or memory that this device lacks"),
            Self::Update(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RunError {}
