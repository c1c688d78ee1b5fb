//! SenML in CBOR (RFC 8428, section 6): one array of records, each a map with the RFC's integer labels.
//!
//! Names are the metric's, dots as slashes, then the values of its attributes: `inferences`, `class/3`. A histogram is a
//! record for each bucket that holds anything, `duration/above/B`, where B is the bucket's lower bound and the value is
//! its count (unit `count`); `duration/sum` where the sum is known.

use super::{Explicit, Exponential, Metric, Snapshot, Value};

/// The content type.
pub const CONTENT_TYPE: &str = "application/senml+cbor";
/// The CoAP content format (RFC 8428, 12.3.2).
pub const COAP_CONTENT_FORMAT: u16 = 112;

/// A pack of records. The base name is made of the resource's values with colons between and a slash at the end; the
/// base time is the window's end.
#[must_use]
pub fn pack(snapshot: &Snapshot) -> Vec<u8> {
    let mut rows: Vec<Row> = Vec::new();
    for metric in &snapshot.metrics {
        push(&mut rows, metric);
    }
    let base: String = snapshot.resource.iter().map(|(_, v)| clean(v)).collect::<Vec<_>>().join(":");
    let mut out = Vec::new();
    head(&mut out, ARRAY, rows.len() as u64);
    for (i, row) in rows.iter().enumerate() {
        let first = i == 0;
        let (named, timed) = (first && !base.is_empty(), first && snapshot.end_ns > 0);
        head(&mut out, MAP, 2 + u64::from(named) + u64::from(timed) + u64::from(!row.unit.is_empty()));
        if named {
            label(&mut out, BASE_NAME);
            string(&mut out, &format!("{base}/"));
        }
        if timed {
            label(&mut out, BASE_TIME);
            // Seconds since 1970; whole ones as an integer, which is shorter and exact.
            if snapshot.end_ns.is_multiple_of(1_000_000_000) {
                head(&mut out, UNSIGNED, snapshot.end_ns / 1_000_000_000);
            } else {
                float(&mut out, snapshot.end_ns as f64 / 1e9);
            }
        }
        label(&mut out, NAME);
        string(&mut out, &row.name);
        if !row.unit.is_empty() {
            label(&mut out, UNIT);
            string(&mut out, row.unit);
        }
        label(&mut out, VALUE);
        match row.value {
            Number::Whole(n) => head(&mut out, UNSIGNED, n),
            Number::Float(v) => float(&mut out, v),
        }
    }
    out
}

struct Row {
    name: String,
    unit: &'static str,
    value: Number,
}

enum Number {
    Whole(u64),
    Float(f64),
}

fn push(rows: &mut Vec<Row>, metric: &Metric) {
    let parts = std::iter::once(metric.name.strip_prefix("dunlin.").unwrap_or(&metric.name).replace('.', "/"))
        .chain(metric.attributes.iter().map(|(_, v)| v.clone()));
    let name = parts.map(|p| clean(&p)).collect::<Vec<_>>().join("/");
    let mut put = |name: String, unit, value| rows.push(Row { name, unit, value });
    match &metric.value {
        Value::Counter(n) => put(name, "count", Number::Whole(*n)),
        Value::Gauge(v) => put(name, unit(&metric.unit), Number::Float(*v)),
        Value::Exponential(e) => {
            if e.zero > 0 {
                put(format!("{name}/zero"), "count", Number::Whole(e.zero));
            }
            for (i, &count) in e.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
                let lower = Exponential { offset: e.offset - 1, counts: Vec::new(), ..*e }.upper(i);
                put(format!("{name}/above/{lower}"), "count", Number::Whole(count));
            }
            if let Some(sum) = e.sum {
                put(format!("{name}/sum"), unit(&metric.unit), Number::Float(sum));
            }
        }
        Value::Explicit(Explicit { bounds, counts, sum }) => {
            for (i, &count) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
                let lower = i.checked_sub(1).and_then(|b| bounds.get(b)).map_or("start".to_owned(), f64::to_string);
                put(format!("{name}/above/{lower}"), "count", Number::Whole(count));
            }
            if let Some(sum) = sum {
                put(format!("{name}/sum"), unit(&metric.unit), Number::Float(*sum));
            }
        }
    }
}

/// The unit in SenML's registry (RFC 8428, 12.1, and RFC 8798); empty where it has none.
fn unit(ucum: &str) -> &'static str {
    match ucum {
        "s" => "s",
        "ms" => "ms",
        "1" => "/",
        "By" => "B",
        "Cel" => "Cel",
        "V" => "V",
        _ => "",
    }
}

/// A name of the characters that SenML allows (RFC 8428, 4.5.1), beginning with a letter or digit.
fn clean(text: &str) -> String {
    let ok = |c: char| c.is_ascii_alphanumeric() || "-:./_".contains(c);
    let name: String = text.chars().map(|c| if ok(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { name } else { format!("x{name}") }
}

const BASE_NAME: i8 = -2;
const BASE_TIME: i8 = -3;
const NAME: i8 = 0;
const UNIT: i8 = 1;
const VALUE: i8 = 2;

/// CBOR's major types (RFC 8949, 3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    match n {
        0..24 => out.push(major | n as u8),
        24..0x100 => out.extend([major | 24, n as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend((n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

fn label(out: &mut Vec<u8>, label: i8) {
    if label < 0 { head(out, NEGATIVE, (-1 - i64::from(label)) as u64) } else { head(out, UNSIGNED, label as u64) }
}

fn string(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend(text.as_bytes());
}

/// The shortest of binary32 and binary64 that holds the value.
fn float(out: &mut Vec<u8>, value: f64) {
    let short = value as f32;
    if f64::from(short) == value || value.is_nan() {
        out.push(0xFA);
        out.extend(short.to_be_bytes());
    } else {
        out.push(0xFB);
        out.extend(value.to_be_bytes());
    }
}
