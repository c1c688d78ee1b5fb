//! Reports in the formats of others: OTLP, Prometheus, SenML and JSON, so that nobody is locked in.
//!
//! A [`Snapshot`] holds measurements by name, in the terms that all these formats share. Each exporter writes all of
//! them and loses no count: buckets stay buckets, with their own bounds.
//!
//! | format | histograms | sum of a histogram |
//! | --- | --- | --- |
//! | [`otlp`]: OpenTelemetry protobuf | exponential at their own scale; explicit bounds | if known |
//! | [`prometheus::text`]: text format 0.0.4 | classic, with only the bounds where counts change | if known |
//! | [`prometheus::native`]: protobuf exposition | native at their own scale; classic | if known, else NaN |
//! | [`senml`]: SenML in CBOR (RFC 8428) | a record for each bucket that holds anything | if known |
//! | [`Snapshot::json`] | arrays | if known |
//!
//! Counts are those of the window from `start_ns` to `end_ns` (delta temporality). Prometheus expects totals that only
//! grow: give it a snapshot of everything since a fixed start.

pub mod otlp;
pub mod prometheus;
pub mod senml;
mod window;

use serde_json::{Value as Json, json};
pub use window::Context;

/// Measurements of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What was measured, as names and values: device, model, ...
    pub resource: Vec<(String, String)>,
    /// Begin of the window, nanoseconds since 1970; 0 if it is not known.
    pub start_ns: u64,
    /// End of the window, nanoseconds since 1970; 0 if it is not known.
    pub end_ns: u64,
    /// The measurements.
    pub metrics: Vec<Metric>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Name, words with dots between: `dunlin.inferences`. Several metrics may share a name and differ in attributes;
    /// they then stand next to each other, with the same unit, description and kind of value.
    pub name: String,
    /// Unit in UCUM, as OpenTelemetry has it: `us`, `1`, `{inference}`.
    pub unit: String,
    /// What it is.
    pub description: String,
    /// Which of several, as names and values.
    pub attributes: Vec<(String, String)>,
    /// The number or numbers.
    pub value: Value,
}

/// A measurement's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Events of the window.
    Counter(u64),
    /// A level at the window's end.
    Gauge(f64),
    /// Counts of buckets that grow by a constant factor.
    Exponential(Exponential),
    /// Counts between bounds.
    Explicit(Explicit),
}

/// Bucket `i` of `counts` holds the values above `b^(offset+i)`, up to and with `b^(offset+i+1)`, where
/// `b = 2^(2^-scale)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// Resolution: `2^scale` buckets for each doubling.
    pub scale: i32,
    /// Values that are zero.
    pub zero: u64,
    /// Number of the first bucket.
    pub offset: i32,
    /// Counts of the buckets.
    pub counts: Vec<u64>,
    /// Sum of the values, if it is known.
    pub sum: Option<f64>,
}

/// `counts` has one more than `bounds`: bucket `i` holds the values above bound `i - 1`, up to and with bound `i`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explicit {
    /// Inner bounds, rising.
    pub bounds: Vec<f64>,
    /// Counts.
    pub counts: Vec<u64>,
    /// Sum of the values, if it is known.
    pub sum: Option<f64>,
}

fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &c| sum.saturating_add(c))
}

impl Exponential {
    /// All values.
    #[must_use]
    pub fn count(&self) -> u64 {
        total(&self.counts).saturating_add(self.zero)
    }

    /// Upper bound of bucket `i` of [`counts`](Self::counts).
    #[must_use]
    pub fn upper(&self, i: usize) -> f64 {
        let exponent = (f64::from(self.offset) + i as f64 + 1.0) * (-f64::from(self.scale)).exp2();
        exponent.exp2()
    }

    /// The same without buckets at either end that hold nothing.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        let lead = self.counts.iter().take_while(|&&c| c == 0).count();
        let last = self.counts.iter().rposition(|&c| c > 0).map_or(lead, |i| i + 1);
        let counts = self.counts.get(lead..last).unwrap_or(&[]).to_vec();
        let offset = if counts.is_empty() { 0 } else { self.offset.saturating_add(i32::try_from(lead).unwrap_or(0)) };
        Self { offset, counts, ..self.clone() }
    }

    /// The value below which this share of the values lies, to the bucket: its upper bound; `None` without values.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = self.zero;
        if self.count() == 0 {
            return None;
        }
        if seen >= wanted {
            return Some(0.0);
        }
        for (i, &count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                return Some(self.upper(i));
            }
        }
        None
    }
}

impl Explicit {
    /// All values.
    #[must_use]
    pub fn count(&self) -> u64 {
        total(&self.counts)
    }
}

impl Snapshot {
    /// The snapshot as a JSON object.
    #[must_use]
    pub fn json(&self) -> Json {
        let object = |pairs: &[(String, String)]| -> Json {
            pairs.iter().map(|(k, v)| (k.clone(), Json::from(v.as_str()))).collect::<serde_json::Map<_, _>>().into()
        };
        let metrics: Vec<Json> = self
            .metrics
            .iter()
            .map(|m| {
                let value = match &m.value {
                    Value::Counter(n) => json!({"counter": n}),
                    Value::Gauge(v) => json!({"gauge": v}),
                    Value::Exponential(e) => json!({"exponential": {"scale": e.scale, "zero": e.zero,
                        "offset": e.offset, "counts": e.counts, "sum": e.sum}}),
                    Value::Explicit(e) => json!({"explicit": {"bounds": e.bounds, "counts": e.counts, "sum": e.sum}}),
                };
                json!({"name": m.name, "unit": m.unit, "description": m.description,
                    "attributes": object(&m.attributes), "value": value})
            })
            .collect();
        json!({"resource": object(&self.resource), "start_ns": self.start_ns, "end_ns": self.end_ns, "metrics": metrics})
    }
}

#[cfg(test)]
mod tests;
