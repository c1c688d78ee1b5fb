//! The place for signatures, after the body.

use crate::bytes::{slice_at, u16_at, zero};
use crate::error::OpenError;

/// Code of Ed25519 in [`Signature::algorithm`].
pub const ALGORITHM_ED25519: u8 = 1;
/// Signatures a seal may have.
pub const MAX_SIGNATURES: u16 = 16;

/// The first bytes of a seal.
pub(crate) const SEAL_MAGIC: [u8; 8] = *b"DUNLSEAL";
/// Bytes before the signatures.
pub(crate) const SEAL_HEADER_LEN: usize = 16;
/// Bytes of a signature with its key.
pub(crate) const SIGNATURE_LEN: usize = 80;

/// The signatures of a package, not verified.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    entries: &'a [u8],
}

/// One signature of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Which key signed.
    pub key_id: [u8; 8],
    /// How; 1 is [`ALGORITHM_ED25519`], others are to be ignored.
    pub algorithm: u8,
    /// The signature.
    pub signature: &'a [u8; 64],
}

impl<'a> Seal<'a> {
    /// Length of the whole package, given what follows the body.
    pub(crate) fn measure(seal: &[u8], body_len: usize, got: usize) -> Result<usize, OpenError> {
        let needed = body_len.saturating_add(SEAL_HEADER_LEN);
        let truncated = OpenError::Truncated { needed, got };
        let head = seal.get(..SEAL_HEADER_LEN).ok_or(truncated)?;
        let count = u16_at(head, SEAL_MAGIC.len()).ok_or(truncated)?;
        if !head.starts_with(&SEAL_MAGIC) || count > MAX_SIGNATURES || !zero(head, 10, SEAL_HEADER_LEN) {
            return Err(OpenError::Seal);
        }
        Ok(needed.saturating_add(usize::from(count) * SIGNATURE_LEN))
    }

    pub(crate) fn read(seal: &'a [u8], body_len: usize, got: usize) -> Result<Self, OpenError> {
        let expected = Self::measure(seal, body_len, got)?;
        if got < expected {
            return Err(OpenError::Truncated { needed: expected, got });
        }
        if got > expected {
            return Err(OpenError::TrailingBytes { expected, got });
        }
        let entries = seal.get(SEAL_HEADER_LEN..).ok_or(OpenError::Seal)?;
        for entry in entries.chunks_exact(SIGNATURE_LEN) {
            if !zero(entry, 9, 16) {
                return Err(OpenError::Seal);
            }
        }
        Ok(Self { entries })
    }

    /// Number of signatures.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / SIGNATURE_LEN
    }

    /// Whether nobody signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The signature at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Signature<'a>> {
        let at = index.checked_mul(SIGNATURE_LEN)?;
        Signature::read(slice_at(self.entries, at, SIGNATURE_LEN)?)
    }

    /// The signatures, in the order in which they were added.
    #[must_use]
    pub fn signatures(&self) -> Signatures<'a> {
        Signatures { entries: self.entries }
    }
}

impl<'a> Signature<'a> {
    fn read(entry: &'a [u8]) -> Option<Self> {
        let (key_id, rest) = entry.split_first_chunk()?;
        let (&[algorithm, ..], signature) = rest.split_first_chunk::<8>()?;
        Some(Self { key_id: *key_id, algorithm, signature: signature.first_chunk()? })
    }
}

/// Iterator over the signatures of a [`Seal`].
#[derive(Clone, Debug)]
pub struct Signatures<'a> {
    entries: &'a [u8],
}

impl<'a> Iterator for Signatures<'a> {
    type Item = Signature<'a>;

    fn next(&mut self) -> Option<Signature<'a>> {
        let (entry, rest) = self.entries.split_at_checked(SIGNATURE_LEN)?;
        self.entries = rest;
        Signature::read(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.entries.len() / SIGNATURE_LEN;
        (n, Some(n))
    }
}

impl ExactSizeIterator for Signatures<'_> {}
