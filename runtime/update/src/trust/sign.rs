//! The other side: keys that sign, and documents that are signed.

use std::fmt;
use std::vec::Vec;

use serde::Serialize;

use super::{MAX_DOCUMENT, MAX_SIGNATURES, PublicKey, Role, key_id, message_head};

/// A key that signs. It is shown to nobody: `Debug` prints the public half.
#[derive(Clone)]
pub struct SecretKey(ed25519_compact::KeyPair);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&key_id(&self.public())).finish()
    }
}

impl SecretKey {
    /// The key of a seed, which has to be 32 random bytes.
    ///
    /// # Errors
    /// [`SeedError`] when they are all zero, as those of a file that was never written are.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, SeedError> {
        let pair = ed25519_compact::KeyPair::try_from_seed(ed25519_compact::Seed::new(seed));
        pair.map(Self).map_err(|_| SeedError)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        *self.0.pk
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        *self.0.sk.sign(message, None)
    }

    /// The signature of bytes that are no document, as requests to a server are. They have to begin with a domain of
    /// their own.
    #[must_use]
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.sign(message)
    }
}

/// A seed of zeros, which anybody could guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedError;

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key's seed is nothing but zeros: take 32 random bytes, or restore the key's file")
    }
}

impl std::error::Error for SeedError {}

/// Why a document cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// It would have more than [`MAX_DOCUMENT`] bytes.
    TooLong,
    /// It would have more than [`MAX_SIGNATURES`] signatures.
    TooManySignatures,
    /// The bytes are no document.
    Malformed,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the document would have more than {MAX_DOCUMENT} bytes"),
            Self::TooManySignatures => write!(f, "a document has at most {MAX_SIGNATURES} signatures"),
            Self::Malformed => f.write_str("these bytes are no signed document"),
        }
    }
}

impl std::error::Error for SignError {}

/// A document without signatures.
///
/// # Errors
/// [`SignError::TooLong`].
pub fn envelope<T: Serialize>(role: Role, fields: &T) -> Result<Vec<u8>, SignError> {
    let mut bytes = b"DNSG".to_vec();
    bytes.extend([1, role as u8, 0, 0]);
    let bytes = postcard::to_extend(fields, bytes).map_err(|_| SignError::TooLong)?;
    if bytes.len() > MAX_DOCUMENT { Err(SignError::TooLong) } else { Ok(bytes) }
}

/// Adds a key's signature in a role to a document; one that the key has there already is replaced.
///
/// # Errors
/// When the bytes are no document, or there is no room.
pub fn sign(document: &[u8], role: Role, key: &SecretKey) -> Result<Vec<u8>, SignError> {
    let kind = document.get(5).and_then(|&n| Role::ALL.get(usize::from(n))).ok_or(SignError::Malformed)?;
    let read = super::Document::read(document, *kind).map_err(|_| SignError::Malformed)?;
    let id = key_id(&key.public());
    let payload = read.payload();
    let end = document.len() - payload.len();
    let kept = document.get(8..end).ok_or(SignError::Malformed)?.chunks_exact(super::SIGNATURE_LEN);
    let mut signatures: Vec<&[u8]> =
        kept.filter(|s| !(s.starts_with(&id) && s.get(9) == Some(&(role as u8)))).collect();
    let message = [&message_head(*kind, role)[..], payload].concat();
    let mut own = id.to_vec();
    own.extend([1, role as u8, 0, 0, 0, 0, 0, 0]);
    own.extend(key.sign(&message));
    signatures.push(&own);
    if signatures.len() > MAX_SIGNATURES {
        return Err(SignError::TooManySignatures);
    }
    let mut bytes = b"DNSG".to_vec();
    bytes.extend([1, *kind as u8, signatures.len() as u8, 0]);
    signatures.iter().for_each(|s| bytes.extend(*s));
    bytes.extend(payload);
    if bytes.len() > MAX_DOCUMENT { Err(SignError::TooLong) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_no_seed() {
        assert_eq!(SecretKey::from_seed([0; 32]).err(), Some(SeedError));
        assert!(SeedError.to_string().contains("nothing but zeros"));
        // RFC 8032, section 7.1, test 1.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = SecretKey::from_seed(seed).expect("a seed").public();
        assert_eq!(public[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }
}
