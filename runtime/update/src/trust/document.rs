//! The envelope of signed documents.

use super::{PublicKey, Role, RoleKeys, RootKeys, TrustError, Verifier, key_id};

/// Bytes that a document may have.
pub const MAX_DOCUMENT: usize = 2048;
/// Signatures that a document may carry.
pub const MAX_SIGNATURES: usize = 16;
/// Bytes of a signature with its key and role.
pub const SIGNATURE_LEN: usize = 80;

const MAGIC: [u8; 4] = *b"DNSG";
const VERSION: u8 = 1;
const HEAD_LEN: usize = 8;
/// Before every signed message, so that a signature means nothing elsewhere; the last two bytes are the roles.
const DOMAIN: [u8; 18] = *b"dunlin-signed-1\0\0\0";
const ED25519: u8 = 1;

/// What is signed before a document's payload: the domain, the document's role and the role that the key signs in.
#[must_use]
pub fn message_head(document: Role, signer: Role) -> [u8; 18] {
    let mut head = DOMAIN;
    let [.., of_document, of_signer] = &mut head;
    (*of_document, *of_signer) = (document as u8, signer as u8);
    head
}

/// What a document may say: root keys, a release or a rollout.
pub trait Payload<'a>: Sized {
    /// Takes the fields from the beginning of the bytes; `None` when they are not there.
    fn read(bytes: &mut &'a [u8]) -> Option<Self>;
}

/// A document whose signatures are not yet checked.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    role: Role,
    signatures: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Document<'a> {
    /// Reads the framing.
    ///
    /// # Errors
    /// When it is broken, or the document is another role's.
    #[inline(never)]
    pub fn read(bytes: &'a [u8], expected: Role) -> Result<Self, TrustError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(TrustError::TooLong);
        }
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>().ok_or(TrustError::Malformed)?;
        let &[a, b, c, d, version, role, count, reserved] = head;
        if [a, b, c, d] != MAGIC || version != VERSION || reserved != 0 || usize::from(count) > MAX_SIGNATURES {
            return Err(TrustError::Malformed);
        }
        if role != expected as u8 {
            return Err(TrustError::Document { expected });
        }
        let (signatures, payload) =
            rest.split_at_checked(usize::from(count) * SIGNATURE_LEN).ok_or(TrustError::Malformed)?;
        let document = Self { role: expected, signatures, payload };
        // Bytes that nothing reads are bytes in which nothing may be hidden.
        let clean = document.signatures().all(|s| *s.reserved == [0; 6] && s.algorithm == ED25519);
        if clean { Ok(document) } else { Err(TrustError::Malformed) }
    }

    fn signatures(&self) -> impl Iterator<Item = Signature<'a>> {
        self.signatures.chunks_exact(SIGNATURE_LEN).filter_map(Signature::read)
    }

    /// Checks that enough different keys of a role signed it in that role.
    ///
    /// # Errors
    /// [`TrustError::Threshold`].
    #[inline(never)]
    pub fn check<V: Verifier>(&self, root: &RootKeys, role: Role, verifier: &V) -> Result<(), TrustError> {
        let RoleKeys { threshold, keys } = root.role(role);
        let head = message_head(self.role, role);
        let mut valid = 0;
        for (i, key) in root.keys.iter().take(usize::from(root.count)).enumerate() {
            if keys >> i & 1 == 1 && self.is_signed_by(key, role, &[&head, self.payload], verifier) {
                valid += 1;
            }
        }
        if threshold > 0 && valid >= threshold {
            return Ok(());
        }
        Err(TrustError::Threshold { role, valid, needed: threshold })
    }

    fn is_signed_by<V: Verifier>(&self, key: &PublicKey, role: Role, message: &[&[u8]], verifier: &V) -> bool {
        let id = key_id(key);
        let mut own = self.signatures().filter(|s| *s.key == id && s.role == role as u8);
        own.any(|s| verifier.verify(key, message, s.bytes))
    }

    /// The payload's fields; nothing may follow them.
    ///
    /// # Errors
    /// [`TrustError::Malformed`].
    #[inline(never)]
    pub fn decode<T: Payload<'a>>(&self) -> Result<T, TrustError> {
        let mut rest = self.payload;
        T::read(&mut rest).filter(|_| rest.is_empty()).ok_or(TrustError::Malformed)
    }

    /// What is signed, after [`message_head`].
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Keys that claim to have signed, with the number of the role they signed in.
    pub fn signers(&self) -> impl Iterator<Item = (super::KeyId, u8)> + use<'a> {
        self.signatures.chunks_exact(SIGNATURE_LEN).filter_map(Signature::read).map(|s| (*s.key, s.role))
    }
}

struct Signature<'a> {
    key: &'a super::KeyId,
    algorithm: u8,
    role: u8,
    reserved: &'a [u8; 6],
    bytes: &'a [u8; 64],
}

impl<'a> Signature<'a> {
    fn read(entry: &'a [u8]) -> Option<Self> {
        let (key, rest) = entry.split_first_chunk()?;
        let (&[algorithm, role], rest) = rest.split_first_chunk()?;
        let (reserved, rest) = rest.split_first_chunk()?;
        Some(Self { key, algorithm, role, reserved, bytes: rest.first_chunk()? })
    }
}
