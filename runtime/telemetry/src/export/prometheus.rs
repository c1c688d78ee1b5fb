//! Prometheus: the text format 0.0.4, and the protobuf exposition, which alone has native histograms.

use std::fmt::Write as _;

use prost::Message;

use super::{Explicit, Exponential, Metric, Snapshot, Value};

/// The content type of [`text`].
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The content type of [`native`].
pub const NATIVE: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Resolutions that a native histogram may have.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// The name as Prometheus has it: `dunlin.inferences` becomes `dunlin_inferences_total`, units of time are spelt out.
fn name(metric: &Metric) -> String {
    let mut name: String =
        metric.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        name.insert(0, '_');
    }
    let unit = match metric.unit.as_str() {
        "us" => "_microseconds",
        "ms" => "_milliseconds",
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    name.push_str(unit);
    if matches!(metric.value, Value::Counter(_)) {
        name.push_str("_total");
    }
    name
}

fn label_name(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        name.insert(0, '_');
    }
    name
}

/// Labels of the resource and the metric.
fn labels(snapshot: &Snapshot, metric: &Metric) -> Vec<(String, String)> {
    snapshot.resource.iter().chain(&metric.attributes).map(|(k, v)| (label_name(k), v.clone())).collect()
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

fn sample(out: &mut String, name: &str, labels: &[(String, String)], bound: Option<f64>, value: &str) {
    out.push_str(name);
    let bound = bound.map(|b| ("le".to_owned(), number(b)));
    let mut open = '{';
    for (key, value) in labels.iter().chain(&bound) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{open}{key}=\"{value}\"");
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// Cumulated counts at the upper bounds that part counts, with that of all values last.
fn cumulated(bounds: impl Iterator<Item = (f64, u64)>, all: u64) -> Vec<(f64, u64)> {
    let mut sum = 0u64;
    let mut rows: Vec<(f64, u64)> = bounds
        .map(|(bound, count)| {
            sum = sum.saturating_add(count);
            (bound, sum)
        })
        .collect();
    rows.push((f64::INFINITY, all));
    rows
}

fn exponential_rows(e: &Exponential) -> Vec<(f64, u64)> {
    let e = e.trimmed();
    let zero = (e.zero > 0).then_some((0.0, e.zero));
    // The lower bound of the first bucket says where it begins.
    let lead = e.counts.first().map(|_| (Exponential { offset: e.offset - 1, ..e.clone() }.upper(0), 0));
    let all = e.count();
    cumulated(zero.into_iter().chain(lead).chain(e.counts.iter().enumerate().map(|(i, &c)| (e.upper(i), c))), all)
}

fn explicit_rows(e: &Explicit) -> Vec<(f64, u64)> {
    cumulated(e.bounds.iter().copied().zip(e.counts.iter().copied()), e.count())
}

/// The text format 0.0.4. Histograms are classic: cumulated counts by upper bound.
#[must_use]
pub fn text(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    let mut before = None;
    for metric in &snapshot.metrics {
        let name = name(metric);
        if before.as_ref() != Some(&name) {
            let kind = match metric.value {
                Value::Counter(_) => "counter",
                Value::Gauge(_) => "gauge",
                Value::Exponential(_) | Value::Explicit(_) => "histogram",
            };
            let help = metric.description.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
        let labels = labels(snapshot, metric);
        let (rows, sum) = match &metric.value {
            Value::Counter(n) => {
                sample(&mut out, &name, &labels, None, &n.to_string());
                (Vec::new(), None)
            }
            Value::Gauge(v) => {
                sample(&mut out, &name, &labels, None, &number(*v));
                (Vec::new(), None)
            }
            Value::Exponential(e) => (exponential_rows(e), e.sum),
            Value::Explicit(e) => (explicit_rows(e), e.sum),
        };
        for (bound, count) in &rows {
            sample(&mut out, &format!("{name}_bucket"), &labels, Some(*bound), &count.to_string());
        }
        if let Some((_, count)) = rows.last() {
            if let Some(sum) = sum {
                sample(&mut out, &format!("{name}_sum"), &labels, None, &number(sum));
            }
            sample(&mut out, &format!("{name}_count"), &labels, None, &count.to_string());
        }
        before = Some(name);
    }
    out
}

/// The protobuf exposition: a sequence of `MetricFamily`, each with its length before it. Exponential histograms become
/// native ones; at a resolution that native ones have not, classic.
#[must_use]
pub fn native(snapshot: &Snapshot) -> Vec<u8> {
    let mut families: Vec<message::Family> = Vec::new();
    for metric in &snapshot.metrics {
        let name = name(metric);
        let kind = match metric.value {
            Value::Counter(_) => message::COUNTER,
            Value::Gauge(_) => message::GAUGE,
            Value::Exponential(_) | Value::Explicit(_) => message::HISTOGRAM,
        };
        let mut row = message::Metric {
            label: labels(snapshot, metric).into_iter().map(|(name, value)| message::Label { name, value }).collect(),
            ..message::Metric::default()
        };
        match &metric.value {
            Value::Counter(n) => row.counter = Some(message::Number { value: *n as f64 }),
            Value::Gauge(v) => row.gauge = Some(message::Number { value: *v }),
            Value::Exponential(e) => row.histogram = Some(histogram(e)),
            Value::Explicit(e) => row.histogram = Some(classic(explicit_rows(e), e.count(), e.sum)),
        }
        match families.last_mut().filter(|f| f.name == name) {
            Some(family) => family.metric.push(row),
            None => families.push(message::Family { name, help: metric.description.clone(), kind, metric: vec![row] }),
        }
    }
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

fn classic(rows: Vec<(f64, u64)>, count: u64, sum: Option<f64>) -> message::Histogram {
    let bucket =
        rows.into_iter().map(|(upper_bound, cumulative_count)| message::Bucket { cumulative_count, upper_bound });
    message::Histogram {
        sample_count: count,
        sample_sum: Some(sum.unwrap_or(f64::NAN)),
        bucket: bucket.collect(),
        ..message::Histogram::default()
    }
}

fn histogram(e: &Exponential) -> message::Histogram {
    if !SCHEMAS.contains(&e.scale) {
        return classic(exponential_rows(e), e.count(), e.sum);
    }
    let trimmed = e.trimmed();
    let length = u32::try_from(trimmed.counts.len()).unwrap_or(u32::MAX);
    // Prometheus numbers a bucket by its upper bound, OpenTelemetry by its lower one. A span without buckets marks a
    // native histogram that holds nothing.
    let offset = if length == 0 { 0 } else { trimmed.offset.saturating_add(1) };
    let mut before = 0i64;
    let deltas = trimmed.counts.iter().map(|&count| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        count - std::mem::replace(&mut before, count)
    });
    message::Histogram {
        sample_count: e.count(),
        sample_sum: Some(e.sum.unwrap_or(f64::NAN)),
        schema: Some(e.scale),
        zero_threshold: Some(0.0),
        zero_count: Some(e.zero),
        positive_span: vec![message::Span { offset, length }],
        positive_delta: deltas.collect(),
        ..message::Histogram::default()
    }
}

/// The messages of `io/prometheus/client/metrics.proto` as far as they are written here, with its numbers.
mod message {
    use prost::Message;

    pub(super) const COUNTER: i32 = 0;
    pub(super) const GAUGE: i32 = 1;
    pub(super) const HISTOGRAM: i32 = 4;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Family {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) help: String,
        #[prost(int32, tag = "3")]
        pub(super) kind: i32,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<Label>,
        #[prost(message, optional, tag = "2")]
        pub(super) gauge: Option<Number>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Number>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    /// `Gauge` and `Counter`.
    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Number {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub(super) sample_count: u64,
        #[prost(double, optional, tag = "2")]
        pub(super) sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub(super) schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub(super) zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub(super) zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub(super) positive_span: Vec<Span>,
        #[prost(sint64, repeated, tag = "13")]
        pub(super) positive_delta: Vec<i64>,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Bucket {
        #[prost(uint64, tag = "1")]
        pub(super) cumulative_count: u64,
        #[prost(double, tag = "2")]
        pub(super) upper_bound: f64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub(super) struct Span {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }
}
