//! A package with something in every section.

use dunlin_package::{
    ALGORITHM_ED25519, Builder, DType, EngineVersion, GoldenCase, ManifestDraft, Package, PortDraft, SignatureDraft,
    StepNames,
};

/// The draft of `tests/golden/v1.dunlin`.
pub(crate) fn draft() -> Builder {
    Builder {
        manifest: ManifestDraft {
            name: "sample".into(),
            version: "1.2.3".into(),
            producer: "dunlin-compiler 0.1.0".into(),
            target: "any".into(),
            engine_min: EngineVersion { major: 0, minor: 1 },
            ops_version: 1,
            arena_bytes: 4096,
            scratch_bytes: 512,
            lower_bound_bytes: 3072,
            macs: 123_456_789_012,
            source_digest: core::array::from_fn(|i| i as u8),
            exact: true,
            tolerance: 0.015_625,
            inputs: vec![port("image", DType::U8, &[1, 2, 3, 1]), port("flag", DType::Bool, &[])],
            outputs: vec![PortDraft {
                labels: vec!["background".into(), "Straße".into()],
                ..port("scores", DType::I32, &[1, 2])
            }],
        },
        plan: vec![0; 16],
        weights: (0..70).collect(),
        golden: (1..=2_u8)
            .map(|n| GoldenCase { inputs: vec![vec![n; 6], vec![n & 1]], outputs: vec![vec![n; 8]] })
            .collect(),
        drift: b"drift".to_vec(),
        foreign: vec![b"onnx".to_vec(), b"more onnx".to_vec()],
        tensor_names: vec!["image".into(), "flag".into(), "scores".into()],
        steps: vec![StepNames { name: "conv_0".into(), note: "3x3, fused relu".into() }],
        signatures: vec![SignatureDraft { key_id: *b"testkey1", algorithm: ALGORITHM_ED25519, signature: [0x5A; 64] }],
    }
}

fn port(name: &str, dtype: DType, dims: &[u32]) -> PortDraft {
    PortDraft { name: name.into(), dtype, dims: dims.to_vec(), scale: 0.25, zero_point: -7, labels: vec![] }
}

/// What the package says, as a draft: everything that is in it.
pub(crate) fn redraft(package: &Package<'_>) -> Builder {
    let manifest = package.manifest();
    let ports = |ports: dunlin_package::Ports<'_>| {
        ports
            .map(|port| PortDraft {
                name: port.name.into(),
                dtype: port.dtype,
                dims: port.shape().to_vec(),
                scale: port.scale,
                zero_point: port.zero_point,
                labels: port.labels().map(Into::into).collect(),
            })
            .collect()
    };
    let tensors = |tensors: dunlin_package::GoldenTensors<'_>| tensors.map(|tensor| tensor.data.to_vec()).collect();
    Builder {
        manifest: ManifestDraft {
            name: manifest.name.into(),
            version: manifest.version.into(),
            producer: manifest.producer.into(),
            target: manifest.target.into(),
            engine_min: manifest.engine_min,
            ops_version: manifest.ops_version,
            arena_bytes: manifest.arena_bytes,
            scratch_bytes: manifest.scratch_bytes,
            lower_bound_bytes: manifest.lower_bound_bytes,
            macs: manifest.macs,
            source_digest: manifest.source_digest,
            exact: manifest.exact,
            tolerance: manifest.tolerance,
            inputs: ports(manifest.inputs()),
            outputs: ports(manifest.outputs()),
        },
        plan: package.plan_bytes().to_vec(),
        weights: package.weights().to_vec(),
        golden: package
            .golden()
            .into_iter()
            .flat_map(|golden| golden.cases())
            .map(|case| GoldenCase { inputs: tensors(case.inputs()), outputs: tensors(case.outputs()) })
            .collect(),
        drift: package.drift().unwrap_or_default().to_vec(),
        foreign: package.foreign().into_iter().flat_map(|foreign| foreign.blobs()).map(<[u8]>::to_vec).collect(),
        tensor_names: package
            .names()
            .map_or(vec![], |names| (0..names.tensor_count()).map(|i| names.tensor(i).unwrap().into()).collect()),
        steps: package.names().map_or(vec![], |names| {
            (0..names.step_count())
                .map(|i| StepNames { name: names.step(i).unwrap().into(), note: names.note(i).unwrap().into() })
                .collect()
        }),
        signatures: package.seal().signatures().map(Into::into).collect(),
    }
}
