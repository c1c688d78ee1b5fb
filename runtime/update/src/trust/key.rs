//! Public keys and how signatures are verified.

use dunlin_package::Hash;

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];
/// The first 8 bytes of the SHA-256 of a public key.
pub type KeyId = [u8; 8];

/// What names a key in a document.
#[must_use]
pub fn key_id(key: &PublicKey) -> KeyId {
    let hash = Hash::of(&[key]);
    let mut id = [0; 8];
    id.iter_mut().zip(hash.iter()).for_each(|(to, from)| *to = *from);
    id
}

/// Verifies signatures: in software, or in a chip's own unit.
pub trait Verifier {
    /// Whether `signature` is the key's over the parts of a message, one after the other.
    fn verify(&self, key: &PublicKey, message: &[&[u8]], signature: &[u8; 64]) -> bool;
}

/// Ed25519 in software, as strict as signatures can be judged: `S` below the order, points in their canonical encoding
/// and not of small order, no cofactor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl Verifier for Ed25519 {
    fn verify(&self, key: &PublicKey, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        super::ed25519::verify(key, message, signature)
    }
}
