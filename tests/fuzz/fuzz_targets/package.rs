//! Any bytes as a package: `cargo +nightly fuzz run package corpus ../../runtime/package/tests/golden`.

#![no_main]

use std::hint::black_box;

use dunlin_package::plan::Plan;
use dunlin_package::{Package, Ports, compute_digest, total_len};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(package) = Package::open(bytes) {
        walk(&package);
    }
    let _ = black_box(total_len(bytes));
    // Behind the digest.
    let mut bytes = bytes.to_vec();
    if let Ok(digest) = compute_digest(&bytes) {
        bytes[32..64].copy_from_slice(&digest);
        let opened = Package::open(&bytes);
        assert_eq!(opened.as_ref().err().copied(), Package::open_unverified(&bytes).err());
        if let Ok(package) = opened {
            package.verify_digest().unwrap();
            assert_eq!(total_len(&bytes), Ok(bytes.len()));
            walk(&package);
        }
    }
});

/// Reads everything; counts that were checked must hold.
fn walk(package: &Package<'_>) {
    for section in package.sections() {
        black_box((section.known(), section.critical()));
    }
    let manifest = package.manifest();
    black_box(manifest.name.len());
    walk_ports(manifest.inputs());
    walk_ports(manifest.outputs());
    black_box(package.weights().len());
    black_box(package.drift().map(<[u8]>::len));
    if let Some(golden) = package.golden() {
        assert_eq!(golden.cases().count(), golden.len());
        for case in golden.cases() {
            assert_eq!(case.inputs().count(), manifest.inputs().len());
            assert_eq!(case.outputs().count(), manifest.outputs().len());
            for (tensor, port) in case.outputs().zip(manifest.outputs()) {
                assert_eq!(tensor.data.len(), port.byte_len());
            }
        }
    }
    if let Some(foreign) = package.foreign() {
        assert_eq!(foreign.blobs().count(), foreign.len());
    }
    if let Some(names) = package.names() {
        for index in 0..names.tensor_count() {
            names.tensor(index).unwrap();
        }
        for index in 0..names.step_count() {
            names.step(index).unwrap();
            names.note(index).unwrap();
        }
    }
    assert_eq!(package.seal().signatures().count(), package.seal().len());
    let _ = black_box(Plan::read(package.plan_bytes()));
}

fn walk_ports(ports: Ports<'_>) {
    assert_eq!(ports.clone().count(), ports.len());
    for port in ports {
        assert!(port.rank <= 6);
        assert_eq!(port.labels().count(), port.labels().len());
    }
}
