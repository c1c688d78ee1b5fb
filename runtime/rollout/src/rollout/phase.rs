//! The states of a rollout and what leads from one to another.

use serde::{Deserialize, Serialize};

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody has the candidate.
    Draft,
    /// A stage is under way.
    Running,
    /// A stage is passed; the next one waits for somebody's word.
    Awaiting,
    /// It stays where it is until somebody decides.
    Paused,
    /// Every stage is passed.
    Completed,
    /// The candidate is taken back from everybody.
    RolledBack,
}

/// What happens to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// The first stage begins.
    Start,
    /// Not enough is known yet.
    Hold,
    /// The stage is passed and the next one begins.
    Advance,
    /// The stage is passed and the next one needs approval.
    Ask,
    /// Somebody approves.
    Approve,
    /// The last stage is passed.
    Finish,
    /// A person has to look, or wanted to.
    Pause,
    /// Somebody has seen the failures, and only new ones count.
    Resume,
    /// The candidate is worse, or somebody wants it back.
    Rollback,
    /// Again from the start, as a new attempt.
    Retry,
}

/// Every step there is. `STATES.md` is drawn from it, and no other is ever taken. Rollback is possible wherever the
/// candidate may run.
pub const TRANSITIONS: &[(Phase, Event, Phase)] = &[
    (Phase::Draft, Event::Start, Phase::Running),
    (Phase::Draft, Event::Rollback, Phase::RolledBack),
    (Phase::Running, Event::Hold, Phase::Running),
    (Phase::Running, Event::Advance, Phase::Running),
    (Phase::Running, Event::Ask, Phase::Awaiting),
    (Phase::Running, Event::Finish, Phase::Completed),
    (Phase::Running, Event::Pause, Phase::Paused),
    (Phase::Running, Event::Rollback, Phase::RolledBack),
    (Phase::Awaiting, Event::Hold, Phase::Awaiting),
    (Phase::Awaiting, Event::Approve, Phase::Running),
    (Phase::Awaiting, Event::Finish, Phase::Completed),
    (Phase::Awaiting, Event::Pause, Phase::Paused),
    (Phase::Awaiting, Event::Rollback, Phase::RolledBack),
    (Phase::Paused, Event::Hold, Phase::Paused),
    (Phase::Paused, Event::Resume, Phase::Running),
    (Phase::Paused, Event::Rollback, Phase::RolledBack),
    (Phase::Completed, Event::Hold, Phase::Completed),
    (Phase::Completed, Event::Rollback, Phase::RolledBack),
    (Phase::RolledBack, Event::Hold, Phase::RolledBack),
    (Phase::RolledBack, Event::Retry, Phase::Draft),
];

impl Phase {
    /// Whether there are arms to compare: it has begun, and nobody and nothing has ended it.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Awaiting | Self::Paused)
    }

    /// All.
    pub const ALL: [Self; 6] =
        [Self::Draft, Self::Running, Self::Awaiting, Self::Paused, Self::Completed, Self::RolledBack];

    /// Where `event` leads, if it may happen here.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| (*from, *by) == (self, event)).map(|(_, _, to)| *to)
    }
}

/// The table as a Mermaid diagram.
#[cfg(feature = "std")]
#[must_use]
pub fn diagram() -> std::string::String {
    use std::fmt::Write as _;
    let mut text = std::string::String::from("stateDiagram-v2\n    [*] --> Draft\n");
    for (from, by, to) in TRANSITIONS {
        let _ = writeln!(text, "    {from:?} --> {to:?}: {by:?}");
    }
    text
}
