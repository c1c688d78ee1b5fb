//! A model that runs, and the updates that replace it.

use dunlin::kernels::Backend;
use dunlin::ops::Operator;
use dunlin::package::Golden;
use dunlin::{Arena, DType, InputError, Model, Package, Session};
use dunlin_update::trust::Verifier;
use dunlin_update::{Inference, Installed, Phase, Reversal, UpdateError, Updater, Verdict};

use crate::clock::Clock;
use crate::slots::Slots;

/// What an application does with a model.
pub trait Task<B: Backend> {
    /// Fills the inputs.
    ///
    /// # Errors
    /// When the model's inputs are not what the application has; the inference then counts as failed.
    fn fill(&mut self, session: &mut Session<'_, '_, B>) -> Result<(), InputError>;

    /// Reads the outputs; says whether it can use them.
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
}

/// Why nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
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
            Self::NoPackage => f.write_str("there is no package that may run"),
            Self::Load => f.write_str("the package needs an operator or memory that this device lacks"),
            Self::Update(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RunError {}

/// Inferences since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All of them.
    pub inferences: u32,
    /// Those that the application could not use.
    pub failed: u32,
    /// Microseconds of the slowest.
    pub slowest: u32,
}

/// Updater, arena and operators together: each inference runs whatever package is the one to run now, so that an update
/// or its end needs no restart.
///
/// A package is loaded for each inference. That takes a proof of the plan, little beside the inference itself, and in
/// return nothing borrows the flash between inferences.
pub struct Runner<'a, S, V, B: Backend> {
    updater: Updater<'a, S, V>,
    memory: &'a mut [u8],
    ops: &'a [Operator<B>],
    backend: B,
    /// What gave its golden outputs since the start.
    golden: Option<[u8; 32]>,
    counters: Counters,
}

impl<'a, S: Slots, V: Verifier, B: Backend> Runner<'a, S, V, B> {
    /// Runs what `updater` names, in `memory`, with these operators.
    pub fn new(updater: Updater<'a, S, V>, memory: &'a mut [u8], ops: &'a [Operator<B>], backend: B) -> Self {
        Self { updater, memory, ops, backend, golden: None, counters: Counters::default() }
    }

    /// The updater.
    pub fn updater(&mut self) -> &mut Updater<'a, S, V> {
        &mut self.updater
    }

    /// What is running, where the update is, and what ended last.
    #[must_use]
    pub fn check_in(&self) -> dunlin_update::CheckIn {
        self.updater.check_in()
    }

    /// Inferences since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Makes an inference with the package to run now. One on trial has to give its golden outputs first; when it does
    /// not, or does not load, it is taken back and the next call runs the package before it.
    ///
    /// # Errors
    /// When there is nothing that can run, or the storage fails.
    pub fn infer<C: Clock, T: Task<B>>(&mut self, clock: &mut C, task: &mut T) -> Result<Inferred, RunError> {
        let package = self.updater.running().ok_or(RunError::NoPackage)?;
        let digest = package.digest;
        let trial = self.updater.phase() == Phase::Trial;
        let untried = trial && self.golden != Some(digest);
        match self.observe(&package, untried, clock, task) {
            None if trial => {
                self.updater.revert(Reversal::Load)?;
                Ok(Inferred { digest, inference: None, verdict: Verdict::Reverted(Reversal::Load) })
            }
            None => Err(RunError::Load),
            Some(Observed::Golden) => {
                let verdict = self.updater.golden(false)?;
                Ok(Inferred { digest, inference: None, verdict })
            }
            Some(Observed::Inference(inference)) => {
                let mut verdict = Verdict::None;
                if untried {
                    verdict = self.updater.golden(true)?;
                    self.golden = Some(digest);
                }
                if verdict != Verdict::Confirmed {
                    verdict = self.updater.inference(&inference)?;
                }
                let counters = &mut self.counters;
                counters.inferences = counters.inferences.saturating_add(1);
                counters.failed = counters.failed.saturating_add(u32::from(inference.failed));
                counters.slowest = counters.slowest.max(inference.micros);
                Ok(Inferred { digest, inference: Some(inference), verdict })
            }
        }
    }

    /// Loads a package and runs it; `None` when it does not load.
    fn observe<C: Clock, T: Task<B>>(
        &mut self,
        package: &Installed,
        untried: bool,
        clock: &mut C,
        task: &mut T,
    ) -> Option<Observed> {
        // The updater has hashed these bytes since the device started, and nothing may write them meanwhile.
        let package = Package::open_unverified(self.updater.storage().package(package)?).ok()?;
        let model = Model::load(&package, self.ops).ok()?;
        let mut session = Session::new(&model, Arena::new(self.memory), self.backend).ok()?;
        if untried {
            let manifest = package.manifest();
            let tolerance = if manifest.exact { 0.0 } else { manifest.tolerance };
            // Without vectors nothing is known, and that is no pass.
            if !package.golden().is_some_and(|golden| holds(golden, &mut session, tolerance)) {
                return Some(Observed::Golden);
            }
        }
        if task.fill(&mut session).is_err() {
            return Some(Observed::Inference(Inference { micros: 0, failed: true, not_a_number: false }));
        }
        let start = clock.now();
        session.run();
        let micros = clock.now().wrapping_sub(start);
        let failed = !task.read(&session);
        let mut outputs = (0..model.plan().output_count()).filter_map(|i| session.output(i).as_slice::<f32>());
        let not_a_number = outputs.any(|values| values.iter().any(|v| v.is_nan()));
        Some(Observed::Inference(Inference { micros, failed, not_a_number }))
    }
}

/// What a package did.
enum Observed {
    /// A golden vector failed.
    Golden,
    Inference(Inference),
}

/// Whether there are golden vectors and each gives its outputs: bit for bit, or in floats within `tolerance` if that is
/// not 0.
pub fn holds<B: Backend>(golden: Golden<'_>, session: &mut Session<'_, '_, B>, tolerance: f32) -> bool {
    let holds = |case: dunlin::package::Case<'_>| {
        for tensor in case.inputs() {
            let input = session.input(usize::from(tensor.port)).into_bytes();
            if input.len() != tensor.data.len() {
                return false;
            }
            input.iter_mut().zip(tensor.data).for_each(|(to, from)| *to = *from);
        }
        session.run();
        case.outputs().all(|tensor| {
            let output = session.output(usize::from(tensor.port)).bytes();
            output == tensor.data || (tensor.dtype == DType::F32 && close(output, tensor.data, tolerance))
        })
    };
    !golden.is_empty() && golden.cases().all(holds)
}

/// Whether floats of equal number differ by `tolerance` at most.
fn close(a: &[u8], b: &[u8], tolerance: f32) -> bool {
    fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
        bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| f32::from_le_bytes(*b))
    }
    tolerance > 0.0 && a.len() == b.len() && floats(a).zip(floats(b)).all(|(a, b)| (a - b).abs() <= tolerance)
}
