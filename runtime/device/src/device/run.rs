//! Inferences: of the package to run now, of one on trial, of one in the shadow.

use dunlin_engine::ops::Operator;
use dunlin_engine::{Arena, Session, TensorMut, TensorRef};
use dunlin_kernels::Backend;
use dunlin_package::{DType, Package};
use dunlin_rollout::Manner;
use dunlin_telemetry::reference::Confidence;
use dunlin_telemetry::{Arm, Fault, Observation, Reference, Sample, Values};
use dunlin_update::trust::Verifier;
use dunlin_update::{Inference, Installed, Phase, Reversal, StartCause, Verdict};

use super::Device;
use crate::golden::holds;
use crate::monitor::Monitor;
use crate::prepared::Prepared;
use crate::slots::Slots;
use crate::task::{Inferred, RunError, Task};

/// Inputs and outputs that telemetry looks at.
const PORTS: usize = 4;
const HOUR: u64 = 3600;

/// Operators, backend and arena, with what they gave lately.
pub(super) struct Engine<'a, B: Backend> {
    ops: &'a [Operator<B>],
    backend: B,
    arena: &'a mut [u8],
    /// What gave its golden outputs since the start.
    pub(super) golden: Option<[u8; 32]>,
    /// A package beside the confirmed one whose bytes were found whole, or were not, since one was staged last.
    pub(super) beside: Option<([u8; 32], bool)>,
    same: Same,
    pub(super) prepared: Prepared,
}

/// Outputs of a trial that are bit for bit those before, though the inputs are not.
#[derive(Clone, Copy, Debug, Default)]
struct Same {
    digest: [u8; 32],
    input: u32,
    output: u32,
    count: u32,
}

impl Same {
    /// Takes an inference; gives how many in a row had the same outputs.
    fn take(&mut self, digest: [u8; 32], input: u32, output: u32) -> u32 {
        if self.digest != digest || self.output != output {
            *self = Self { digest, input, output, count: 1 };
        } else if self.input != input {
            (self.input, self.count) = (input, self.count.saturating_add(1));
        }
        self.count
    }
}

/// What a package did.
enum Observed {
    /// A golden vector failed.
    Golden,
    Inference {
        inference: Inference,
        sample: Sample,
        answer: Option<Answer>,
    },
}

/// What a model said, as far as another's answer is compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Class(usize),
    /// A hash of the outputs.
    Bits(u32),
}

/// FNV-1a over words.
fn hash(start: u32, bytes: &[u8]) -> u32 {
    let step = |hash: u32, word: u32| (hash ^ word).wrapping_mul(0x0100_0193).rotate_left(5);
    let words = bytes.chunks_exact(4);
    let rest = words.remainder().iter().fold(start, |h, b| step(h, u32::from(*b)));
    words.filter_map(|w| w.first_chunk()).fold(rest, |h, w| step(h, u32::from_le_bytes(*w)))
}
const HASH: u32 = 0x811C_9DC5;

impl<'a, B: Backend> Engine<'a, B> {
    pub(super) fn new(ops: &'a [Operator<B>], backend: B, arena: &'a mut [u8]) -> Self {
        Self { ops, backend, arena, golden: None, beside: None, same: Same::default(), prepared: Prepared::default() }
    }

    pub(super) fn into_arena(self) -> &'a mut [u8] {
        self.arena
    }

    /// Loads a package and runs it; `None` when it does not load.
    ///
    /// A package is loaded for each inference, so that nothing borrows the storage between two. [`Prepared`] says what that
    /// takes.
    fn observe<S: Slots, T: Task<B>, const C: usize, const F: usize, const N: usize, const R: usize>(
        &mut self,
        slots: &mut S,
        package: &Installed,
        check: Check,
        monitor: &mut Monitor<C, F, N, R>,
        clock: &mut impl FnMut() -> u64,
        task: &mut T,
    ) -> Option<Observed> {
        let digest = package.digest;
        // The updater has hashed these bytes since the device started, and nothing may write them meanwhile.
        let package = Package::open_unverified(slots.package(package)?).ok()?;
        let (model, weights) = self.prepared.load(&package, self.ops, self.backend)?;
        let mut session = weights.session(&model, Arena::new(self.arena), self.backend)?;
        if check.golden {
            let manifest = package.manifest();
            let tolerance = if manifest.exact { 0.0 } else { manifest.tolerance };
            // Without vectors nothing is known, and that is no pass.
            if !package.golden().is_some_and(|golden| holds(golden, &mut session, tolerance)) {
                return Some(Observed::Golden);
            }
        }
        let drift = package.drift().and_then(|bytes| Reference::read(bytes).ok());
        let reference = drift.unwrap_or(Reference::NONE);
        monitor.shape(&reference, weights.arena_len(&model, self.backend));
        if task.fill(&mut session).is_err() {
            let inference = Inference { micros: 0, failed: true, not_a_number: false };
            let sample = Sample::of(&reference, &Observation { fault: Some(Fault::Input), ..Observation::default() });
            return Some(Observed::Inference { inference, sample, answer: None });
        }
        let plan = model.plan();
        // Inputs share memory with what follows them: they are looked at now, one at a time.
        let mut inputs: [Option<Sample>; PORTS] = [None; PORTS];
        let mut input_hash = HASH;
        for (i, place) in inputs.iter_mut().enumerate().take(plan.input_count()) {
            *place = Some(Sample::of(
                &reference,
                &Observation { inputs: input_values(session.input(i)).at(i).as_slice(), ..Observation::default() },
            ));
        }
        if check.constant {
            for i in 0..plan.input_count() {
                input_hash = hash(input_hash, session.input(i).into_bytes());
            }
        }
        let start = clock();
        session.run();
        let micros = u32::try_from(clock().saturating_sub(start)).unwrap_or(u32::MAX);
        let mut failed = !task.read(&session);
        let outputs = || (0..plan.output_count()).map(|i| session.output(i));
        let nan = |o: TensorRef<'_>| o.as_slice::<f32>().is_some_and(|v| v.iter().any(|x| x.is_nan()));
        let not_a_number = outputs().any(nan);
        if check.constant {
            let output_hash = outputs().fold(HASH, |h, o| hash(h, o.bytes()));
            failed |= self.same.take(digest, input_hash, output_hash) > check.most;
        }
        let mut values = [Values::F32(&[]); PORTS];
        values.iter_mut().zip(outputs()).for_each(|(to, output)| *to = output_values(output));
        let seen = Observation {
            micros,
            fault: (failed || not_a_number).then_some(Fault::Output),
            outputs: values.get(..plan.output_count()).unwrap_or(&values),
            ..Observation::default()
        };
        let classes = values.first().map_or(0, Values::len);
        let seen = match (drift, reference.class_output()) {
            (Some(_), Some(output)) => seen.classified_by(output, reference.confidence_by()),
            // Without a reference a few numbers are taken for the probabilities of classes.
            (None, _) if (2..=C).contains(&classes) => seen.classified_by(0, Confidence::Greatest),
            _ => seen,
        };
        let sample = inputs.iter().flatten().fold(Sample::of(&reference, &seen), |all, one| all.joined(one));
        let inference = Inference { micros, failed, not_a_number };
        Some(Observed::Inference { inference, sample, answer: Some(answer(&session, plan.output_count())) })
    }

    /// Runs a package that serves nobody; `None` when it does not load or take the inputs.
    fn shadow<S: Slots, T: Task<B>>(&mut self, slots: &mut S, package: &Installed, task: &mut T) -> Option<Answer> {
        let package = Package::open_unverified(slots.package(package)?).ok()?;
        let (model, weights) = self.prepared.load(&package, self.ops, self.backend)?;
        let mut session = weights.session(&model, Arena::new(self.arena), self.backend)?;
        task.fill(&mut session).ok()?;
        session.run();
        Some(answer(&session, model.plan().output_count()))
    }
}

/// The class that the first output names, or what the outputs are when they name none.
fn answer<B: Backend>(session: &Session<'_, '_, B>, outputs: usize) -> Answer {
    match session.output(0).argmax() {
        Some(class) => Answer::Class(class),
        None => Answer::Bits((0..outputs).fold(HASH, |h, i| hash(h, session.output(i).bytes()))),
    }
}

/// What is watched while a package runs.
#[derive(Clone, Copy)]
struct Check {
    golden: bool,
    constant: bool,
    /// Inferences in a row that may have the same outputs.
    most: u32,
}

/// The values of one port, behind empty ones.
struct Alone<'v> {
    values: [Values<'v>; PORTS],
}

impl<'v> Alone<'v> {
    fn as_slice(&self) -> &[Values<'v>] {
        &self.values
    }
}

/// The values of an input.
struct Input<'v>(Values<'v>);

impl<'v> Input<'v> {
    fn at(self, port: usize) -> Alone<'v> {
        let mut values = [Values::F32(&[]); PORTS];
        values.iter_mut().skip(port).take(1).for_each(|place| *place = self.0);
        Alone { values }
    }
}

fn input_values(input: TensorMut<'_>) -> Input<'_> {
    let Some(tensor) = input.tensor() else { return Input(Values::F32(&[])) };
    Input(match tensor.dtype {
        DType::F32 => Values::F32(input.as_slice_mut::<f32>().map_or(&[], |v| v)),
        DType::I8 => Values::I8 {
            q: input.as_slice_mut::<i8>().map_or(&[], |v| v),
            scale: tensor.scale,
            zero_point: tensor.zero_point,
        },
        // Telemetry has no bins for other types.
        _ => Values::F32(&[]),
    })
}

fn output_values(output: TensorRef<'_>) -> Values<'_> {
    let Some(tensor) = output.tensor() else { return Values::F32(&[]) };
    match tensor.dtype {
        DType::F32 => Values::F32(output.as_slice::<f32>().unwrap_or(&[])),
        DType::I8 => {
            Values::I8 { q: output.as_slice::<i8>().unwrap_or(&[]), scale: tensor.scale, zero_point: tensor.zero_point }
        }
        _ => Values::F32(&[]),
    }
}

impl<'a, S, V, B, const C: usize, const F: usize, const N: usize, const R: usize> Device<'a, S, V, B, C, F, N, R>
where
    S: Slots,
    V: Verifier,
    B: Backend,
{
    /// Makes an inference with the package to run now; `clock` is read before and after it.
    ///
    /// A package on trial has to give its golden outputs first; when it does not, does not load, or an inference is one too
    /// many that it may not make (failed, late, no number, constant), it is taken back and the next call runs the package
    /// before it. No server is asked and nothing restarts.
    ///
    /// # Errors
    /// When a flag forbids it, there is nothing that can run, or the storage fails.
    pub fn infer<T: Task<B>>(&mut self, mut clock: impl FnMut() -> u64, task: &mut T) -> Result<Inferred, RunError> {
        let now = self.time.tell(clock());
        self.monitor.poll(now);
        if !self.flags.serves() {
            return Err(RunError::Off);
        }
        let running = self.updater.running().ok_or(RunError::NoPackage)?;
        match self.beside_at(now) {
            _ if self.updater.phase() == Phase::Trial => self.run(now, running, Arm::Candidate, &mut clock, task),
            Some((_, Manner::Shadow { .. })) => self.run(now, running, Arm::Shadow, &mut clock, task),
            Some((_, Manner::Hourly)) => match self.previous(now)? {
                Some(previous) => match self.run(now, previous, Arm::Control, &mut clock, task) {
                    Err(RunError::Load) => {
                        self.engine.beside = Some((previous.digest, false));
                        self.run(now, running, Arm::Candidate, &mut clock, task)
                    }
                    other => other,
                },
                None => self.run(now, running, Arm::Candidate, &mut clock, task),
            },
            _ => self.run(now, running, Arm::Rest, &mut clock, task),
        }
    }

    /// What does not simply serve, until the document that says so has expired.
    fn beside_at(&self, now: u64) -> Option<(Installed, Manner)> {
        let seconds = self.calendar.at(now).or_else(|| self.hint.at(now));
        self.updater.beside().filter(|_| seconds.is_none_or(|s| s < self.updater.state().until))
    }

    /// The package before the confirmed one, if it may run and this hour is its own.
    fn previous(&mut self, now: u64) -> Result<Option<Installed>, RunError> {
        let state = self.updater.state();
        let may = |p: &Installed| p.counter >= state.floor && !state.is_buried(&p.digest, p.number);
        let Some(previous) = state.previous.filter(may) else { return Ok(None) };
        let seconds = self.calendar.at(now).or_else(|| self.hint.at(now)).unwrap_or(now / 1_000_000);
        let hour = u32::try_from(seconds / HOUR).unwrap_or(u32::MAX);
        let bucket = state.salt.bucket(self.config.identity);
        Ok(if bucket.hourly(hour, 2) == 0 && self.is_whole(&previous)? { Some(previous) } else { None })
    }

    /// Whether a package beside the confirmed one is what was signed; read once.
    fn is_whole(&mut self, package: &Installed) -> Result<bool, RunError> {
        match self.engine.beside {
            Some((digest, whole)) if digest == package.digest => Ok(whole),
            _ => {
                let whole = self.updater.is_whole(package)?;
                self.engine.beside = Some((package.digest, whole));
                Ok(whole)
            }
        }
    }

    fn run<T: Task<B>>(
        &mut self,
        now: u64,
        package: Installed,
        arm: Arm,
        clock: &mut impl FnMut() -> u64,
        task: &mut T,
    ) -> Result<Inferred, RunError> {
        let digest = package.digest;
        let trial = self.updater.phase() == Phase::Trial;
        let golden = trial && self.engine.golden != Some(digest);
        let check = Check { golden, constant: trial && self.config.constant > 0, most: self.config.constant };
        self.monitor.turn(now, digest, arm);
        let Self { engine, updater, monitor, .. } = self;
        let (inference, mut sample, answer) =
            match engine.observe(updater.storage(), &package, check, monitor, clock, task) {
                None if trial => {
                    self.updater.revert(Reversal::Load)?;
                    let verdict = Verdict::Reverted(Reversal::Load);
                    return Ok(Inferred { digest, inference: None, verdict, shadow: None });
                }
                None => return Err(RunError::Load),
                Some(Observed::Golden) => {
                    let verdict = self.updater.golden(false)?;
                    return Ok(Inferred { digest, inference: None, verdict, shadow: None });
                }
                Some(Observed::Inference { inference, sample, answer }) => (inference, sample, answer),
            };
        let mut shadow = None;
        if let Some(answer) = answer.filter(|_| arm == Arm::Shadow) {
            shadow = self.beside(answer, task)?;
        }
        if let Some(agrees) = shadow {
            sample = sample.with_shadow(agrees);
        }
        self.monitor.add(now, &sample);
        let counters = &mut self.counters;
        counters.inferences = counters.inferences.saturating_add(1);
        counters.failed = counters.failed.saturating_add(u32::from(inference.failed));
        counters.slowest = counters.slowest.max(inference.micros);
        let mut verdict = Verdict::None;
        if golden {
            verdict = self.updater.golden(true)?;
            self.engine.golden = Some(digest);
        }
        if verdict != Verdict::Confirmed {
            verdict = self.updater.inference(&inference)?;
        }
        Ok(Inferred { digest, inference: Some(inference), verdict, shadow })
    }

    /// Has the staged package see the same inputs, if it is its turn, and says whether it agrees. After a start that a fault
    /// caused it does not run: it may have been the fault.
    fn beside<T: Task<B>>(&mut self, answer: Answer, task: &mut T) -> Result<Option<bool>, RunError> {
        let Some((staged, Manner::Shadow { every })) = self.updater.beside() else { return Ok(None) };
        let bucket = self.updater.state().salt.bucket(self.config.identity);
        if self.config.cause == StartCause::Fault || !bucket.takes(self.counters.inferences, every) {
            return Ok(None);
        }
        // Bytes that have rotted say nothing about the model. When it is to serve they are found, and fetched anew.
        if !self.is_whole(&staged)? {
            return Ok(None);
        }
        let other = self.engine.shadow(self.updater.storage(), &staged, task);
        Ok(Some(other.is_some_and(|other| other == answer)))
    }
}
