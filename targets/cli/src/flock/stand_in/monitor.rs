//! Telemetry of a stand-in: windows as a real device closes them, of measurements that are drawn at random.

use dunlin_fleet::wire;
use dunlin_rollout::Bucket;
use dunlin_telemetry::window::{Arm, Counter};
use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample};

use super::super::faults::within;
use super::super::random::Random;
use super::super::tally::Tally;
use super::Terms;
use super::packages::Serving;

/// Reports that wait for a receipt at most.
const OUTBOX: usize = 4;
/// Inferences of a window whose latency and confidence are drawn; of the others only the number is.
const DRAWN: u32 = 16;
/// Inferences of a window at most: what a recorder holds.
const MOST: f64 = 60_000.0;

/// The recorder of a device and the reports that wait.
pub(super) struct Monitor {
    recorder: Recorder<10, 0>,
    boot: u32,
    /// Seconds since this boot that windows have been closed for.
    recorded_seconds: u32,
    /// Inferences since the device was made, which say on which inputs a shadow runs.
    inferences: u32,
    /// Reports that the server has not acknowledged, oldest first.
    pub(super) unsent: Vec<wire::Report>,
}

/// Returns the digest, the arm and the shadow (bucket and one of how many inputs) of what serves.
fn parts(serving: Serving) -> ([u8; 32], Arm, Option<(u32, u32)>) {
    match serving {
        Serving::Alone(digest) => (digest, Arm::Rest, None),
        Serving::Candidate(digest) => (digest, Arm::Candidate, None),
        Serving::Base(digest) => (digest, Arm::Control, None),
        Serving::WithShadow { digest, bucket, every } => (digest, Arm::Shadow, Some((bucket, every))),
    }
}

/// Returns on how many of `count` inputs, from number `first` on, a shadow runs that runs on one of `every`.
fn shadow_runs(bucket: u32, every: u32, first: u32, count: u32) -> u32 {
    (0..count).filter(|n| Bucket(bucket).takes(first.wrapping_add(*n), every)).count() as u32
}

impl Monitor {
    /// Returns a monitor of a device that was just switched on.
    pub(super) fn new() -> Self {
        Self { recorder: Recorder::new(1, 0), boot: 1, recorded_seconds: 0, inferences: 0, unsent: Vec::new() }
    }

    /// Forgets what the recorder holds; windows are numbered from the first again.
    pub(super) fn restart(&mut self) {
        self.boot += 1;
        self.recorder = Recorder::new(self.boot, 0);
        self.recorded_seconds = 0;
    }

    /// Closes a window of so many seconds in which this served, with measurements drawn at random. A window without an
    /// inference is no report.
    pub(super) fn close(
        &mut self,
        serving: Serving,
        seconds: u64,
        terms: &Terms,
        random: &mut Random,
        tally: &mut Tally,
    ) {
        let (digest, arm, shadow) = parts(serving);
        let mean = terms.rate * seconds as f64 / 3600.0;
        let inferences = (mean * (0.5 + random.part()) + random.part()).min(MOST) as u32;
        if inferences == 0 {
            return;
        }
        let faults = &terms.faults;
        let worse = if Some(digest) == terms.running { 1.0 } else { faults.worse };
        let happens = |daily: f64, random: &mut Random| random.chance(within(daily * worse, seconds as f64));
        if happens(faults.crash, random) {
            // The device is back within the window, which says so.
            self.restart();
            self.recorder.count(Counter::Resets, 1);
        }
        self.recorder.serve(u16::from_be_bytes([digest[0], digest[1]]), &Reference::NONE);
        self.recorder.set_arm(arm);
        for _ in 0..DRAWN.min(inferences) {
            let confidence = 1.0 - random.exponential(0.04).min(0.9) as f32;
            let micros = 900 + random.exponential(200.0) as u32;
            let class = u16::try_from(random.below(10)).ok();
            let seen = Observation { micros, class, confidence: Some(confidence), ..Observation::default() };
            self.recorder.add(&Sample::of(&Reference::NONE, &seen));
        }
        self.recorder.count(Counter::Inferences, inferences.saturating_sub(DRAWN));
        if happens(faults.inference_errors, random) {
            let failed = inferences / 20 + 1;
            self.recorder.count(Counter::InferenceErrors, failed);
            tally.failed += u64::from(failed);
        }
        if happens(faults.deadline_misses, random) {
            self.recorder.count(Counter::DeadlineMisses, inferences / 20 + 1);
        }
        if let Some((bucket, every)) = shadow {
            let runs = shadow_runs(bucket, every, self.inferences, inferences);
            let disagreements = (0..runs).filter(|_| random.chance(faults.disagreements)).count() as u32;
            self.recorder.count(Counter::ShadowRuns, runs);
            self.recorder.count(Counter::ShadowDisagreements, disagreements);
            tally.shadow_runs += u64::from(runs);
        }
        self.inferences = self.inferences.wrapping_add(inferences);
        tally.inferences += u64::from(inferences);
        self.push(seconds, tally);
    }

    fn push(&mut self, seconds: u64, tally: &mut Tally) {
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.recorded_seconds = self.recorded_seconds.saturating_add(seconds);
        let window = self.recorder.take(self.recorded_seconds);
        let mut bytes = [0; 512];
        let Ok(len) = window.encode(Profile::Full, &mut bytes) else { return };
        if self.unsent.len() >= OUTBOX {
            self.unsent.remove(0);
            tally.reports_lost += 1;
        }
        let head = window.head();
        self.unsent.push(wire::Report { boot: head.boot, seq: head.seq, bytes: bytes[..len].to_vec() });
    }

    /// Drops the reports that the server has. Returns how many they are.
    pub(super) fn acknowledge(&mut self, acknowledged: &[(u32, u32)]) -> u64 {
        let before = self.unsent.len();
        self.unsent.retain(|report| !acknowledged.contains(&(report.boot, report.seq)));
        (before - self.unsent.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_runs_on_one_of_so_many_inputs() {
        assert_eq!(shadow_runs(3, 4, 0, 100), 25);
        assert_eq!((0..10).map(|n| shadow_runs(3, 4, 10 * n, 10)).sum::<u32>(), 25, "in whatever pieces");
        assert_eq!(shadow_runs(3, 0, 0, 100), 0);
    }
}
