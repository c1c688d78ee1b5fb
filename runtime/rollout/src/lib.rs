//! Rollouts that evidence decides: who gets a candidate, whether it is kept, and switches that devices read offline.
//!
//! Everything here is a function of its arguments: no clock, no input or output, no allocation. A server holds a
//! [`Rollout`] and the [`Evidence`] its reports add up to, and asks for a [`Decision`]; a device asks a rollout's
//! [`rollout::Exposure`] or a [`Cohort`] for its part, and a [`Flag`] for its value.
//!
//! - [`cohort`]: one integer hash, compared on its whole range; the same on every device and in every binding.
//! - [`flag`]: documents of flags, read in place; values, reasons and errors by OpenFeature's names.
//! - [`evidence`]: device-days and devices' means as sums that merge in any order.
//! - [`gate`]: an e-process for each guardrail, a confidence sequence for each margin, a check of the arms' sizes; for two arms
//!   of devices, and for devices that run both in turn. `GATES.md` derives and measures them.
//! - [`rollout`]: strategies, stages and the four verdicts. `STATES.md` draws the states.
//!
//! The unit is the device-day, or the half of one where devices take turns: was it bad, by this guardrail, or not. Canary and control run at the same time, so that what
//! a day does to both cancels. One may look after every report: the probability of a false rollback is for all looks
//! together. No data never passes.
//!
//! ```
//! use dunlin_rollout::{Both, Count, Evidence, Gate, Guardrail, Hop, Plan, Rollout, Salt, Strategy, Subject, Verdict};
//!
//! let plan = Plan::of(Strategy::Canary)?;
//! let mut rollout = Rollout::new(plan, Gate::DEFAULT, Salt::new(b"keywords-7"))?;
//! rollout.start(0)?;
//!
//! // Five laboratory devices, a day without a failure.
//! let mut evidence = Evidence::new(rollout.epoch(), 0);
//! for guardrail in Guardrail::ALL {
//!     evidence.count(0, guardrail, Count::new(0, 5), Count::new(0, 0))?;
//! }
//! evidence.days(0, Both::new(5, 0), Both::new(5, 0));
//! evidence.hop(0, Hop::Reported, Both::new(5, 0));
//! assert_eq!(rollout.step(&[evidence], 24 * 3600).verdict, Verdict::Advance);
//!
//! // One percent of the fleet, three percent beside it.
//! let part = rollout.assign(&Subject::new(b"device-1432"));
//! assert_eq!(part.serves, None);
//!
//! // A day's reports: 9 of 80 device-days crashed, of the control's 4 of 240.
//! evidence.count(1, Guardrail::Crash, Count::new(9, 80), Count::new(4, 240))?;
//! assert_eq!(rollout.step(&[evidence], 48 * 3600).verdict, Verdict::Hold);
//! evidence.count(1, Guardrail::Crash, Count::new(11, 80), Count::new(2, 240))?;
//! let decision = rollout.step(&[evidence], 72 * 3600);
//! assert_eq!(decision.verdict, Verdict::Rollback);
//! println!("{decision}");
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! Before a rollout starts, [`Design`] says what it will be able to see:
//!
//! ```
//! use dunlin_rollout::Design;
//!
//! // 100 devices beside 500, 1 % of the device-days bad anyway: about a threefold rate is found in two weeks.
//! let ratio = Design::new(100, 500, 0.01).minimum_ratio(0.8).unwrap();
//! assert!((3.0..4.0).contains(&ratio));
//! ```
//!
//! On a device:
//!
//! ```
//! use dunlin_rollout::flag::{Context, Flag, Flags, Reason, Value};
//!
//! const MODEL: Flag<&str> = Flag::new("model", "baseline");
//!
//! # let payload = include_bytes!("../tests/golden/flags.bin");
//! let flags = Flags::open(payload)?;
//! let attributes = [("board", Value::Text("m7")), ("year", Value::Int(2024))];
//! let now = Some(1_800_000_060);
//! let context = Context { identity: b"device-1432", attributes: &attributes, model: "digits", now };
//! let model = MODEL.evaluate(Some(&flags), &context);
//! assert_eq!((model.value, model.reason.name()), ("digits-3", "TARGETING_MATCH"));
//! // Without a document: the compiled-in default, and it says so.
//! assert_eq!(MODEL.evaluate(None, &context).reason, Reason::Error);
//! # Ok::<(), dunlin_rollout::flag::FlagError>(())
//! ```
//!
//! Features: `alloc` writes documents of flags; `std` draws the states. Neither is needed to decide.
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

pub use cohort::{Arm, Audience, Bucket, Cohort, CohortError, Manner, Salt, Share};
pub use evidence::{Arrival, Attendance, Both, Count, Counting, Evidence, EvidenceError, Guardrail, Hop, Side};
pub use flag::{Context, Flag, Flags, Resolution, Value};
pub use gate::{Design, Gate, Margin, Numbers};
pub use name::Name;
pub use rollout::{Assignment, Decision, Phase, Plan, Reason, Rollout, Stage, Strategy, Subject, Verdict};
