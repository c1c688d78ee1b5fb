//! Writes packages; the same draft gives the same bytes.

mod draft;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use draft::{Builder, GoldenCase, ManifestDraft, PortDraft, SignatureDraft, StepNames};

use crate::container::{
    BODY_LEN_AT, CRITICAL, DIGEST_AT, ENTRY_LEN, FORMAT_MAJOR, FORMAT_MINOR, HEADER_LEN, MAGIC, MIN_ALIGN_LOG2,
    SectionKind, WEIGHTS_ALIGN_LOG2,
};
use crate::error::OpenError;
use crate::foreign::{FOREIGN_ALIGN, FOREIGN_ENTRY_LEN, FOREIGN_HEADER_LEN};
use crate::manifest::{Manifest, Port};
use crate::package::{Package, compute_digest};
use crate::plan::MAX_RANK;
use crate::seal::{SEAL_MAGIC, Signature};

/// Why a package cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A length or count does not fit in its field.
    TooLarge,
    /// A port has more than six axes.
    Rank,
    /// A golden case does not have a tensor for every input and output.
    GoldenPorts,
    /// The manifest cannot be encoded.
    Encoding,
    /// The package to be changed has parts of a later version, which would be lost.
    LaterVersion,
    /// The reader would refuse what was written.
    Invalid(OpenError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("a part of the package is too large for the format"),
            Self::Rank => write!(f, "an input or output has more than {MAX_RANK} axes"),
            Self::GoldenPorts => f.write_str("a golden case needs one tensor for every input and every output"),
            Self::Encoding => f.write_str("the manifest cannot be encoded"),
            Self::LaterVersion => f.write_str("the package has parts of a later version of the format"),
            Self::Invalid(error) => write!(f, "the package would not open: {error}"),
        }
    }
}

impl core::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Invalid(error) => Some(error),
            _ => None,
        }
    }
}

impl Builder {
    /// Writes the package, and opens it to be sure.
    ///
    /// # Errors
    ///
    /// If something does not fit in its field, or the reader would refuse the package.
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        let mut sections = Vec::new();
        sections.push((SectionKind::Manifest, self.manifest_bytes()?));
        sections.push((SectionKind::Plan, self.plan.clone()));
        if !self.weights.is_empty() {
            sections.push((SectionKind::Weights, self.weights.clone()));
        }
        if !self.golden.is_empty() {
            sections.push((SectionKind::Golden, self.golden_bytes()?));
        }
        if !self.drift.is_empty() {
            sections.push((SectionKind::Drift, self.drift.clone()));
        }
        if !self.foreign.is_empty() {
            sections.push((SectionKind::Foreign, self.foreign_bytes()?));
        }
        if !(self.tensor_names.is_empty() && self.steps.is_empty()) {
            sections.push((SectionKind::Names, self.names_bytes()?));
        }
        let mut out = container(&sections)?;
        append_seal(&mut out, &self.signatures)?;
        Package::open(&out).map_err(BuildError::Invalid)?;
        Ok(out)
    }

    fn manifest_bytes(&self) -> Result<Vec<u8>, BuildError> {
        let draft = &self.manifest;
        let inputs = ports(&draft.inputs)?;
        let outputs = ports(&draft.outputs)?;
        let manifest = Manifest {
            name: &draft.name,
            version: &draft.version,
            producer: &draft.producer,
            target: &draft.target,
            engine_min: draft.engine_min,
            ops_version: draft.ops_version,
            arena_bytes: draft.arena_bytes,
            scratch_bytes: draft.scratch_bytes,
            weight_bytes: len32(self.weights.len())?,
            lower_bound_bytes: draft.lower_bound_bytes,
            macs: draft.macs,
            source_digest: draft.source_digest,
            exact: draft.exact,
            tolerance: draft.tolerance,
            input_count: len16(draft.inputs.len())?,
            inputs: &inputs,
            output_count: len16(draft.outputs.len())?,
            outputs: &outputs,
        };
        encode(&manifest)
    }

    fn golden_bytes(&self) -> Result<Vec<u8>, BuildError> {
        let mut out = Vec::new();
        put32(&mut out, len32(self.golden.len())?);
        put32(&mut out, 0);
        for case in &self.golden {
            let sides = [(&case.inputs, &self.manifest.inputs), (&case.outputs, &self.manifest.outputs)];
            for (tensors, ports) in sides {
                if tensors.len() != ports.len() {
                    return Err(BuildError::GoldenPorts);
                }
                put16(&mut out, len16(tensors.len())?);
            }
            for (tensors, ports) in sides {
                for (index, (data, port)) in tensors.iter().zip(ports).enumerate() {
                    put16(&mut out, len16(index)?);
                    out.extend([port.dtype.code(), 0]);
                    put32(&mut out, len32(data.len())?);
                    out.extend(data);
                    pad(&mut out, 4);
                }
            }
        }
        Ok(out)
    }

    fn foreign_bytes(&self) -> Result<Vec<u8>, BuildError> {
        let mut out = Vec::new();
        put32(&mut out, len32(self.foreign.len())?);
        put32(&mut out, 0);
        let mut end = FOREIGN_HEADER_LEN + FOREIGN_ENTRY_LEN * self.foreign.len();
        for blob in &self.foreign {
            let start = end.next_multiple_of(FOREIGN_ALIGN);
            put32(&mut out, len32(start)?);
            put32(&mut out, len32(blob.len())?);
            end = start + blob.len();
        }
        for blob in &self.foreign {
            pad(&mut out, FOREIGN_ALIGN);
            out.extend(blob);
        }
        Ok(out)
    }

    fn names_bytes(&self) -> Result<Vec<u8>, BuildError> {
        let steps = self.steps.iter().flat_map(|step| [&step.name, &step.note]);
        let strings: Vec<&String> = self.tensor_names.iter().chain(steps).collect();
        let text: usize = strings.iter().map(|string| string.len()).sum();
        let mut out = Vec::new();
        put32(&mut out, len32(self.tensor_names.len())?);
        put32(&mut out, len32(self.steps.len())?);
        put32(&mut out, len32(text)?);
        put32(&mut out, 0);
        let mut end = 0;
        put32(&mut out, 0);
        for string in &strings {
            end += string.len();
            put32(&mut out, len32(end)?);
        }
        for string in strings {
            out.extend(string.as_bytes());
        }
        Ok(out)
    }
}

/// The package with these signatures after those it has; the digest stays.
///
/// # Errors
///
/// If the package does not open, or has too many signatures.
pub fn with_signatures(package: &[u8], more: &[SignatureDraft]) -> Result<Vec<u8>, BuildError> {
    let opened = Package::open(package).map_err(BuildError::Invalid)?;
    let mut signatures: Vec<SignatureDraft> = opened.seal().signatures().map(SignatureDraft::from).collect();
    signatures.extend_from_slice(more);
    let mut out = opened.body().to_vec();
    append_seal(&mut out, &signatures)?;
    Package::open(&out).map_err(BuildError::Invalid)?;
    Ok(out)
}

/// The package with this drift section in the place of the one it has, if any; an empty one leaves the section out.
///
/// The digest changes, so the signatures of the old package are left out.
///
/// # Errors
///
/// If the package does not open, or a later version of the format wrote it.
pub fn with_drift(package: &[u8], drift: &[u8]) -> Result<Vec<u8>, BuildError> {
    let opened = Package::open(package).map_err(BuildError::Invalid)?;
    if opened.format_minor() > FORMAT_MINOR {
        return Err(BuildError::LaterVersion);
    }
    let mut sections = Vec::new();
    for section in opened.sections() {
        let kind = section.known().ok_or(BuildError::LaterVersion)?;
        let content = opened.body().get(section.offset as usize..).and_then(|rest| rest.get(..section.len as usize));
        let content = content.unwrap_or_default();
        if kind != SectionKind::Drift {
            sections.push((kind, content.to_vec()));
        }
    }
    if !drift.is_empty() {
        sections.push((SectionKind::Drift, drift.to_vec()));
    }
    sections.sort_by_key(|(kind, _)| kind.code());
    let mut out = container(&sections)?;
    append_seal(&mut out, &[])?;
    Package::open(&out).map_err(BuildError::Invalid)?;
    Ok(out)
}

impl From<Signature<'_>> for SignatureDraft {
    fn from(signature: Signature<'_>) -> Self {
        Self { key_id: signature.key_id, algorithm: signature.algorithm, signature: *signature.signature }
    }
}

/// The body: header, table and sections.
pub(crate) fn container(sections: &[(SectionKind, Vec<u8>)]) -> Result<Vec<u8>, BuildError> {
    let mut out = Vec::new();
    out.extend(MAGIC);
    put16(&mut out, FORMAT_MAJOR);
    put16(&mut out, FORMAT_MINOR);
    put16(&mut out, len16(HEADER_LEN)?);
    put16(&mut out, len16(sections.len())?);
    out.resize(HEADER_LEN, 0);
    let mut end = HEADER_LEN + ENTRY_LEN * sections.len();
    for (kind, content) in sections {
        let start = end.next_multiple_of(1 << align_log2(*kind));
        put16(&mut out, kind.code());
        put16(&mut out, if critical(*kind) { CRITICAL } else { 0 });
        put32(&mut out, len32(start)?);
        put32(&mut out, len32(content.len())?);
        out.extend([align_log2(*kind), 0, 0, 0]);
        end = start + content.len();
    }
    for (kind, content) in sections {
        pad(&mut out, 1 << align_log2(*kind));
        out.extend(content);
    }
    pad(&mut out, 16);
    let len = len32(out.len())?;
    patch(&mut out, BODY_LEN_AT, &len.to_le_bytes());
    let digest = compute_digest(&out).map_err(BuildError::Invalid)?;
    patch(&mut out, DIGEST_AT, &digest);
    Ok(out)
}

/// Appends the seal to a body.
pub(crate) fn append_seal(out: &mut Vec<u8>, signatures: &[SignatureDraft]) -> Result<(), BuildError> {
    out.extend(SEAL_MAGIC);
    put16(out, len16(signatures.len())?);
    out.extend([0; 6]);
    for signature in signatures {
        out.extend(signature.key_id);
        out.extend([signature.algorithm, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(signature.signature);
    }
    Ok(())
}

fn ports(drafts: &[PortDraft]) -> Result<Vec<u8>, BuildError> {
    let mut out = Vec::new();
    for draft in drafts {
        let mut dims = [1; MAX_RANK];
        let used = dims.get_mut(..draft.dims.len()).ok_or(BuildError::Rank)?;
        used.copy_from_slice(&draft.dims);
        let mut labels = Vec::new();
        for label in &draft.labels {
            labels.extend(encode(label)?);
        }
        let port = Port {
            name: &draft.name,
            dtype: draft.dtype,
            rank: u8::try_from(draft.dims.len()).map_err(|_| BuildError::Rank)?,
            dims,
            scale: draft.scale,
            zero_point: draft.zero_point,
            label_count: len16(draft.labels.len())?,
            labels: &labels,
        };
        let record = port.encode().map_err(|_| BuildError::Encoding)?;
        out.extend(encode(&record)?);
    }
    Ok(out)
}

const fn align_log2(kind: SectionKind) -> u8 {
    match kind {
        SectionKind::Weights => WEIGHTS_ALIGN_LOG2,
        _ => MIN_ALIGN_LOG2,
    }
}

/// Without these the model does not run, or runs wrongly.
const fn critical(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::Manifest | SectionKind::Plan | SectionKind::Weights | SectionKind::Foreign)
}

fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BuildError> {
    postcard::to_allocvec(value).map_err(|_| BuildError::Encoding)
}

fn len16(n: usize) -> Result<u16, BuildError> {
    u16::try_from(n).map_err(|_| BuildError::TooLarge)
}

fn len32(n: usize) -> Result<u32, BuildError> {
    u32::try_from(n).map_err(|_| BuildError::TooLarge)
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_le_bytes());
}

fn pad(out: &mut Vec<u8>, align: usize) {
    out.resize(out.len().next_multiple_of(align), 0);
}

fn patch(out: &mut [u8], at: usize, value: &[u8]) {
    for (byte, &new) in out.iter_mut().skip(at).zip(value) {
        *byte = new;
    }
}
