//! A package, opened.

#[cfg(all(test, feature = "alloc"))]
mod tests;

use crate::container::{DIGEST_AT, Frame, HEADER_LEN, SectionKind, Sections};
use crate::error::{ManifestError, OpenError};
use crate::foreign::Foreign;
use crate::golden::Golden;
use crate::hash::Hash;
use crate::manifest::Manifest;
use crate::names::Names;
use crate::seal::Seal;

/// A package whose framing and contents are sound, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    frame: Frame<'a>,
    manifest: Manifest<'a>,
    plan: &'a [u8],
    golden: Option<Golden<'a>>,
    foreign: Option<Foreign<'a>>,
    names: Option<Names<'a>>,
}

/// The digest that a package with this body must have.
///
/// SHA-256 over the body without the 32 bytes in which the header keeps the digest.
fn digest_of(body: &[u8]) -> [u8; 32] {
    Hash::of(&[body.get(..DIGEST_AT).unwrap_or(body), body.get(HEADER_LEN..).unwrap_or(&[])])
}

/// The digest of the package's body as it is, whatever the header says.
///
/// # Errors
///
/// If the header is not that of a package, or the body is not all there.
pub fn compute_digest(bytes: &[u8]) -> Result<[u8; 32], OpenError> {
    let needed = crate::container::body_len(bytes)?;
    let got = bytes.len();
    let body = bytes.get(..needed).ok_or(OpenError::Truncated { needed, got })?;
    Ok(digest_of(body))
}

impl<'a> Package<'a> {
    /// Opens a package: framing, bounds, version, padding, digest, and all contents but the plan and the drift
    /// statistics, which their readers check.
    ///
    /// The bytes must be exactly the package; [`total_len`](crate::total_len) measures one in a longer slot.
    ///
    /// # Errors
    ///
    /// What is wrong, see [`OpenError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, OpenError> {
        let frame = Frame::read(bytes)?;
        if digest_of(frame.body) != frame.digest {
            return Err(OpenError::Digest);
        }
        Self::from_frame(frame)
    }

    /// Opens a package whose digest was or will be checked elsewhere, as a boot loader does. All else is checked.
    ///
    /// # Errors
    ///
    /// What is wrong, see [`OpenError`]; never [`OpenError::Digest`].
    pub fn open_unverified(bytes: &'a [u8]) -> Result<Self, OpenError> {
        Self::from_frame(Frame::read(bytes)?)
    }

    fn from_frame(frame: Frame<'a>) -> Result<Self, OpenError> {
        let manifest = frame.required(SectionKind::Manifest)?;
        let plan = frame.required(SectionKind::Plan)?;
        let manifest = Manifest::read(manifest, frame.later_minor())?;
        let weights = frame.section(SectionKind::Weights).unwrap_or(&[]);
        if usize::try_from(manifest.weight_bytes) != Ok(weights.len()) {
            return Err(ManifestError::WeightBytes.into());
        }
        let golden = frame
            .section(SectionKind::Golden)
            .map(|bytes| Golden::read(bytes, &manifest).ok_or(OpenError::Golden))
            .transpose()?;
        let foreign = frame
            .section(SectionKind::Foreign)
            .map(|bytes| Foreign::read(bytes).ok_or(OpenError::Foreign))
            .transpose()?;
        let names =
            frame.section(SectionKind::Names).map(|bytes| Names::read(bytes).ok_or(OpenError::Names)).transpose()?;
        Ok(Self { frame, manifest, plan, golden, foreign, names })
    }

    /// Checks the digest of a package opened without.
    ///
    /// # Errors
    ///
    /// [`OpenError::Digest`] if the body is not what the digest says.
    pub fn verify_digest(&self) -> Result<(), OpenError> {
        if digest_of(self.frame.body) == self.frame.digest { Ok(()) } else { Err(OpenError::Digest) }
    }

    /// The digest in the header: what identifies the package, and what a signature signs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.frame.digest
    }

    /// Minor version of the format that wrote the package.
    #[must_use]
    pub fn format_minor(&self) -> u16 {
        self.frame.minor
    }

    /// All but the seal.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.frame.body
    }

    /// The section table, also of sections that this version does not know.
    #[must_use]
    pub fn sections(&self) -> Sections<'a> {
        self.frame.sections()
    }

    /// What the model is and needs.
    #[must_use]
    pub fn manifest(&self) -> &Manifest<'a> {
        &self.manifest
    }

    /// The plan, for [`Plan::read`](crate::plan::Plan::read).
    #[must_use]
    pub fn plan_bytes(&self) -> &'a [u8] {
        self.plan
    }

    /// The constant tensors; empty if the model has none. At a multiple of 64 from the start of the file.
    #[must_use]
    pub fn weights(&self) -> &'a [u8] {
        self.frame.section(SectionKind::Weights).unwrap_or(&[])
    }

    /// The golden vectors.
    #[must_use]
    pub fn golden(&self) -> Option<Golden<'a>> {
        self.golden
    }

    /// The statistics of the training inputs, as bytes.
    #[must_use]
    pub fn drift(&self) -> Option<&'a [u8]> {
        self.frame.section(SectionKind::Drift)
    }

    /// The subgraphs that another executor runs.
    #[must_use]
    pub fn foreign(&self) -> Option<Foreign<'a>> {
        self.foreign
    }

    /// The names of tensors and steps.
    #[must_use]
    pub fn names(&self) -> Option<Names<'a>> {
        self.names
    }

    /// The signatures, not verified.
    #[must_use]
    pub fn seal(&self) -> Seal<'a> {
        self.frame.seal
    }

    /// Whether the bytes are in memory at a multiple of `align`, a power of two, so that sections aligned in the
    /// file are aligned in memory. [`Aligned`](crate::Aligned) sees to it.
    #[must_use]
    pub fn is_aligned_to(&self, align: usize) -> bool {
        align.is_power_of_two() && (self.frame.body.as_ptr() as usize).is_multiple_of(align)
    }
}
