//! Format 1.0, kept as bytes: what was written once stays readable and is written the same.

use std::path::Path;

use dunlin_package::{Aligned, Package};

use crate::sample;

static V1: &Aligned<[u8]> = &Aligned(*include_bytes!("../golden/v1.dunlin"));

#[test]
fn writer_reproduces_it() {
    let written = sample::draft().build().unwrap();
    if std::env::var_os("DUNLIN_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.dunlin");
        std::fs::write(path, &written).unwrap();
        return;
    }
    assert!(written == V1.0, "the writer's bytes changed; that is a new version of the format");
}

#[test]
fn reader_reads_it() {
    let package = Package::open(&V1.0).unwrap();
    assert_eq!(sample::redraft(&package), sample::draft());
    assert!(package.is_aligned_to(64));
    assert_eq!(package.weights().as_ptr() as usize % 64, 0);
    let hex: String = package.digest().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, DIGEST);
}

/// By another implementation: Python's hashlib over the body (736 bytes) without bytes 32 to 63.
const DIGEST: &str = "0896b71897808e06f237624ddc52610de41cd42cd7505289e352994b2621ea7f";
