//! SHA-256, in one place, so that it is compiled once.

use sha2::{Digest, Sha256};

/// A hash under way.
pub(crate) struct Hash(Sha256);

impl Hash {
    #[inline(never)]
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    #[inline(never)]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    #[inline(never)]
    pub(crate) fn finish(&mut self) -> [u8; 32] {
        self.0.finalize_reset().into()
    }

    /// The hash of parts, one after the other.
    #[inline(never)]
    pub(crate) fn of(parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Self::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finish()
    }
}
