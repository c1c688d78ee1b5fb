#![doc = "placeholder"]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod cohort;
pub mod evidence;
pub mod flag;
pub mod gate;
mod name;
pub mod rollout;

pub use cohort::{Arm, Bucket, Cohort, CohortError, Salt, Share};
pub use evidence::{Arrival, Attendance, Both, Count, Counting, Evidence, EvidenceError, Guardrail, Hop, Side};
pub use flag::{Context, Flag, Flags, Resolution, Value};
pub use gate::{Design, Gate, Margin, Numbers};
pub use name::Name;
pub use rollout::{Assignment, Decision, Phase, Plan, Reason, Rollout, Stage, Strategy, Subject, Verdict};
