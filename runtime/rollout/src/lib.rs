//! Dunlin's rollout: staged rollouts decided by evidence: cohorts, flags, gates; pure, no_std.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
