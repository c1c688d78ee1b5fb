//! The device.

mod run;
mod talk;

use dunlin_engine::ops::Operator;
use dunlin_kernels::Backend;
use dunlin_rollout::flag::{Context, Flag, FlagValue, Resolution};
use dunlin_update::trust::Verifier;
use dunlin_update::{CheckIn, StartCause, Updater};

use crate::clock::{Calendar, Time};
use crate::config::{Config, Memory};
use crate::flags::Kept;
use crate::message::Refusal;
use crate::monitor::Monitor;
use crate::slots::Slots;

use run::Engine;
pub use talk::Event;
use talk::Talk;

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

/// A model that runs, whatever replaces it, and what it tells about both.
///
/// `S` is where packages are, `V` checks signatures, `B` computes. Telemetry has room for `C` classes and `F` watched values;
/// `N` windows of at most `R` bytes wait for a receipt (at least 3; neighbours are merged when there are more).
///
/// Times are microseconds of the caller's clock, which counts up from anywhere. It may be set, at the cost of things
/// happening early or late.
pub struct Device<
    'a,
    S,
    V,
    B: Backend,
    const C: usize = 10,
    const F: usize = 2,
    const N: usize = 4,
    const R: usize = 224,
> {
    updater: Updater<'a, S, V>,
    config: Config<'a>,
    engine: Engine<'a, B>,
    talk: Talk<'a>,
    flags: Kept<'a>,
    monitor: Monitor<C, F, N, R>,
    time: Time,
    /// The time that the application told, and what the other side hints at.
    calendar: Calendar,
    hint: Calendar,
    counters: Counters,
}

impl<'a, S: Slots, V: Verifier, B: Backend> Device<'a, S, V, B> {
    /// A device with the usual room for telemetry; see [`with_room`](Self::with_room).
    pub fn new(
        updater: Updater<'a, S, V>,
        ops: &'a [Operator<B>],
        backend: B,
        config: Config<'a>,
        memory: Memory<'a>,
    ) -> Self {
        Self::with_room(updater, ops, backend, config, memory)
    }
}

impl<'a, S, V, B, const C: usize, const F: usize, const N: usize, const R: usize> Device<'a, S, V, B, C, F, N, R>
where
    S: Slots,
    V: Verifier,
    B: Backend,
{
    /// Runs what `updater` names, with these operators, in `memory`. It checks in at the first [`poll`](Self::poll), or
    /// within [`Config::spread`] of it.
    pub fn with_room(
        updater: Updater<'a, S, V>,
        ops: &'a [Operator<B>],
        backend: B,
        config: Config<'a>,
        memory: Memory<'a>,
    ) -> Self {
        let faults = config.faults.max(u32::from(config.cause == StartCause::Fault));
        Self {
            updater,
            engine: Engine::new(ops, backend, memory.arena),
            talk: Talk::new(&config, memory.documents),
            flags: Kept::new(memory.flags),
            monitor: Monitor::new(config.boot, faults, config.window),
            time: Time::default(),
            calendar: Calendar::default(),
            hint: Calendar::default(),
            counters: Counters::default(),
            config,
        }
    }

    /// Shares repacked weights with the other devices of this process that run the same package. For simulators; a device
    /// alone keeps its own.
    #[cfg(feature = "std")]
    pub fn share_weights(&mut self, pool: &crate::WeightPool) {
        self.engine.prepared.pool = pool.clone();
    }

    /// What is running, where the update is, and what ended last.
    #[must_use]
    pub fn check_in(&self) -> CheckIn {
        self.updater.check_in()
    }

    /// Inferences since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Reports that wait for a receipt.
    #[must_use]
    pub fn reports(&self) -> usize {
        self.monitor.waiting()
    }

    /// The updater: to fall back by hand, or for its storage.
    pub fn updater(&mut self) -> &mut Updater<'a, S, V> {
        &mut self.updater
    }

    /// The updater, when the device is not needed any more.
    pub fn into_updater(self) -> Updater<'a, S, V> {
        self.updater
    }

    /// The updater and the memory that was lent, for another start.
    pub fn into_parts(self) -> (Updater<'a, S, V>, Memory<'a>) {
        let memory = Memory {
            arena: self.engine.into_arena(),
            documents: self.talk.into_documents(),
            flags: self.flags.into_bytes(),
        };
        (self.updater, memory)
    }

    /// Tells the time, seconds since 1970, on a device that knows it; documents expire by it. Without it flags age by the
    /// other side's hint and documents by each other's dates.
    pub fn set_time(&mut self, now: u64, seconds: u64) {
        let now = self.time.tell(now);
        self.calendar.tell(now, seconds);
    }

    /// Closes the window of telemetry and has its report sent at the next check-in, such as before a shutdown.
    pub fn close_window(&mut self, now: u64) {
        let now = self.time.tell(now);
        self.monitor.close(now);
    }

    /// The value of a flag here and now, and why; from the document that is kept, without asking anybody.
    #[must_use]
    pub fn flag<'s, T: FlagValue<'s> + Copy>(&'s self, flag: &Flag<T>) -> Resolution<'s, T> {
        self.flags.evaluate(flag, &self.context())
    }

    /// Sequence of the flag document that is obeyed; 0: none, or one that the root in force does not vouch for.
    #[must_use]
    pub fn flags_sequence(&self) -> u64 {
        self.flags.sequence()
    }

    /// The signed flag document that is obeyed, to be stored by whoever wants it to outlive a restart; empty: none.
    #[must_use]
    pub fn flags_document(&self) -> &[u8] {
        self.flags.document()
    }

    /// Obeys a flag document from anywhere: one that was stored before a restart, or that somebody brought. Tells whether
    /// it is newer than the one before.
    ///
    /// # Errors
    /// Why it is not obeyed.
    pub fn take_flags(&mut self, document: &[u8]) -> Result<bool, Refusal> {
        let context = context(&self.config, &self.calendar, &self.hint, &self.time);
        self.flags.take(document, &self.updater.state().root, self.updater.verifier(), &context)
    }

    fn context(&self) -> Context<'_> {
        context(&self.config, &self.calendar, &self.hint, &self.time)
    }
}

/// What flags are asked with.
fn context<'c>(config: &Config<'c>, calendar: &Calendar, hint: &Calendar, time: &Time) -> Context<'c> {
    let now = calendar.at(time.now()).or_else(|| hint.at(time.now()));
    Context { identity: config.identity, attributes: config.attributes, model: config.name, now }
}

#[cfg(test)]
mod tests;
