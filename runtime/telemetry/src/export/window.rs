//! Windows as a snapshot.

use super::{Explicit, Exponential, Metric, Snapshot, Value};
use crate::BINS;
use crate::aggregate::Aggregate;
use crate::analysis::{Verdict, feature_name};
use crate::latency::SCALE;
use crate::reference::Reference;
use crate::window::Counter;

/// What a snapshot says besides the counts.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What the windows are of, as names and values: a device, a model, an arm of a rollout.
    pub resource: &'a [(&'a str, &'a str)],
    /// When the windows began, nanoseconds since 1970; 0 if that is not known.
    pub start_ns: u64,
    /// When they ended.
    pub end_ns: u64,
    /// The model's reference, for the bounds of bins; [`Reference::NONE`] leaves bins numbered.
    pub reference: &'a Reference<'a>,
    /// Names of the classes; those without one are numbered.
    pub classes: &'a [String],
}

fn metric(name: &str, unit: &str, description: &str, value: Value) -> Metric {
    Metric {
        name: format!("dunlin.{name}"),
        unit: unit.to_owned(),
        description: description.to_owned(),
        attributes: Vec::new(),
        value,
    }
}

fn with(mut metric: Metric, key: &str, value: impl Into<String>) -> Metric {
    metric.attributes.push((key.to_owned(), value.into()));
    metric
}

impl Snapshot {
    /// All that windows count. Counts stay as they are: buckets with the bounds that devices used.
    ///
    /// The first and the last bucket of durations that a device keeps also hold what is shorter and longer; no format can
    /// say so. Parts that nobody counted are left out.
    #[must_use]
    pub fn of_windows(windows: &Aggregate, context: &Context<'_>) -> Self {
        let mut metrics = Vec::new();
        for counter in Counter::ALL {
            let n = windows.counter(counter);
            metrics.push(match counter {
                Counter::Energy => metric("energy", "uJ", "Energy of inferences", Value::Counter(n)),
                Counter::ArenaPeak => {
                    metric("arena.peak", "By", "Most bytes of the arena in use", Value::Gauge(n as f64))
                }
                other => metric(other.name(), "1", description(other), Value::Counter(n)),
            });
        }
        let latency =
            Exponential { scale: SCALE, zero: 0, offset: 0, counts: windows.latency().to_vec(), sum: None }.trimmed();
        if latency.count() > 0 {
            metrics.push(metric(
                "inference.duration",
                "us",
                "Time that an inference took",
                Value::Exponential(latency),
            ));
        }
        let confidence = windows.confidence().to_vec();
        if confidence.iter().any(|&c| c > 0) {
            let bounds = (1..BINS).map(|b| b as f64 / BINS as f64).collect();
            let value = Value::Explicit(Explicit { bounds, counts: confidence, sum: None });
            metrics.push(metric("confidence", "1", "How sure the model was", value));
        }
        for (class, &n) in windows.classes().iter().enumerate() {
            let name = context.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
            let value = Value::Counter(n);
            metrics.push(with(metric("class", "1", "Inferences by the class they gave", value), "class", name));
        }
        let mut features = context.reference.features();
        for (i, list) in windows.features().iter().enumerate() {
            // Without the bounds the bins are numbered.
            let (name, bins, bounds) = match features.next() {
                Some(f) => {
                    let bins = usize::from(f.bins).clamp(1, BINS);
                    let bounds = f.edges.iter().take(bins).skip(1).map(|&e| f64::from(e)).collect();
                    (feature_name(f.port, f.statistic), bins, bounds)
                }
                None => (i.to_string(), BINS, (1..BINS).map(|b| b as f64).collect()),
            };
            let kept = list.iter().copied().take(bins).collect();
            let value = Value::Explicit(Explicit { bounds, counts: kept, sum: None });
            metrics.push(with(
                metric("feature", "1", "A watched value, by bins of the reference", value),
                "feature",
                name,
            ));
        }
        if let Some(mean) = windows.mean() {
            let first = context.reference.embedding().map_or(0, |e| i32::from(e.distance_first()));
            let distances = windows.distances().to_vec();
            let bounds = (0..distances.len() as i32 - 1).map(|b| f64::from(first + b).exp2()).collect();
            let value = Value::Explicit(Explicit { bounds, counts: distances, sum: None });
            metrics.push(metric("embedding.distance", "1", "Squared distance from the reference's mean", value));
            let axes = context.reference.embedding().map_or(mean.len(), |e| e.axes());
            for (axis, mean) in mean.into_iter().take(axes).enumerate() {
                let mean = metric("embedding.mean", "1", "Mean of whitened embeddings", Value::Gauge(mean));
                metrics.push(with(mean, "axis", axis.to_string()));
            }
        }
        let resource = context.resource.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Self { resource: resource.collect(), start_ns: context.start_ns, end_ns: context.end_ns, metrics }
    }

    /// Adds verdicts as gauges: `dunlin.drift.psi` and so on, by subject, and their levels: 0 for not enough data, 1
    /// steady, 2 warn, 3 act. A verdict without a value has a level only.
    pub fn add_verdicts(&mut self, verdicts: &[Verdict]) {
        let mut sorted: Vec<&Verdict> = verdicts.iter().collect();
        sorted.sort_by_key(|v| v.statistic.name());
        for verdict in &sorted {
            if let Some(value) = verdict.value {
                let name = format!("drift.{}", verdict.statistic.name());
                let gauge = metric(&name, "1", "A statistic of drift", Value::Gauge(value));
                self.metrics.push(with(gauge, "subject", verdict.subject.clone()));
            }
        }
        for verdict in sorted {
            let level = Value::Gauge(f64::from(verdict.level as u8));
            let gauge = metric("drift.level", "1", "0 not enough data, 1 steady, 2 warn, 3 act", level);
            let gauge = with(gauge, "subject", verdict.subject.clone());
            self.metrics.push(with(gauge, "statistic", verdict.statistic.name()));
        }
    }
}

const fn description(counter: Counter) -> &'static str {
    match counter {
        Counter::Inferences => "Inferences",
        Counter::InputErrors => "Inferences that failed because of their input",
        Counter::InferenceErrors => "Inferences that failed while they ran",
        Counter::OutputErrors => "Inferences whose output could not be used",
        Counter::OtherErrors => "Inferences that failed otherwise",
        Counter::DeadlineMisses => "Inferences that took longer than their deadline",
        Counter::NotANumber => "Inputs with something that is no number",
        Counter::Saturated => "Inputs of which more than a quarter is at an end of the range",
        Counter::Stuck => "Inputs that were the same as the one before",
        Counter::Guardrails => "Outputs that a rule held back",
        Counter::Flips => "Classes other than that of the inference before",
        Counter::Alarms => "Alarms of the change detector",
        Counter::ShadowRuns => "Inferences that a second model made too",
        Counter::ShadowDisagreements => "Those of them in which it gave another class",
        Counter::CacheHits => "Inferences answered from a cache",
        Counter::Resets => "Starts of the device after a fault",
        Counter::Dropped => "Windows that were lost on the device",
        Counter::Energy => "Energy of inferences",
        Counter::ArenaPeak => "Most bytes of the arena in use",
    }
}
