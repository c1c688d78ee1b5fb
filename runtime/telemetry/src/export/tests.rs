use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, metric, number_data_point};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn metric(name: &str, unit: &str, attributes: &[(&str, &str)], value: Value) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: format!("what {name} is"),
        attributes: pairs(attributes),
        value,
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn duration() -> Exponential {
    Exponential { scale: 2, zero: 1, offset: 26, counts: vec![0, 0, 5, 0, 900, 31, 0], sum: Some(4.5e5) }
}

fn snapshot() -> Snapshot {
    let confidence = Explicit { bounds: vec![0.25, 0.5, 0.75], counts: vec![0, 7, 0, 930], sum: None };
    Snapshot {
        resource: pairs(&[("dunlin.device", "0011aabb"), ("dunlin.model", "digits \"2\"\\")]),
        start_ns: 1_700_000_000_000_000_000,
        end_ns: 1_700_003_600_000_000_000,
        metrics: vec![
            metric("dunlin.inferences", "{inference}", &[], Value::Counter(937)),
            metric("dunlin.errors", "{error}", &[("kind", "deadline")], Value::Counter(0)),
            metric("dunlin.errors", "{error}", &[("kind", "input")], Value::Counter(3)),
            metric("dunlin.drift.psi", "1", &[("subject", "class")], Value::Gauge(0.0625)),
            metric("dunlin.drift.psi", "1", &[("subject", "confidence")], Value::Gauge(-0.001)),
            metric("dunlin.duration", "us", &[], Value::Exponential(duration())),
            metric("dunlin.empty", "us", &[], Value::Exponential(Exponential { scale: 2, ..Exponential::default() })),
            metric("dunlin.confidence", "1", &[], Value::Explicit(confidence)),
        ],
    }
}

/// Begin, end, attributes and value of a data point.
type Point = (u64, u64, Vec<(String, String)>, Value);

/// What OpenTelemetry's own classes read.
fn read_otlp(bytes: &[u8]) -> Snapshot {
    let request = ExportMetricsServiceRequest::decode(bytes).expect("OTLP");
    let [resource] = &request.resource_metrics[..] else { panic!("one resource") };
    let [scope] = &resource.scope_metrics[..] else { panic!("one scope") };
    assert_eq!(scope.scope.as_ref().map(|s| s.name.as_str()), Some("dunlin"));
    let strings = |list: &[opentelemetry_proto::tonic::common::v1::KeyValue]| -> Vec<(String, String)> {
        list.iter()
            .map(|kv| match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
                Some(any_value::Value::StringValue(s)) => (kv.key.clone(), s.clone()),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let mut snapshot = Snapshot {
        resource: strings(&resource.resource.as_ref().expect("resource").attributes),
        ..Snapshot::default()
    };
    let delta = AggregationTemporality::Delta as i32;
    for m in &scope.metrics {
        let mut points: Vec<Point> = Vec::new();
        match m.data.as_ref().expect("data") {
            metric::Data::Gauge(g) => {
                for p in &g.data_points {
                    let Some(number_data_point::Value::AsDouble(v)) = p.value else {
                        panic!("a gauge of {:?}", p.value)
                    };
                    points.push((p.start_time_unix_nano, p.time_unix_nano, strings(&p.attributes), Value::Gauge(v)));
                }
            }
            metric::Data::Sum(s) => {
                assert!(s.is_monotonic && s.aggregation_temporality == delta);
                for p in &s.data_points {
                    let Some(number_data_point::Value::AsInt(v)) = p.value else { panic!("a sum of {:?}", p.value) };
                    points.push((
                        p.start_time_unix_nano,
                        p.time_unix_nano,
                        strings(&p.attributes),
                        Value::Counter(v as u64),
                    ));
                }
            }
            metric::Data::Histogram(h) => {
                assert_eq!(h.aggregation_temporality, delta);
                for p in &h.data_points {
                    let e = Explicit { bounds: p.explicit_bounds.clone(), counts: p.bucket_counts.clone(), sum: p.sum };
                    assert_eq!(p.count, e.count());
                    points.push((p.start_time_unix_nano, p.time_unix_nano, strings(&p.attributes), Value::Explicit(e)));
                }
            }
            metric::Data::ExponentialHistogram(h) => {
                assert_eq!(h.aggregation_temporality, delta);
                for p in &h.data_points {
                    let positive = p.positive.as_ref().expect("buckets");
                    assert!(p.negative.is_none() && p.zero_threshold == 0.0);
                    let e = Exponential {
                        scale: p.scale,
                        zero: p.zero_count,
                        offset: positive.offset,
                        counts: positive.bucket_counts.clone(),
                        sum: p.sum,
                    };
                    assert_eq!(p.count, e.count());
                    points.push((
                        p.start_time_unix_nano,
                        p.time_unix_nano,
                        strings(&p.attributes),
                        Value::Exponential(e),
                    ));
                }
            }
            metric::Data::Summary(_) => panic!("no summaries"),
        }
        for (start, end, attributes, value) in points {
            (snapshot.start_ns, snapshot.end_ns) = (start, end);
            snapshot.metrics.push(Metric {
                name: m.name.clone(),
                unit: m.unit.clone(),
                description: m.description.clone(),
                attributes,
                value,
            });
        }
    }
    snapshot
}

/// As exporters write it: no empty buckets at the ends.
fn trimmed(mut snapshot: Snapshot) -> Snapshot {
    for metric in &mut snapshot.metrics {
        if let Value::Exponential(e) = &mut metric.value {
            *e = e.trimmed();
        }
    }
    snapshot
}

#[test]
fn otlp_is_read_by_the_official_classes_and_loses_nothing() {
    let snapshot = snapshot();
    let bytes = otlp::request(&snapshot);
    assert_eq!(read_otlp(&bytes), trimmed(snapshot));
    // Data points of one metric are together.
    let request = ExportMetricsServiceRequest::decode(&bytes[..]).expect("OTLP");
    let names: Vec<&str> =
        request.resource_metrics[0].scope_metrics[0].metrics.iter().map(|m| m.name.as_str()).collect();
    let expected = ["inferences", "errors", "drift.psi", "duration", "empty", "confidence"];
    assert_eq!(names, expected.map(|n| format!("dunlin.{n}")));
}

proptest! {
    #[test]
    fn any_histogram_survives_otlp_and_native_prometheus(
        scale in -4i32..=8, zero in 0u64..9, offset in -300i32..300,
        counts in prop::collection::vec(0u64..1 << 50, 0..40), sum in prop::option::of(0.0f64..1e12),
    ) {
        let histogram = Exponential { scale, zero, offset, counts, sum };
        let one = Snapshot { metrics: vec![metric("h", "us", &[], Value::Exponential(histogram.clone()))], ..Snapshot::default() };
        prop_assert_eq!(read_otlp(&otlp::request(&one)), trimmed(one.clone()));
        let [family] = &read_native(&prometheus::native(&one))[..] else { panic!("one family") };
        prop_assert_eq!(&family.1[0].1, &Value::Exponential(Exponential { sum, ..histogram.trimmed() }));
        // The text's bounds and counts give the same buckets, where the bounds are numbers at all.
        let bound = |i: i32| (f64::from(offset + i) * (-f64::from(scale)).exp2()).abs() < 1000.0;
        prop_assume!(bound(0) && bound(41));
        let text = prometheus::text(&one);
        prop_assert_eq!(read_text_exponential(&text, scale), Exponential { sum, ..histogram.trimmed() });
    }
}

/// Reads classic buckets back: bounds are powers of the base, a bound of 0 is the zero bucket.
fn read_text_exponential(text: &str, scale: i32) -> Exponential {
    let mut read = Exponential { scale, ..Exponential::default() };
    let index = |bound: f64| (bound.log2() * f64::from(scale).exp2()).round() as i32;
    let (mut before, mut started) = (0, false);
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        if let Some(bound) = series.strip_prefix("h_microseconds_bucket{le=\"").and_then(|s| s.strip_suffix("\"}")) {
            let count: u64 = value.parse().expect("a count");
            match bound {
                "+Inf" => assert_eq!(count, before, "all values lie below a bound"),
                "0" => read.zero = count,
                _ if !started => {
                    (started, read.offset) = (true, index(bound.parse().expect("a bound")));
                    assert_eq!(count, before);
                }
                _ => {
                    read.counts.push(count - before);
                    let upper: f64 = bound.parse().expect("a bound");
                    assert_eq!(index(upper), read.offset + read.counts.len() as i32);
                }
            }
            before = count;
        } else if series == "h_microseconds_sum" {
            read.sum = Some(value.parse().expect("a sum"));
        }
    }
    read
}

#[test]
fn prometheus_text_to_the_byte() {
    let text = prometheus::text(&snapshot());
    let labels = r#"dunlin_device="0011aabb",dunlin_model="digits \"2\"\\""#;
    let begin = format!(
        "# HELP dunlin_inferences_total what dunlin.inferences is\n# TYPE dunlin_inferences_total counter\n\
         dunlin_inferences_total{{{labels}}} 937\n\
         # HELP dunlin_errors_total what dunlin.errors is\n# TYPE dunlin_errors_total counter\n\
         dunlin_errors_total{{{labels},kind=\"deadline\"}} 0\ndunlin_errors_total{{{labels},kind=\"input\"}} 3\n\
         # HELP dunlin_drift_psi what dunlin.drift.psi is\n# TYPE dunlin_drift_psi gauge\n\
         dunlin_drift_psi{{{labels},subject=\"class\"}} 0.0625\ndunlin_drift_psi{{{labels},subject=\"confidence\"}} -0.001\n\
         # HELP dunlin_duration_microseconds what dunlin.duration is\n# TYPE dunlin_duration_microseconds histogram\n\
         dunlin_duration_microseconds_bucket{{{labels},le=\"0\"}} 1\n\
         dunlin_duration_microseconds_bucket{{{labels},le=\"128\"}} 1\n"
    );
    assert!(text.starts_with(&begin), "{text}");
    let tail = format!(
        "dunlin_confidence_bucket{{{labels},le=\"0.25\"}} 0\ndunlin_confidence_bucket{{{labels},le=\"0.5\"}} 7\n\
         dunlin_confidence_bucket{{{labels},le=\"0.75\"}} 7\ndunlin_confidence_bucket{{{labels},le=\"+Inf\"}} 937\n\
         dunlin_confidence_count{{{labels}}} 937\n"
    );
    assert!(text.ends_with(&tail), "{text}");
    assert!(text.contains(&format!("dunlin_duration_microseconds_sum{{{labels}}} 450000\n")));
    assert!(text.contains(&format!("dunlin_duration_microseconds_count{{{labels}}} 937\n")));
}

/// Fields of a protobuf message by number: varints and fixed64 as numbers, the rest as bytes.
fn fields(mut bytes: &[u8]) -> BTreeMap<u64, Vec<(u64, Vec<u8>)>> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        value
    }
    let mut all: BTreeMap<u64, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => (varint(&mut bytes), Vec::new()),
            1 => {
                let (number, rest) = bytes.split_first_chunk().expect("eight bytes");
                bytes = rest;
                (u64::from_le_bytes(*number), Vec::new())
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                (0, content.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.entry(key >> 3).or_default().push(value);
    }
    all
}

fn packed(bytes: &[u8]) -> Vec<u64> {
    let mut values = vec![0u64];
    let mut shift = 0;
    for byte in bytes {
        *values.last_mut().expect("one") |= u64::from(byte & 127) << shift;
        shift += 7;
        if byte & 128 == 0 {
            values.push(0);
            shift = 0;
        }
    }
    values.pop();
    values
}

fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

type Rows = Vec<(Vec<(String, String)>, Value)>;

/// Reads the protobuf exposition by the field numbers of Prometheus's schema.
fn read_native(mut bytes: &[u8]) -> Vec<(String, Rows)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut families = Vec::new();
    while !bytes.is_empty() {
        let length = prost::decode_length_delimiter(bytes).expect("a length");
        let (head, rest) = bytes.split_at(prost::length_delimiter_len(length) + length);
        bytes = rest;
        let family = fields(&head[prost::length_delimiter_len(length)..]);
        let kind = family.get(&3).map_or(0, |k| k[0].0);
        let mut rows = Vec::new();
        for (_, metric) in &family[&4] {
            let metric = fields(metric);
            let labels = metric.get(&1).into_iter().flatten().map(|(_, label)| {
                let label = fields(label);
                (text(&label[&1][0].1), text(&label[&2][0].1))
            });
            let number = |field: u64| f64::from_bits(fields(&metric[&field][0].1).get(&1).map_or(0, |v| v[0].0));
            let value = match kind {
                0 => Value::Counter(number(3) as u64),
                1 => Value::Gauge(number(2)),
                4 => {
                    let h = fields(&metric[&7][0].1);
                    let whole = |field: u64| h.get(&field).map_or(0, |v| v[0].0);
                    let sum = Some(f64::from_bits(whole(2))).filter(|s| !s.is_nan());
                    if h.contains_key(&12) {
                        let span = fields(&h[&12][0].1);
                        let length = span.get(&2).map_or(0, |v| v[0].0);
                        let mut count = 0i64;
                        let deltas = h.get(&13).map_or(Vec::new(), |d| packed(&d[0].1));
                        let counts: Vec<u64> = deltas
                            .into_iter()
                            .map(|d| {
                                count += zigzag(d);
                                count as u64
                            })
                            .collect();
                        assert_eq!(counts.len() as u64, length);
                        let offset = span.get(&1).map_or(0, |v| zigzag(v[0].0)) as i32;
                        let e = Exponential {
                            scale: zigzag(whole(5)) as i32,
                            zero: whole(7),
                            offset: if length == 0 { 0 } else { offset - 1 },
                            counts,
                            sum,
                        };
                        assert_eq!(whole(1), e.count());
                        Value::Exponential(e)
                    } else {
                        let mut before = 0;
                        let (mut bounds, mut counts) = (Vec::new(), Vec::new());
                        for (_, bucket) in &h[&3] {
                            let bucket = fields(bucket);
                            let count = bucket.get(&1).map_or(0, |v| v[0].0);
                            bounds.push(f64::from_bits(bucket[&2][0].0));
                            counts.push(count - before);
                            before = count;
                        }
                        assert_eq!(bounds.pop(), Some(f64::INFINITY));
                        Value::Explicit(Explicit { bounds, counts, sum })
                    }
                }
                other => panic!("kind {other}"),
            };
            rows.push((labels.collect(), value));
        }
        families.push((text(&family[&1][0].1), rows));
    }
    families
}

#[test]
fn native_prometheus_loses_nothing() {
    let snapshot = snapshot();
    let families = read_native(&prometheus::native(&snapshot));
    let names: Vec<&str> = families.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(
        names,
        [
            "dunlin_inferences_total",
            "dunlin_errors_total",
            "dunlin_drift_psi",
            "dunlin_duration_microseconds",
            "dunlin_empty_microseconds",
            "dunlin_confidence"
        ]
    );
    let values: Vec<&Value> = families.iter().flat_map(|f| f.1.iter().map(|r| &r.1)).collect();
    let expected = trimmed(snapshot);
    // A sum of 0 is what a histogram without a sum and values reads as; the rest is equal.
    assert_eq!(values, expected.metrics.iter().map(|m| &m.value).collect::<Vec<_>>());
    assert_eq!(families[1].1[1].0.last(), Some(&("kind".to_owned(), "input".to_owned())));
}

/// A CBOR reader for what SenML uses.
#[derive(Clone, Debug, PartialEq)]
enum Cbor {
    Whole(i64),
    Float(f64),
    Text(String),
    List(Vec<Cbor>),
    Map(Vec<(Cbor, Cbor)>),
}

fn cbor(bytes: &mut &[u8]) -> Cbor {
    let take = |n: usize, bytes: &mut &[u8]| -> u64 {
        let (head, rest) = bytes.split_at(n);
        *bytes = rest;
        head.iter().fold(0, |v, b| v << 8 | u64::from(*b))
    };
    let first = take(1, bytes) as u8;
    let n = match first & 31 {
        small @ 0..24 => u64::from(small),
        wide @ 24..28 => take(1 << (wide - 24), bytes),
        other => panic!("additional information {other}"),
    };
    match first >> 5 {
        0 => Cbor::Whole(n as i64),
        1 => Cbor::Whole(-1 - n as i64),
        3 => {
            let (text, rest) = bytes.split_at(n as usize);
            *bytes = rest;
            Cbor::Text(String::from_utf8(text.to_vec()).expect("UTF-8"))
        }
        4 => Cbor::List((0..n).map(|_| cbor(bytes)).collect()),
        5 => Cbor::Map((0..n).map(|_| (cbor(bytes), cbor(bytes))).collect()),
        7 if first & 31 == 26 => Cbor::Float(f64::from(f32::from_bits(n as u32))),
        7 if first & 31 == 27 => Cbor::Float(f64::from_bits(n)),
        other => panic!("major type {other}"),
    }
}

#[test]
fn senml_holds_every_count() {
    let bytes = senml::pack(&snapshot());
    let mut rest = &bytes[..];
    let Cbor::List(records) = cbor(&mut rest) else { panic!("an array") };
    assert!(rest.is_empty());
    let get = |record: &Cbor, label: i64| -> Option<Cbor> {
        let Cbor::Map(entries) = record else { panic!("a map") };
        entries.iter().find(|(k, _)| *k == Cbor::Whole(label)).map(|(_, v)| v.clone())
    };
    assert_eq!(get(&records[0], -2), Some(Cbor::Text("0011aabb:digits__2__/".to_owned())));
    assert_eq!(get(&records[0], -3), Some(Cbor::Whole(1_700_003_600)));
    let found: Vec<(String, Option<Cbor>, Cbor)> = records
        .iter()
        .map(|r| match get(r, 0) {
            Some(Cbor::Text(name)) => (name, get(r, 1), get(r, 2).expect("a value")),
            other => panic!("{other:?}"),
        })
        .collect();
    let count = |name: &str, n: i64| (name.to_owned(), Some(Cbor::Text("count".to_owned())), Cbor::Whole(n));
    let base = 2f64.powf(0.25);
    let above = |i: i32| format!("duration/above/{}", (f64::from(i) * 0.25).exp2());
    assert!((base.powi(28) - 128.0).abs() < 1e-9);
    let unit = Some(Cbor::Text("/".to_owned()));
    let expected = vec![
        count("inferences", 937),
        count("errors/deadline", 0),
        count("errors/input", 3),
        ("drift/psi/class".to_owned(), unit.clone(), Cbor::Float(0.0625)),
        ("drift/psi/confidence".to_owned(), unit, Cbor::Float(-0.001)),
        count("duration/zero", 1),
        count("duration/above/128", 5),
        count(&above(30), 900),
        count(&above(31), 31),
        ("duration/sum".to_owned(), None, Cbor::Float(4.5e5)),
        count("confidence/above/0.25", 7),
        count("confidence/above/0.75", 930),
    ];
    assert_eq!(found, expected);
}

#[test]
fn json_has_everything() {
    let snapshot = snapshot();
    let json: Json = serde_json::from_str(&snapshot.json().to_string()).expect("JSON");
    assert_eq!(json["resource"]["dunlin.device"], "0011aabb");
    assert_eq!(json["end_ns"], snapshot.end_ns);
    let metrics = json["metrics"].as_array().expect("metrics");
    assert_eq!(metrics.len(), snapshot.metrics.len());
    for (json, metric) in metrics.iter().zip(&snapshot.metrics) {
        assert_eq!((json["name"].as_str(), json["unit"].as_str()), (Some(&*metric.name), Some(&*metric.unit)));
        let counts = |v: &Json| v.as_array().map(|a| a.iter().filter_map(Json::as_u64).collect::<Vec<_>>());
        match &metric.value {
            Value::Counter(n) => assert_eq!(json["value"]["counter"], *n),
            Value::Gauge(v) => assert_eq!(json["value"]["gauge"], *v),
            Value::Exponential(e) => {
                let value = &json["value"]["exponential"];
                assert_eq!(counts(&value["counts"]), Some(e.counts.clone()));
                assert_eq!(
                    (value["scale"].as_i64(), value["offset"].as_i64()),
                    (Some(e.scale.into()), Some(e.offset.into()))
                );
                assert_eq!((value["zero"].as_u64(), value["sum"].as_f64()), (Some(e.zero), e.sum));
            }
            Value::Explicit(e) => assert_eq!(counts(&json["value"]["explicit"]["counts"]), Some(e.counts.clone())),
        }
    }
}

#[test]
fn quantiles_are_upper_bounds_of_buckets() {
    let e = duration();
    assert_eq!(e.count(), 937);
    assert_eq!(e.quantile(0.0), Some(0.0));
    assert_eq!(e.quantile(0.005), Some(29f64.mul_add(0.25, 0.0).exp2()));
    assert_eq!(e.quantile(0.5), Some((31.0f64 * 0.25).exp2()));
    assert_eq!(e.quantile(1.0), Some((32.0f64 * 0.25).exp2()));
    assert_eq!(Exponential::default().quantile(0.5), None);
    assert_eq!(Exponential { counts: vec![0, 0], offset: 9, ..e }.trimmed().counts, Vec::<u64>::new());
}
