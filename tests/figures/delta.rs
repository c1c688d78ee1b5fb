//! Bytes of an update, for pairs of packages and methods: ours, zstd with the old package as its prefix, bsdiff, and
//! plain zstd of the new one.
//!
//! `delta [--regions] [NAME OLD.dunlin NEW.dunlin]`: the repository's own pairs, or one of your own.

use std::io::Write as _;

use dunlin::onnx::{Options, compile};
use dunlin_update::delta::{EncodeOptions, Encoded, encode};

/// A pair of packages; in pairs of one architecture ours has to be the smallest.
struct Pair {
    name: String,
    same: bool,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn package(onnx: &[u8], name: &str, version: &str) -> Vec<u8> {
    let options = Options { name: name.into(), version: version.into(), ..Options::default() };
    compile(onnx, &options).unwrap_or_else(|e| panic!("{name} {version}: {e}")).package
}

fn model(name: &str, version: &str) -> Vec<u8> {
    let artifact = dunlin_models::find(name, Some(version)).expect("a model of this repository");
    package(artifact.onnx, name, version)
}

fn pairs() -> Vec<Pair> {
    let digits = || model("digits", "2");
    let pair = |name: &str, same, old, new| Pair { name: name.into(), same, old, new };
    let mut all = Vec::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/variants");
    for name in ["last-layer", "fine-tuned", "other-seed", "requantized", "per-tensor"] {
        let path = format!("{folder}/{name}.onnx");
        all.push(pair(name, true, digits(), package(&read(&path), "digits", "4")));
    }
    all.push(pair("retrained-transposed", true, digits(), model("digits", "3")));
    all.push(pair("architecture", false, model("digits", "1"), digits()));
    all
}

fn zstd(old: Option<&[u8]>, new: &[u8]) -> usize {
    let mut out = Vec::new();
    let mut encoder = match old {
        Some(old) => zstd::stream::Encoder::with_ref_prefix(&mut out, 22, old),
        None => zstd::stream::Encoder::new(&mut out, 22),
    }
    .expect("zstd");
    encoder.set_pledged_src_size(Some(new.len() as u64)).expect("zstd");
    encoder.include_contentsize(false).expect("zstd");
    encoder.include_checksum(false).expect("zstd");
    encoder.long_distance_matching(true).expect("zstd");
    encoder.window_log(27).expect("zstd");
    encoder.write_all(new).expect("zstd");
    encoder.finish().expect("zstd");
    out.len()
}

fn bsdiff(old: &[u8], new: &[u8]) -> usize {
    let mut out = Vec::new();
    qbsdiff::Bsdiff::new(old, new).compression_level(9).compare(std::io::Cursor::new(&mut out)).expect("bsdiff");
    out.len()
}

fn line(pair: &Pair, method: &str, value: usize, ours: Option<usize>) {
    let (target, peer, ratio) = match ours {
        None => ("null".to_owned(), "null".to_owned(), "null".to_owned()),
        Some(ours) => {
            let target = if pair.same { "1.0" } else { "null" };
            (target.to_owned(), value.to_string(), format!("{:.4}", ours as f64 / value as f64))
        }
    };
    let value = ours.unwrap_or(value);
    println!(
        "{{\"figure\":\"delta/{}/{method}\",\"value\":{value},\"unit\":\"bytes\",\"better\":\"lower\",\"target\":{target},\"peer\":{peer},\"ratio\":{ratio}}}",
        pair.name
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let show = arguments.iter().any(|a| a == "--regions");
    let files: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let pairs = match files[..] {
        [name, old, new] => vec![Pair { name: name.clone(), same: true, old: read(old), new: read(new) }],
        _ => pairs(),
    };
    for pair in &pairs {
        let Encoded { patch, regions } =
            encode(Some(&pair.old), &pair.new, &EncodeOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let whole = encode(None, &pair.new, &EncodeOptions::default()).unwrap_or_else(|e| panic!("{e}")).patch.len();
        let ours = Some(patch.len());
        line(pair, "package", pair.new.len(), None);
        line(pair, "dunlin-without-base", whole, None);
        line(pair, "dunlin-over-zstd-patch-from", zstd(Some(&pair.old), &pair.new), ours);
        line(pair, "dunlin-over-bsdiff", bsdiff(&pair.old, &pair.new), ours);
        line(pair, "dunlin-over-zstd", zstd(None, &pair.new), ours);
        if show {
            for r in regions {
                eprintln!("{:>8} {:>8}  {:<20} {}", r.bytes, r.patch_bytes, r.operation, r.name);
            }
        }
    }
}
