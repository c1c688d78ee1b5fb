//! For all bytes, and for all drafts.

use dunlin_package::{
    Builder, DType, EngineVersion, GoldenCase, ManifestDraft, Package, PortDraft, SignatureDraft, StepNames,
    compute_digest,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample;

/// Opens and walks; whatever is opened can be walked and written again.
fn probe(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(package) = Package::open(bytes) {
        let again = sample::redraft(&package);
        prop_assert_eq!(again.golden.len(), package.golden().map_or(0, |g| g.len()));
        prop_assert_eq!(again.foreign.len(), package.foreign().map_or(0, |f| f.len()));
        prop_assert_eq!(again.signatures.len(), package.seal().len());
    }
    let unverified = Package::open_unverified(bytes).is_ok();
    prop_assert!(unverified || Package::open(bytes).is_err());
    Ok(())
}

fn name() -> impl Strategy<Value = String> {
    "[a-zß/:0-9]{0,12}"
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn port() -> impl Strategy<Value = PortDraft> {
    let quantization = (0.0..10.0_f32, any::<i32>());
    (name(), 0..DType::ALL.len(), vec(1..4_u32, 0..=6), quantization, vec(name(), 0..3)).prop_map(
        |(name, dtype, dims, (scale, zero_point), labels)| PortDraft {
            name,
            dtype: DType::ALL[dtype],
            dims,
            scale,
            zero_point,
            labels,
        },
    )
}

fn manifest() -> impl Strategy<Value = ManifestDraft> {
    (
        (name(), name(), name(), name()),
        any::<[u16; 3]>(),
        any::<[u32; 3]>(),
        any::<(u64, [u8; 32], bool)>(),
        0.0..1.0_f32,
        vec(port(), 0..4),
        vec(port(), 0..4),
    )
        .prop_map(|(texts, versions, sizes, facts, tolerance, inputs, outputs)| {
            let (name, version, producer, target) = texts;
            let [major, minor, ops_version] = versions;
            let [arena_bytes, scratch_bytes, lower_bound_bytes] = sizes;
            let (macs, source_digest, exact) = facts;
            ManifestDraft {
                name,
                version,
                producer,
                target,
                engine_min: EngineVersion { major, minor },
                ops_version,
                arena_bytes,
                scratch_bytes,
                lower_bound_bytes,
                macs,
                source_digest,
                exact,
                tolerance,
                inputs,
                outputs,
            }
        })
}

fn signature() -> impl Strategy<Value = SignatureDraft> {
    any::<([u8; 8], u8, [u8; 32], [u8; 32])>().prop_map(|(key_id, algorithm, low, high)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&low);
        signature[32..].copy_from_slice(&high);
        SignatureDraft { key_id, algorithm, signature }
    })
}

fn draft() -> impl Strategy<Value = Builder> {
    let step = (name(), name()).prop_map(|(name, note)| StepNames { name, note });
    (
        manifest(),
        bytes(100),
        bytes(200),
        0..3_u8,
        bytes(40),
        vec(bytes(50), 0..4),
        vec(name(), 0..5),
        vec(step, 0..5),
        vec(signature(), 0..3),
    )
        .prop_map(|(manifest, plan, weights, cases, drift, foreign, tensor_names, steps, signatures)| {
            let data = |ports: &[PortDraft], case| {
                let len = |port: &PortDraft| port.dims.iter().product::<u32>() as usize * port.dtype.size_bytes();
                ports.iter().map(|port| vec![case; len(port)]).collect()
            };
            let golden = (0..cases)
                .map(|case| GoldenCase {
                    inputs: data(&manifest.inputs, case),
                    outputs: data(&manifest.outputs, case + 1),
                })
                .collect();
            Builder { manifest, plan, weights, golden, drift, foreign, tensor_names, steps, signatures }
        })
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..400)) {
        probe(&bytes)?;
    }

    #[test]
    fn any_body_is_answered(
        mut changes in vec((0..832_usize, any::<u8>()), 1..6),
        len in 400..1200_usize,
    ) {
        let mut bytes = sample::draft().build().unwrap();
        bytes.truncate(len);
        for (at, value) in changes.drain(..) {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        probe(&bytes)?;
        // Behind the digest.
        if let Ok(digest) = compute_digest(&bytes) {
            bytes[32..64].copy_from_slice(&digest);
            probe(&bytes)?;
        }
    }

    #[test]
    fn what_is_written_is_read(draft in draft()) {
        let bytes = draft.build().unwrap();
        prop_assert_eq!(&bytes, &draft.build().unwrap());
        let package = Package::open(&bytes).unwrap();
        let read = sample::redraft(&package);
        prop_assert_eq!(&read, &draft);
        prop_assert_eq!(read.build().unwrap(), bytes);
    }
}
