//! Bytes of one window, an hour with 3,586 inferences and 70 values, in our three profiles and as others write it.
//!
//! `cargo run --release -p dunlin-tests --example bytes_on_air`
//!
//! The window is `runtime/telemetry/tests/golden/full.bin`. The others get the same 70 values: 16 counters and gauges, 12
//! buckets of latency, 10 of confidence, 10 classes, 8 squared distances, 8 means of embeddings, and model, arm, start,
//! number, length and completeness. What is zero is left out for them too.

use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::export::{Context, Snapshot, Value, otlp, prometheus, senml};
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::window::Counter;
use dunlin_telemetry::{Profile, Reference, Report};
use serde_json::json;

const GOLDEN: &[u8] = include_bytes!("../../runtime/telemetry/tests/golden/full.bin");

/// CBOR (RFC 8949): as much of it as an event with integer keys takes.
struct Cbor(Vec<u8>);

impl Cbor {
    fn head(&mut self, kind: u8, n: u64) {
        let kind = kind << 5;
        match n {
            0..24 => self.0.push(kind | n as u8),
            24..0x100 => self.0.extend([kind | 24, n as u8]),
            0x100..0x1_0000 => {
                self.0.push(kind | 25);
                self.0.extend((n as u16).to_be_bytes());
            }
            _ => {
                self.0.push(kind | 26);
                self.0.extend((n as u32).to_be_bytes());
            }
        }
    }

    fn integer(&mut self, n: i64) {
        if n < 0 { self.head(1, (-1 - n) as u64) } else { self.head(0, n as u64) }
    }

    fn text(&mut self, text: &str) {
        self.head(3, text.len() as u64);
        self.0.extend(text.as_bytes());
    }
}

/// An event as the Memfault firmware SDK's metrics serializer lays it out: a map with integer keys for type, device,
/// versions and the event's body, in which the metrics' values follow one another in the order of a list known to the
/// server. Its SDK has integers and timers only, so each bucket is a metric.
fn positional(values: &[i64], with_device: bool) -> Vec<u8> {
    let mut cbor = Cbor(Vec::new());
    cbor.head(5, if with_device { 7 } else { 6 });
    let pairs: [(u64, &str); 4] = [(9, "dunlin-fw"), (6, "1.4.2+b17e4c"), (10, "1.4.2"), (11, "rev-b")];
    cbor.integer(2);
    cbor.integer(1);
    if with_device {
        cbor.integer(7);
        cbor.text("DN-00012345");
    }
    for (key, text) in pairs {
        cbor.integer(key as i64);
        cbor.text(text);
    }
    cbor.integer(4);
    cbor.head(5, 1);
    cbor.integer(1);
    cbor.head(4, values.len() as u64);
    values.iter().for_each(|v| cbor.integer(*v));
    cbor.0
}

fn main() {
    let Ok(Report::Known(_, window)) = AnyReport::decode(GOLDEN) else { panic!("the golden report is read") };
    let head = *window.head();
    let (start, end) = (1_764_000_000_000_000_000, 1_764_003_600_000_000_000);
    let mut all = Aggregate::new();
    all.add(&window);
    let (boot, seq, seconds) = (head.boot.to_string(), head.seq.to_string(), head.seconds.to_string());
    let resource = [
        ("service.name", "dunlin"),
        ("dunlin.model", "b17e"),
        ("dunlin.arm", "candidate"),
        ("dunlin.boot", &boot),
        ("dunlin.seq", &seq),
        ("dunlin.seconds", &seconds),
        ("dunlin.complete", "true"),
    ];
    let context =
        Context { resource: &resource, start_ns: start, end_ns: end, reference: &Reference::NONE, classes: &[] };
    let mut snapshot = Snapshot::of_windows(&all, &context);
    snapshot.metrics.retain(|m| !matches!(m.value, Value::Counter(0)));
    // Descriptions are for people; a device would not send them.
    snapshot.metrics.iter_mut().for_each(|m| m.description.clear());
    // The values by place: counters, live buckets, and the rest.
    let live: Vec<u32> = window.latency().iter().copied().filter(|c| *c > 0).collect();
    let counters = Counter::ALL.map(|c| window.counters().get(c));
    let counters: Vec<u32> = counters.into_iter().filter(|c| *c > 0).collect();
    let lists = [&counters[..], &live, window.confidence(), window.classes(), window.distances()];
    let mut values: Vec<i64> = lists.concat().into_iter().map(i64::from).collect();
    values.extend(window.axes().iter().map(|sum| sum / i64::from(window.embeddings().max(1))));
    values.extend([0xB17E, 2, i64::from(head.boot), i64::from(head.seq), i64::from(head.seconds), 1]);
    assert_eq!(values.len(), 70, "the fixture has 70 values");

    let ours = |profile: Profile| {
        let mut bytes = [0; 512];
        window.encode(profile, &mut bytes).expect("there is room")
    };
    let full = ours(Profile::Full);
    for (profile, target) in [(Profile::Heartbeat, 11), (Profile::Mini, 51), (Profile::Full, 115)] {
        let value = ours(profile);
        println!(
            "{}",
            json!({"figure": format!("bytes_on_air/{}", profile.name()), "value": value, "unit": "bytes", "better": "lower", "target": target, "peer": null, "ratio": null})
        );
    }
    let peers = [
        ("prometheus_text", prometheus::text(&snapshot).len()),
        ("otlp", otlp::request(&snapshot).len()),
        ("json", snapshot.json().to_string().len()),
        ("senml_cbor", senml::pack(&snapshot).len()),
        ("memfault_style", positional(&values, true).len()),
        ("memfault_style_without_device", positional(&values, false).len()),
    ];
    for (name, bytes) in peers {
        println!(
            "{}",
            json!({"figure": format!("bytes_on_air/full_over_{name}"), "value": full, "unit": "bytes", "better": "lower", "target": null, "peer": bytes, "ratio": full as f64 / bytes as f64})
        );
    }
}
