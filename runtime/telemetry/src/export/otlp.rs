//! OpenTelemetry's protobuf for metrics (OTLP 1.x).
//!
//! Only the messages and fields that are written here are defined, by their numbers in
//! `opentelemetry/proto/metrics/v1/metrics.proto` and its imports; the tests read the bytes with OpenTelemetry's own
//! classes.

use prost::Message;

use super::{Explicit, Exponential, Metric, Snapshot, Value};

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: i32 = 1;

/// The body of an OTLP export request for metrics (`ExportMetricsServiceRequest`, which is wire-compatible with
/// `MetricsData`): what `POST /v1/metrics` takes as `application/x-protobuf`.
#[must_use]
pub fn request(snapshot: &Snapshot) -> Vec<u8> {
    let mut metrics: Vec<message::Metric> = Vec::new();
    for metric in &snapshot.metrics {
        let point = Point { snapshot, metric };
        let last = metrics.last_mut().filter(|m| m.name == metric.name).and_then(|m| m.data.as_mut());
        match (last, &metric.value) {
            (Some(message::Data::Sum(s)), Value::Counter(n)) => s.data_points.push(point.counter(*n)),
            (Some(message::Data::Gauge(g)), Value::Gauge(v)) => g.data_points.push(point.gauge(*v)),
            (Some(message::Data::Exponential(e)), Value::Exponential(h)) => e.data_points.push(point.exponential(h)),
            (Some(message::Data::Histogram(e)), Value::Explicit(h)) => e.data_points.push(point.explicit(h)),
            _ => metrics.push(message::Metric {
                name: metric.name.clone(),
                description: metric.description.clone(),
                unit: metric.unit.clone(),
                data: Some(point.data()),
            }),
        }
    }
    let scope = message::Scope { name: "dunlin".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let request = message::Request {
        resource_metrics: vec![message::ResourceMetrics {
            resource: Some(message::Resource { attributes: pairs(&snapshot.resource) }),
            scope_metrics: vec![message::ScopeMetrics { scope: Some(scope), metrics }],
        }],
    };
    request.encode_to_vec()
}

fn pairs(pairs: &[(String, String)]) -> Vec<message::KeyValue> {
    let any = |v: &String| Some(message::AnyValue { string: Some(v.clone()) });
    pairs.iter().map(|(k, v)| message::KeyValue { key: k.clone(), value: any(v) }).collect()
}

/// A metric on its way into a data point.
struct Point<'a> {
    snapshot: &'a Snapshot,
    metric: &'a Metric,
}

impl Point<'_> {
    fn data(&self) -> message::Data {
        match &self.metric.value {
            Value::Counter(n) => message::Data::Sum(message::Sum {
                data_points: vec![self.counter(*n)],
                aggregation_temporality: DELTA,
                is_monotonic: true,
            }),
            Value::Gauge(v) => message::Data::Gauge(message::Gauge { data_points: vec![self.gauge(*v)] }),
            Value::Exponential(e) => message::Data::Exponential(message::Exponential {
                data_points: vec![self.exponential(e)],
                aggregation_temporality: DELTA,
            }),
            Value::Explicit(e) => message::Data::Histogram(message::Histogram {
                data_points: vec![self.explicit(e)],
                aggregation_temporality: DELTA,
            }),
        }
    }

    fn number(&self, value: message::Number) -> message::NumberPoint {
        message::NumberPoint {
            start_time_unix_nano: self.snapshot.start_ns,
            time_unix_nano: self.snapshot.end_ns,
            attributes: pairs(&self.metric.attributes),
            value: Some(value),
        }
    }

    fn counter(&self, n: u64) -> message::NumberPoint {
        self.number(message::Number::Int(i64::try_from(n).unwrap_or(i64::MAX)))
    }

    fn gauge(&self, v: f64) -> message::NumberPoint {
        self.number(message::Number::Double(v))
    }

    fn exponential(&self, e: &Exponential) -> message::ExponentialPoint {
        let trimmed = e.trimmed();
        message::ExponentialPoint {
            attributes: pairs(&self.metric.attributes),
            start_time_unix_nano: self.snapshot.start_ns,
            time_unix_nano: self.snapshot.end_ns,
            count: e.count(),
            sum: e.sum,
            scale: e.scale,
            zero_count: e.zero,
            positive: Some(message::Buckets { offset: trimmed.offset, bucket_counts: trimmed.counts }),
        }
    }

    fn explicit(&self, e: &Explicit) -> message::HistogramPoint {
        message::HistogramPoint {
            start_time_unix_nano: self.snapshot.start_ns,
            time_unix_nano: self.snapshot.end_ns,
            count: e.count(),
            sum: e.sum,
            bucket_counts: e.counts.clone(),
            explicit_bounds: e.bounds.clone(),
            attributes: pairs(&self.metric.attributes),
        }
    }
}

/// The messages, with the numbers of the official schema.
mod message {
    use prost::{Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_metrics: Vec<ResourceMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ResourceMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_metrics: Vec<ScopeMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) string: Option<String>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ScopeMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(super) metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Scope {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) version: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metric {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) description: String,
        #[prost(string, tag = "3")]
        pub(super) unit: String,
        #[prost(oneof = "Data", tags = "5, 7, 9, 10")]
        pub(super) data: Option<Data>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Data {
        #[prost(message, tag = "5")]
        Gauge(Gauge),
        #[prost(message, tag = "7")]
        Sum(Sum),
        #[prost(message, tag = "9")]
        Histogram(Histogram),
        #[prost(message, tag = "10")]
        Exponential(Exponential),
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Gauge {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<NumberPoint>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sum {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<NumberPoint>,
        #[prost(int32, tag = "2")]
        pub(super) aggregation_temporality: i32,
        #[prost(bool, tag = "3")]
        pub(super) is_monotonic: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Histogram {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<HistogramPoint>,
        #[prost(int32, tag = "2")]
        pub(super) aggregation_temporality: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Exponential {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<ExponentialPoint>,
        #[prost(int32, tag = "2")]
        pub(super) aggregation_temporality: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct NumberPoint {
        #[prost(fixed64, tag = "2")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time_unix_nano: u64,
        #[prost(message, repeated, tag = "7")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(oneof = "Number", tags = "4, 6")]
        pub(super) value: Option<Number>,
    }

    #[derive(Clone, Copy, PartialEq, Oneof)]
    pub(super) enum Number {
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(sfixed64, tag = "6")]
        Int(i64),
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct HistogramPoint {
        #[prost(fixed64, tag = "2")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time_unix_nano: u64,
        #[prost(fixed64, tag = "4")]
        pub(super) count: u64,
        #[prost(double, optional, tag = "5")]
        pub(super) sum: Option<f64>,
        #[prost(fixed64, repeated, tag = "6")]
        pub(super) bucket_counts: Vec<u64>,
        #[prost(double, repeated, tag = "7")]
        pub(super) explicit_bounds: Vec<f64>,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ExponentialPoint {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "2")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time_unix_nano: u64,
        #[prost(fixed64, tag = "4")]
        pub(super) count: u64,
        #[prost(double, optional, tag = "5")]
        pub(super) sum: Option<f64>,
        #[prost(sint32, tag = "6")]
        pub(super) scale: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) zero_count: u64,
        #[prost(message, optional, tag = "8")]
        pub(super) positive: Option<Buckets>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Buckets {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint64, repeated, tag = "2")]
        pub(super) bucket_counts: Vec<u64>,
    }
}
