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
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(seed)))
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
