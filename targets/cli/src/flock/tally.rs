//! What came of a flock's requests, in constant memory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

/// Buckets for each doubling of a duration.
const FINE: usize = 8;
/// Kinds of errors that are told apart.
const KINDS: usize = 32;

/// Counts.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Devices that have a place in the fleet.
    pub enrolled: u64,
    /// Polls that were answered.
    pub polls: u64,
    /// Requests to come again later (429, 503).
    pub waits: u64,
    /// Copies of requests that were sent on purpose.
    pub duplicates: u64,
    /// Of those, what the server refused as seen before.
    pub duplicates_refused: u64,
    /// Requests whose clock the server did not believe, so that a nonce of its own was taken.
    pub clocks: u64,
    /// Check-ins that did not happen because the device was offline.
    pub offline: u64,
    /// Reports that the server has.
    pub reports: u64,
    /// Reports that no room was left for before the server took them.
    pub reports_lost: u64,
    /// Inferences: simulated ones of stand-ins, computed ones of real devices.
    pub inferences: u64,
    /// Inferences that failed.
    pub failed: u64,
    /// Inputs on which stand-ins ran a second package in the shadow.
    pub shadow_runs: u64,
    /// Updates that were fetched.
    pub updates: u64,
    /// Of those, differences.
    pub differences: u64,
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Candidates that run for good.
    pub confirmed: u64,
    /// Candidates that were taken back, or never ran.
    pub reverted: u64,
    /// Offers that a device did not believe.
    pub refused: u64,
    /// Everything else, by what it was.
    pub errors: BTreeMap<String, u64>,
    /// Durations of polls.
    took: [u64; 64 * FINE],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            enrolled: 0,
            polls: 0,
            waits: 0,
            duplicates: 0,
            duplicates_refused: 0,
            clocks: 0,
            offline: 0,
            reports: 0,
            reports_lost: 0,
            inferences: 0,
            failed: 0,
            shadow_runs: 0,
            updates: 0,
            differences: 0,
            fetched: 0,
            confirmed: 0,
            reverted: 0,
            refused: 0,
            errors: BTreeMap::new(),
            took: [0; 64 * FINE],
        }
    }
}

/// Eight buckets for each doubling.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let octave = micros.ilog2() as usize;
    let within = ((u128::from(micros) * FINE as u128) >> octave) as usize - FINE;
    octave * FINE + within
}

impl Tally {
    /// Counts a poll.
    pub fn poll(&mut self, took: Duration) {
        self.polls += 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.took.get_mut(bucket(micros)) {
            *count += 1;
        }
    }

    /// Counts something that should not be.
    pub fn error(&mut self, what: impl Into<String>) {
        let what = what.into();
        let known = self.errors.contains_key(&what) || self.errors.len() < KINDS;
        *self.errors.entry(if known { what } else { "others".into() }).or_default() += 1;
    }

    /// Milliseconds that a part of the polls took at most, to an eighth.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let total: u64 = self.took.iter().sum();
        let needed = (total as f64 * part).ceil() as u64;
        let mut sum = 0;
        for (i, count) in self.took.iter().enumerate() {
            sum += count;
            if sum >= needed && total > 0 {
                return 2f64.powi((i / FINE) as i32) * (1.0 + (i % FINE + 1) as f64 / FINE as f64) / 1000.0;
            }
        }
        0.0
    }

    /// Everything that is counted under a name.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 18] {
        [
            ("enrolled", self.enrolled),
            ("polls", self.polls),
            ("told_to_wait", self.waits),
            ("duplicates", self.duplicates),
            ("duplicates_refused", self.duplicates_refused),
            ("wrong_clocks", self.clocks),
            ("offline", self.offline),
            ("reports", self.reports),
            ("reports_lost", self.reports_lost),
            ("inferences", self.inferences),
            ("failed_inferences", self.failed),
            ("shadow_runs", self.shadow_runs),
            ("updates", self.updates),
            ("differences", self.differences),
            ("bytes_fetched", self.fetched),
            ("confirmed", self.confirmed),
            ("reverted", self.reverted),
            ("offers_refused", self.refused),
        ]
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        let mine = [
            &mut self.enrolled,
            &mut self.polls,
            &mut self.waits,
            &mut self.duplicates,
            &mut self.duplicates_refused,
            &mut self.clocks,
            &mut self.offline,
            &mut self.reports,
            &mut self.reports_lost,
            &mut self.inferences,
            &mut self.failed,
            &mut self.shadow_runs,
            &mut self.updates,
            &mut self.differences,
            &mut self.fetched,
            &mut self.confirmed,
            &mut self.reverted,
            &mut self.refused,
        ];
        mine.into_iter().zip(other.counts()).for_each(|(to, (_, from))| *to += from);
        for (what, n) in &other.errors {
            let known = self.errors.contains_key(what) || self.errors.len() < KINDS;
            *self.errors.entry(if known { what.clone() } else { "others".into() }).or_default() += n;
        }
        self.took.iter_mut().zip(other.took).for_each(|(to, from)| *to += from);
    }

    /// All of it.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut object =
            json!({ "errors": self.errors, "poll_ms": { "p50": self.quantile(0.5), "p99": self.quantile(0.99) } });
        self.counts().iter().for_each(|(name, n)| object[*name] = json!(n));
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_found_again_to_an_eighth() {
        let mut tally = Tally::default();
        (1..=1000).for_each(|n| tally.poll(Duration::from_micros(n * 10)));
        let (half, most) = (tally.quantile(0.5), tally.quantile(0.99));
        assert!((5.0..5.7).contains(&half) && (9.9..11.2).contains(&most), "{half} {most}");
        assert!((Tally::default().quantile(0.5)).abs() < 1e-9);
        for micros in [0, 1, 2, 3, u64::MAX] {
            assert!(bucket(micros) < 64 * FINE);
        }
    }

    #[test]
    fn tallies_add_up_and_stay_small() {
        let mut all = Tally::default();
        for n in 0..100 {
            let mut one = Tally { polls: 1, refused: 2, ..Tally::default() };
            one.error(format!("error {n}"));
            all.add(&one);
        }
        assert_eq!((all.polls, all.refused, all.enrolled), (100, 200, 0));
        assert!(all.errors.len() <= KINDS + 1);
        assert_eq!(all.errors.values().sum::<u64>(), 100);
    }
}
