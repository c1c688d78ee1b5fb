//! Which of a device's days have been counted, so that reports may come late, twice and in any order.

use serde::{Deserialize, Serialize};

/// How many bad days of a device count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Counting {
    /// Each. Right where bad days strike any device alike.
    EveryDay,
    /// The first; after it the device is no longer at risk of that guardrail. Right where some devices are bad every
    /// day: in a small canary one such device more would otherwise look like a bad candidate.
    UntilFirst,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// Its day counts: bit `g` of `at_risk` says that it does for guardrail `g`, bit `g` of `bad` that it was bad.
    New {
        /// Guardrails for which the day is an exposure.
        at_risk: u8,
        /// Guardrails by which it was bad, among those.
        bad: u8,
    },
    /// Its day was counted before.
    Duplicate,
    /// Its day is 64 days or more before the newest: it may have been counted.
    TooOld,
}

/// A device's days that were counted: 64 days up to the newest, and the guardrails it was bad by. 17 bytes of state
/// for each device of the comparison, kept by whoever takes the reports. New at the start of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendance {
    newest: u32,
    /// Bit `i`: the day `newest - i` was counted.
    days: u64,
    was_bad: u8,
}

impl Attendance {
    /// Takes the report of a whole day, with a bit for each guardrail ([`crate::Guardrail`]) by which it was bad. Days are
    /// numbered by whoever calls, from any origin.
    pub fn arrive(&mut self, day: u32, bad: u8, counting: Counting) -> Arrival {
        if self.days == 0 {
            self.newest = day;
        }
        let seen = if day >= self.newest {
            self.days = self.days.checked_shl(day - self.newest).unwrap_or(0);
            self.newest = day;
            0
        } else {
            self.newest - day
        };
        let Some(bit) = 1u64.checked_shl(seen) else { return Arrival::TooOld };
        if self.days & bit != 0 {
            return Arrival::Duplicate;
        }
        self.days |= bit;
        let at_risk = match counting {
            Counting::EveryDay => 0b1_1111,
            Counting::UntilFirst => 0b1_1111 & !self.was_bad,
        };
        self.was_bad |= bad & 0b1_1111;
        Arrival::New { at_risk, bad: bad & at_risk }
    }
}
