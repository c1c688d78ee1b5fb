//! What a package is written from.

use alloc::string::String;
use alloc::vec::Vec;

use crate::DType;
use crate::manifest::EngineVersion;

/// Everything that goes into a package. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Builder {
    /// What the model is and needs.
    pub manifest: ManifestDraft,
    /// The plan, encoded.
    pub plan: Vec<u8>,
    /// The constant tensors; their length goes into the manifest.
    pub weights: Vec<u8>,
    /// Golden vectors.
    pub golden: Vec<GoldenCase>,
    /// Statistics of the training inputs.
    pub drift: Vec<u8>,
    /// ONNX subgraphs that another executor runs.
    pub foreign: Vec<Vec<u8>>,
    /// Names of the plan's tensors, in order.
    pub tensor_names: Vec<String>,
    /// Names of the plan's steps, in order.
    pub steps: Vec<StepNames>,
    /// Signatures, if they are known already; they do not change the digest.
    pub signatures: Vec<SignatureDraft>,
}

/// The manifest, owned; see [`Manifest`](crate::Manifest) for the fields.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "documented at Manifest")]
pub struct ManifestDraft {
    pub name: String,
    pub version: String,
    pub producer: String,
    pub target: String,
    pub engine_min: EngineVersion,
    pub ops_version: u16,
    pub arena_bytes: u32,
    pub scratch_bytes: u32,
    pub lower_bound_bytes: u32,
    pub macs: u64,
    pub source_digest: [u8; 32],
    pub exact: bool,
    pub tolerance: f32,
    pub inputs: Vec<PortDraft>,
    pub outputs: Vec<PortDraft>,
}

impl Default for ManifestDraft {
    /// Nothing, for any target.
    fn default() -> Self {
        Self {
            name: String::new(),
            version: String::new(),
            producer: String::new(),
            target: String::from("any"),
            engine_min: EngineVersion::default(),
            ops_version: 0,
            arena_bytes: 0,
            scratch_bytes: 0,
            lower_bound_bytes: 0,
            macs: 0,
            source_digest: [0; 32],
            exact: false,
            tolerance: 0.0,
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

/// An input or output, owned; see [`Port`](crate::Port).
#[derive(Clone, Debug, PartialEq)]
pub struct PortDraft {
    /// Name.
    pub name: String,
    /// Type of an element.
    pub dtype: DType,
    /// Extents, at most six, none 0.
    pub dims: Vec<u32>,
    /// Value of one step, 0 where it is not quantized.
    pub scale: f32,
    /// The integer that means zero.
    pub zero_point: i32,
    /// Names of the classes, if any.
    pub labels: Vec<String>,
}

/// One golden case: for every input and output, in order, its bytes. Types are those of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoldenCase {
    /// Data of the inputs, little endian.
    pub inputs: Vec<Vec<u8>>,
    /// Data of the outputs, little endian.
    pub outputs: Vec<Vec<u8>>,
}

/// What a step is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepNames {
    /// Name.
    pub name: String,
    /// What the compiler says about it; may be empty.
    pub note: String,
}

/// A signature, owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureDraft {
    /// Which key signed.
    pub key_id: [u8; 8],
    /// How, see [`ALGORITHM_ED25519`](crate::ALGORITHM_ED25519).
    pub algorithm: u8,
    /// The signature.
    pub signature: [u8; 64],
}
