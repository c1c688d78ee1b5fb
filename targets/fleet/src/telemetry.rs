//! What a report says about its device's day.

use std::collections::BTreeMap;

use dunlin_rollout::Guardrail;
use dunlin_telemetry::report::{AnyReport, AnyWindow};
use dunlin_telemetry::window::{Arm, Counter};
use dunlin_telemetry::{Report, latency};

/// What a report contributes to a rollout's evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// Whether its layout is known.
    pub(crate) known: bool,
    /// The first two bytes of the digest it is about.
    pub(crate) model: u16,
    /// Its arm, as the device says.
    pub(crate) arm: &'static str,
    /// Bit `g`: guardrail `g` makes its day bad.
    pub(crate) bad: u8,
    /// Seconds that it is about.
    pub(crate) seconds: u32,
    /// Sums and numbers of metrics, by name.
    pub(crate) metrics: Metrics,
}

impl Reading {
    /// Whether it may be about the package of this digest.
    pub(crate) fn is_of(&self, digest: &[u8; 32]) -> bool {
        digest.starts_with(&self.model.to_be_bytes())
    }
}

/// The arm of a window in which a device ran what it is compared with.
pub(crate) const CONTROL_ARM: &str = "control";

/// The arm of a window in which a second package ran in the shadow of the one that served.
pub(crate) const SHADOW_ARM: &str = "shadow";

/// A metric's sum and number of values, by its name; added up over a day.
pub(crate) type Metrics = BTreeMap<String, (f64, f64)>;

/// Names of the metrics that are read from reports; rules may be about these.
pub(crate) const METRICS: [&str; 6] =
    ["latency_p95", "energy", "confidence", "flip_rate", "guardrail_rate", DISAGREEMENT];

/// The part of a shadow's answers that are not those of the model that serves.
pub(crate) const DISAGREEMENT: &str = "disagreement";

/// Adds metrics.
pub(crate) fn add(to: &mut Metrics, from: &Metrics) {
    for (name, (sum, n)) in from {
        let place = to.entry(name.clone()).or_insert((0.0, 0.0));
        *place = (place.0 + sum, place.1 + n);
    }
}

/// Reads a report; bytes that are none of a known layout are said to be unknown and kept all the same.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    // 20 KB each, so not on the stack of a task.
    let Ok(report) = AnyReport::decode(bytes).map(Box::new) else {
        return Reading { arm: "", ..Reading::default() };
    };
    let Report::Known(_, window) = &*report else { return Reading { arm: "", ..Reading::default() } };
    let head = window.head();
    let counters = window.counters();
    let bit = |bad: bool, g: Guardrail| u8::from(bad) << g as u8;
    // Starts after a fault: that a device was switched off and on, or started another model, is not among them.
    let bad = bit(counters.get(Counter::Resets) > 0, Guardrail::Crash)
        | bit(counters.errors() > 0, Guardrail::InferenceError)
        | bit(misses(window), Guardrail::DeadlineMiss);
    let arm = match head.arm {
        Arm::Rest => "rest",
        Arm::Control => CONTROL_ARM,
        Arm::Candidate => "candidate",
        Arm::Shadow => SHADOW_ARM,
    };
    Reading { known: true, model: head.model, arm, bad, seconds: head.seconds, metrics: metrics(window) }
}

/// Whether more than one inference in a hundred was late: the device's 99th percentile is over its budget.
fn misses(window: &AnyWindow) -> bool {
    let late = u64::from(window.counters().get(Counter::DeadlineMisses));
    late * 100 > u64::from(window.counters().inferences())
}

fn metrics(window: &AnyWindow) -> Metrics {
    let mut metrics = Metrics::new();
    let counters = window.counters();
    let inferences = f64::from(counters.inferences());
    if let Some(p95) = percentile(window, 95) {
        metrics.insert("latency_p95".into(), (p95, 1.0));
    }
    let mut rate = |name: &str, counter: Counter| {
        if inferences > 0.0 {
            metrics.insert(name.into(), (f64::from(counters.get(counter)), inferences));
        }
    };
    if counters.get(Counter::Energy) > 0 {
        rate("energy", Counter::Energy);
    }
    rate("flip_rate", Counter::Flips);
    rate("guardrail_rate", Counter::Guardrails);
    let shadow = counters.get(Counter::ShadowRuns);
    if shadow > 0 {
        let disagreed = f64::from(counters.get(Counter::ShadowDisagreements));
        metrics.insert(DISAGREEMENT.into(), (disagreed, f64::from(shadow)));
    }
    let (mut sum, mut n) = (0.0, 0.0);
    for (bin, count) in window.confidence().iter().enumerate() {
        sum += (bin as f64 + 0.5) / 10.0 * f64::from(*count);
        n += f64::from(*count);
    }
    if n > 0.0 {
        metrics.insert("confidence".into(), (sum, n));
    }
    metrics
}

/// Microseconds that so many percent of the inferences stay below, to a bucket's width.
fn percentile(window: &AnyWindow, percent: u64) -> Option<f64> {
    let total: u64 = window.latency().iter().map(|c| u64::from(*c)).sum();
    let needed = (total * percent).div_ceil(100);
    let mut sum = 0;
    for (i, count) in window.latency().iter().enumerate() {
        sum += u64::from(*count);
        if sum >= needed && total > 0 {
            return Some(latency_upper(usize::from(window.latency_first()) + i));
        }
    }
    None
}

/// Returns microseconds that so many percent of the inferences stay below, to a bucket's width. `counts` begins with bucket 0.
pub(crate) fn percentile_of(counts: &[u64], percent: u64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let needed = total.saturating_mul(percent).div_ceil(100);
    let mut sum = 0;
    let bucket = counts.iter().position(|count| {
        sum += count;
        total > 0 && sum >= needed
    });
    bucket.map(latency_upper)
}

/// Upper end of a bucket of scale 2, four to each doubling: found with the device's own function.
fn latency_upper(bucket: usize) -> f64 {
    let (mut low, mut high) = (0u32, u32::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if usize::from(latency::bucket(middle)) > bucket { high = middle } else { low = middle + 1 }
    }
    f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_telemetry::{Profile, Recorder};

    fn bytes(inferences: u32, counts: &[(Counter, u32)]) -> Vec<u8> {
        let mut recorder = Recorder::<0, 0>::new(1, 0xBEEF);
        recorder.set_arm(Arm::Candidate);
        recorder.count(Counter::Inferences, inferences);
        counts.iter().for_each(|(c, n)| recorder.count(*c, *n));
        let mut bytes = [0; 512];
        let len = recorder.take(3600).encode(Profile::Full, &mut bytes).expect("room");
        bytes[..len].to_vec()
    }

    #[test]
    fn days_are_bad_by_what_reports_say() {
        let good = read(&bytes(1000, &[(Counter::DeadlineMisses, 10)]));
        assert_eq!((good.known, good.model, good.arm, good.bad), (true, 0xBEEF, "candidate", 0));
        let cases = [
            (Counter::Resets, 1, Guardrail::Crash),
            (Counter::InferenceErrors, 1, Guardrail::InferenceError),
            (Counter::DeadlineMisses, 11, Guardrail::DeadlineMiss),
        ];
        for (counter, n, guardrail) in cases {
            assert_eq!(read(&bytes(1000, &[(counter, n)])).bad, 1 << guardrail as u8, "{guardrail:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        assert!(!read(b"").known);
        assert!(!read(&[0xFF; 40]).known);
    }
}
