use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{Package, compute_digest};
use crate::container::{BODY_LEN_AT, DIGEST_AT, ENTRY_LEN, HEADER_LEN, SectionKind, body_len, total_len};
use crate::writer::{
    BuildError, Builder, GoldenCase, PortDraft, SignatureDraft, StepNames, with_drift, with_signatures,
};
use crate::{ALGORITHM_ED25519, DType, ManifestError, OpenError};

fn port(name: &str, dtype: DType, dims: &[u32]) -> PortDraft {
    PortDraft { name: name.to_string(), dtype, dims: dims.to_vec(), scale: 0.5, zero_point: -3, labels: vec![] }
}

fn draft() -> Builder {
    let mut builder = Builder {
        plan: vec![0; 17],
        weights: vec![7; 100],
        golden: vec![GoldenCase { inputs: vec![vec![1, 2, 3]], outputs: vec![vec![0; 8]] }],
        drift: vec![9; 5],
        foreign: vec![vec![1; 3], vec![], vec![2; 20]],
        tensor_names: vec!["x".to_string(), "größe".to_string()],
        steps: vec![StepNames { name: "conv".to_string(), note: String::new() }],
        ..Builder::default()
    };
    builder.manifest.name = "model".to_string();
    builder.manifest.inputs = vec![port("in", DType::I8, &[1, 3])];
    builder.manifest.outputs = vec![port("out", DType::F32, &[2])];
    builder.manifest.outputs[0].labels = vec!["no".to_string(), "yes".to_string()];
    builder
}

/// What `Package::open` says after `change`, the digest made good.
fn after(change: impl FnOnce(&mut Vec<u8>)) -> Option<OpenError> {
    let mut bytes = draft().build().unwrap();
    change(&mut bytes);
    redigest(&mut bytes);
    Package::open(&bytes).err()
}

fn redigest(bytes: &mut [u8]) {
    if let Ok(digest) = compute_digest(bytes) {
        bytes[DIGEST_AT..HEADER_LEN].copy_from_slice(&digest);
    }
}

fn entry(index: usize) -> usize {
    HEADER_LEN + index * ENTRY_LEN
}

/// Offset of a section in the draft's package.
fn place(kind: SectionKind) -> usize {
    let bytes = draft().build().unwrap();
    let package = Package::open(&bytes).unwrap();
    let mut sections = package.sections();
    sections.find(|s| s.known() == Some(kind)).unwrap().offset as usize
}

#[test]
fn reads_what_was_written() {
    let bytes = draft().build().unwrap();
    let package = Package::open(&bytes).unwrap();
    assert_eq!(package.manifest().name, "model");
    assert_eq!(package.manifest().weight_bytes, 100);
    assert_eq!(package.plan_bytes(), [0; 17]);
    assert_eq!(package.weights(), [7; 100]);
    assert_eq!(package.drift(), Some(&[9; 5][..]));
    let input = package.manifest().input(0).unwrap();
    assert_eq!((input.name, input.dtype, input.shape()), ("in", DType::I8, &[1, 3][..]));
    assert_eq!(package.manifest().input(1), None);
    let output = package.manifest().output(0).unwrap();
    assert_eq!(output.labels().collect::<Vec<_>>(), ["no", "yes"]);
    assert_eq!(output.label(1), Some("yes"));
    assert_eq!(output.byte_len(), 8);
    let foreign = package.foreign().unwrap();
    assert_eq!(foreign.blobs().collect::<Vec<_>>(), [&[1; 3][..], &[], &[2; 20]]);
    assert_eq!(foreign.get(3), None);
    let names = package.names().unwrap();
    assert_eq!(names.tensor(1), Some("größe"));
    assert_eq!(names.tensor(2), None);
    assert_eq!(names.step(0), Some("conv"));
    assert_eq!(names.note(0), Some(""));
    assert_eq!(names.step(1), None);
    let golden = package.golden().unwrap();
    assert_eq!(golden.len(), 1);
    let case = golden.cases().next().unwrap();
    let input = case.inputs().next().unwrap();
    assert_eq!((input.dtype, input.data), (DType::I8, &[1, 2, 3][..]));
    let output = case.outputs().next().unwrap();
    assert_eq!((output.port, output.data), (0, &[0; 8][..]));
    assert_eq!(case.outputs().count(), 1);
    assert_eq!(body_len(&bytes[..HEADER_LEN]), Ok(package.body().len()));
}

#[test]
fn sections_are_aligned() {
    let bytes = draft().build().unwrap();
    let package = Package::open(&bytes).unwrap();
    let kinds: Vec<_> = package.sections().filter_map(|s| s.known()).collect();
    assert_eq!(kinds.len(), 7);
    for section in package.sections() {
        let align = if section.known() == Some(SectionKind::Weights) { 64 } else { 16 };
        assert_eq!(section.offset % align, 0);
    }
}

#[test]
fn small_parts_are_left_out() {
    let bytes = Builder::default().build().unwrap();
    let package = Package::open(&bytes).unwrap();
    assert_eq!(package.sections().len(), 2);
    assert_eq!(package.manifest().target, "any");
    assert!(package.weights().is_empty());
    assert!(package.golden().is_none() && package.names().is_none() && package.drift().is_none());
    assert!(package.foreign().is_none() && package.seal().is_empty());
}

#[test]
fn unverified_leaves_the_digest_to_others() {
    let mut bytes = draft().build().unwrap();
    let at = place(SectionKind::Weights);
    bytes[at] ^= 1;
    assert_eq!(Package::open(&bytes).err(), Some(OpenError::Digest));
    let package = Package::open_unverified(&bytes).unwrap();
    assert_eq!(package.verify_digest(), Err(OpenError::Digest));
}

#[test]
fn a_drift_section_is_put_in_changed_and_taken_out() {
    let with = draft().build().unwrap();
    let without = Builder { drift: Vec::new(), ..draft() }.build().unwrap();
    assert_eq!(with_drift(&without, &[9; 5]).unwrap(), with);
    assert_eq!(with_drift(&with, &[]).unwrap(), without);
    let other = with_drift(&with, &[3; 700]).unwrap();
    let package = Package::open(&other).unwrap();
    assert_eq!(package.drift(), Some(&[3; 700][..]));
    assert_ne!(package.digest(), Package::open(&with).unwrap().digest());
    // Signatures are over the old digest.
    let signature = SignatureDraft { key_id: *b"key-0001", algorithm: ALGORITHM_ED25519, signature: [5; 64] };
    let signed = with_signatures(&without, &[signature]).unwrap();
    assert_eq!(with_drift(&signed, &[9; 5]).unwrap(), with);
    assert_eq!(with_drift(&with[..100], &[1]).err().map(|e| matches!(e, BuildError::Invalid(_))), Some(true));
}

#[test]
fn parts_of_a_later_version_are_not_lost_silently() {
    let mut later = draft().build().unwrap();
    later[10] = 1;
    redigest(&mut later);
    assert_eq!(with_drift(&later, &[1]), Err(BuildError::LaterVersion));
    // A section that this version does not know, and may skip.
    let mut unknown = draft().build().unwrap();
    let at = entry(4);
    unknown[at..at + 2].copy_from_slice(&300u16.to_le_bytes());
    redigest(&mut unknown);
    assert!(Package::open(&unknown).is_ok());
    assert_eq!(with_drift(&unknown, &[1]), Err(BuildError::LaterVersion));
}

#[test]
fn signatures_do_not_change_the_digest() {
    let unsigned = draft().build().unwrap();
    let signature = SignatureDraft { key_id: *b"key-0001", algorithm: ALGORITHM_ED25519, signature: [5; 64] };
    let once = with_signatures(&unsigned, &[signature]).unwrap();
    let twice = with_signatures(&once, &[signature]).unwrap();
    let package = Package::open(&twice).unwrap();
    assert_eq!(package.digest(), Package::open(&unsigned).unwrap().digest());
    assert_eq!(package.seal().len(), 2);
    assert_eq!(package.seal().get(1).unwrap().signature, &[5; 64]);
    assert_eq!(package.seal().get(2), None);
    assert_eq!(with_signatures(&unsigned, &[signature; 17]), Err(BuildError::Invalid(OpenError::Seal)));
    let mut slot = twice.clone();
    slot.resize(twice.len() + 4096, 0xFF);
    assert_eq!(total_len(&slot), Ok(twice.len()));
    assert_eq!(Package::open(&slot).err(), Some(OpenError::TrailingBytes { expected: twice.len(), got: slot.len() }));
}

#[test]
fn headers_are_refused_by_name() {
    assert_eq!(Package::open(b"GIF89a").err(), Some(OpenError::NotAPackage));
    assert_eq!(after(|b| b[7] = 0), Some(OpenError::NotAPackage));
    let unsupported = OpenError::UnsupportedVersion { major: 2, minor: 0 };
    assert_eq!(after(|b| b[8] = 2), Some(unsupported));
    assert_eq!(after(|b| b[12] = 80), Some(OpenError::Header));
    assert_eq!(after(|b| b[14] = 33), Some(OpenError::TooManySections { count: 33 }));
    assert_eq!(after(|b| b[20] = 1), Some(OpenError::UnsupportedFlags { flags: 1 }));
    assert_eq!(after(|b| b[24] = 1), Some(OpenError::Header));
    assert_eq!(after(|b| b[BODY_LEN_AT..20].fill(0xFF)), Some(OpenError::Oversized { len: u32::MAX }));
    assert_eq!(after(|b| b[BODY_LEN_AT] ^= 1), Some(OpenError::Header));
}

#[test]
fn table_entries_are_refused_by_position() {
    for (at, value) in [
        (2, 3),  // an unknown flag
        (4, 0),  // another place
        (12, 3), // too little alignment
        (12, 13),
        (15, 1), // reserved
    ] {
        assert_eq!(after(|b| b[entry(2) + at] = value), Some(OpenError::BadSection { index: 2 }), "byte {at}");
    }
    let twice = after(|b| b[entry(6)] = 4);
    assert_eq!(twice, Some(OpenError::BadSection { index: 6 }));
    let weights = after(|b| b[entry(2) + 12] = 4);
    assert_eq!(weights, Some(OpenError::BadSection { index: 2 }));
    let beyond = after(|b| b[entry(6) + 8..entry(6) + 12].fill(0xFF));
    assert_eq!(beyond, Some(OpenError::BadSection { index: 6 }));
    let plan_end = place(SectionKind::Plan) + 17;
    assert_eq!(after(|b| b[plan_end] = 1), Some(OpenError::Padding));
}

#[test]
fn only_critical_unknown_sections_are_refused() {
    assert_eq!(after(|b| b[entry(4)] = 99), None);
    assert_eq!(
        after(|b| {
            b[entry(4)] = 99;
            b[entry(4) + 2] = 1;
        }),
        Some(OpenError::UnknownCriticalSection { kind: 99 })
    );
    assert_eq!(
        after(|b| {
            b[entry(1)] = 99;
            b[entry(1) + 2] = 0;
        }),
        Some(OpenError::MissingSection { kind: SectionKind::Plan })
    );
}

#[test]
fn contents_are_refused_by_name() {
    let golden = place(SectionKind::Golden);
    let foreign = place(SectionKind::Foreign);
    let names = place(SectionKind::Names);
    for at in [0, 4, 8, 10, 12, 14, 15, 16, 23] {
        assert_eq!(after(|b| b[golden + at] ^= 0x11), Some(OpenError::Golden), "byte {at}");
    }
    for at in [0, 4, 8, 12, 16, 35] {
        assert_eq!(after(|b| b[foreign + at] ^= 0x11), Some(OpenError::Foreign), "byte {at}");
    }
    for at in [0, 4, 8, 12, 16, 20, 37] {
        assert_eq!(after(|b| b[names + at] ^= 0x91), Some(OpenError::Names), "byte {at}");
    }
    let manifest = place(SectionKind::Manifest);
    assert_eq!(after(|b| b[manifest] = 0xFF), Some(OpenError::Manifest(ManifestError::Encoding)));
}

#[test]
fn manifests_are_refused_by_field() {
    let refused = |change: fn(&mut Builder)| {
        let mut builder = draft();
        builder.golden.clear();
        change(&mut builder);
        match builder.build() {
            Err(BuildError::Invalid(OpenError::Manifest(error))) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|b| b.manifest.tolerance = f32::NAN), ManifestError::Tolerance);
    assert_eq!(refused(|b| b.manifest.tolerance = -1.0), ManifestError::Tolerance);
    assert_eq!(refused(|b| b.manifest.inputs[0].dims = vec![0]), ManifestError::Input { index: 0 });
    assert_eq!(refused(|b| b.manifest.inputs[0].name = "x".repeat(256)), ManifestError::Input { index: 0 });
    assert_eq!(refused(|b| b.manifest.outputs[0].dims = vec![u32::MAX; 6]), ManifestError::Output { index: 0 });
    assert_eq!(refused(|b| b.manifest.outputs[0].scale = f32::INFINITY), ManifestError::Output { index: 0 });
    assert_eq!(refused(|b| b.manifest.inputs = vec![b.manifest.inputs[0].clone(); 65]), ManifestError::TooManyPorts);
    let mut builder = draft();
    builder.manifest.inputs[0].dims = vec![1; 7];
    assert_eq!(builder.build(), Err(BuildError::Rank));
    let mut builder = draft();
    builder.golden[0].inputs.clear();
    assert_eq!(builder.build(), Err(BuildError::GoldenPorts));
    let mut builder = draft();
    builder.golden[0].inputs[0].push(0);
    assert_eq!(builder.build(), Err(BuildError::Invalid(OpenError::Golden)));
}

/// The package a later minor version could write: fields appended to the manifest, used header bytes.
#[test]
fn additions_of_later_minors_are_skipped() {
    let bytes = draft().build().unwrap();
    let package = Package::open(&bytes).unwrap();
    let mut sections: Vec<_> = package
        .sections()
        .map(|s| {
            let at = s.offset as usize;
            (s.known().unwrap(), bytes[at..at + s.len as usize].to_vec())
        })
        .collect();
    sections[0].1.extend([3, b'n', b'e', b'w']);
    let mut bytes = crate::writer::container(&sections).unwrap();
    crate::writer::append_seal(&mut bytes, &[]).unwrap();
    assert_eq!(Package::open(&bytes).err(), Some(OpenError::Manifest(ManifestError::Trailing)));
    bytes[10] = 1;
    bytes[24] = 0xAB;
    redigest(&mut bytes);
    let package = Package::open(&bytes).unwrap();
    assert_eq!(package.format_minor(), 1);
    assert_eq!(package.manifest().name, "model");
}

#[test]
fn errors_say_what_to_do() {
    let truncated = OpenError::Truncated { needed: 64, got: 3 };
    assert_eq!(
        truncated.to_string(),
        "package truncated: at least 64 bytes needed, 3 given; copy the whole file or finish the transfer"
    );
    let missing = OpenError::MissingSection { kind: SectionKind::Plan };
    assert!(missing.to_string().contains("plan section"));
}
