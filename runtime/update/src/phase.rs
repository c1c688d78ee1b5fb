//! The states of an update and what leads from one to another.

/// Where an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing is under way.
    Idle,
    /// An offer was accepted and nothing fetched yet.
    Offered,
    /// The package is on its way into a slot.
    Fetching,
    /// What is in the slot has the signed hash.
    Verified,
    /// It may start its trial at any time.
    Staged,
    /// It runs, and is watched.
    Trial,
    /// It runs for good. The next poll is [`Phase::Idle`] again.
    Confirmed,
    /// It was refused; what ran before still runs.
    Rejected,
    /// It ran and was taken back; what ran before runs again.
    Reverted,
}

/// What happens to an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A signed offer that fits the device.
    Accept,
    /// The first bytes arrived, or a power cut left some.
    Receive,
    /// The last byte is in the slot and its hash is right.
    Verify,
    /// The state record names it as the next to run.
    Stage,
    /// It is started.
    Start,
    /// It starts again before it was confirmed.
    Restart,
    /// Golden vectors and probation passed.
    Confirm,
    /// Bytes, hash or format are not what was signed; or another offer takes its place.
    Reject,
    /// Golden vectors, probation or starts failed; or the fleet goes back to the package before.
    Revert,
    /// The outcome was recorded.
    Settle,
}

/// Every step there is. `STATES.md` is drawn from it, and no other is ever taken.
pub const TRANSITIONS: &[(Phase, Event, Phase)] = &[
    (Phase::Idle, Event::Accept, Phase::Offered),
    (Phase::Offered, Event::Receive, Phase::Fetching),
    (Phase::Offered, Event::Reject, Phase::Rejected),
    (Phase::Fetching, Event::Receive, Phase::Fetching),
    (Phase::Fetching, Event::Verify, Phase::Verified),
    (Phase::Fetching, Event::Reject, Phase::Rejected),
    (Phase::Verified, Event::Stage, Phase::Staged),
    (Phase::Staged, Event::Start, Phase::Trial),
    (Phase::Staged, Event::Reject, Phase::Rejected),
    (Phase::Trial, Event::Restart, Phase::Trial),
    (Phase::Trial, Event::Confirm, Phase::Confirmed),
    (Phase::Trial, Event::Reject, Phase::Rejected),
    (Phase::Trial, Event::Revert, Phase::Reverted),
    (Phase::Confirmed, Event::Settle, Phase::Idle),
    (Phase::Rejected, Event::Settle, Phase::Idle),
    (Phase::Reverted, Event::Settle, Phase::Idle),
    (Phase::Idle, Event::Revert, Phase::Reverted),
];

impl Phase {
    /// Where `event` leads, if it may happen here.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| (*from, *by) == (self, event)).map(|(_, _, to)| *to)
    }
}

/// Why a package was refused before it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Rejection {
    /// The slot does not have room for it.
    TooLarge,
    /// It was compiled for another target.
    Target,
    /// It is for another model.
    Name,
    /// It needs operators of a version that the engine does not have.
    Operators,
    /// It needs a newer engine.
    Engine,
    /// It needs more memory than there is.
    Memory,
    /// It failed here before.
    Tombstone,
    /// Its security counter is below what this device has run.
    Counter,
    /// It runs here already.
    Running,
    /// The rollout does not reach this device.
    Cohort,
    /// The difference is to a package that this device does not have.
    Base,
    /// The difference is damaged.
    Delta,
    /// What is in the slot is not what was signed.
    Hash,
    /// What was signed is no package that this device can open.
    Package,
    /// Another offer took its place, or the fleet ended its trial.
    Replaced,
    /// The slot could not be written.
    Storage,
    /// It is to run beside the model, and this device only runs one in the place of another.
    Beside,
}

impl Rejection {
    /// Every reason, by its number in the state record.
    pub const ALL: [Self; 17] = [
        Self::TooLarge,
        Self::Target,
        Self::Name,
        Self::Operators,
        Self::Engine,
        Self::Memory,
        Self::Tombstone,
        Self::Counter,
        Self::Running,
        Self::Cohort,
        Self::Base,
        Self::Delta,
        Self::Hash,
        Self::Package,
        Self::Replaced,
        Self::Storage,
        Self::Beside,
    ];
}

/// Why a package was taken back after it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Reversal {
    /// A golden vector gave other bits.
    Golden,
    /// Too many inferences failed.
    Errors,
    /// Outputs that are no numbers.
    NotANumber,
    /// Too many inferences were late.
    Deadline,
    /// It was started too often without being confirmed: it crashes or hangs.
    Restarts,
    /// It cannot be loaded.
    Load,
    /// Its bytes in the slot have changed.
    Damaged,
    /// The fleet took it back.
    Ordered,
}

impl Reversal {
    /// Every reason, by its number in the state record.
    pub const ALL: [Self; 8] = [
        Self::Golden,
        Self::Errors,
        Self::NotANumber,
        Self::Deadline,
        Self::Restarts,
        Self::Load,
        Self::Damaged,
        Self::Ordered,
    ];
}

/// How the last update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// It runs for good.
    Confirmed,
    /// It never ran, or its trial was ended ([`Rejection::Replaced`]) before there was a verdict on it.
    Rejected(Rejection),
    /// It ran and was taken back.
    Reverted(Reversal),
}

/// The table as a Mermaid diagram.
#[cfg(feature = "std")]
#[must_use]
pub fn diagram() -> std::string::String {
    use std::fmt::Write as _;
    let mut text = std::string::String::from("stateDiagram-v2\n    [*] --> Idle\n");
    for (from, by, to) in TRANSITIONS {
        let _ = writeln!(text, "    {from:?} --> {to:?}: {by:?}");
    }
    text
}
