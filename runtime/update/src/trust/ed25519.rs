//! Verification of Ed25519 signatures (RFC 8032), in little flash and little stack.
//!
//! There are no secrets here, so nothing takes care to take the same time: this must never sign. Of a few strictnesses
//! that implementations differ in (Chalkias, Garillot, Nikolaenko, *Taming the many EdDSAs*, 2020) this takes all: a
//! signature (R, S) by key A is valid when
//!
//! 1. S is less than the order of the base point;
//! 2. A is the canonical encoding of a point, and its order is not small;
//! 3. R is, byte by byte, the canonical encoding of `S B - k A` without a cofactor, where `k` is SHA-512 over R, A and
//!    the message, modulo the order; and its order is not small.
//!
//! So no signature and no key can be written in two ways, and one key's signature means one message. It accepts what
//! honest signers make, and nothing that `ed25519-dalek`'s `verify_strict` or `ed25519-compact` refuse; tests compare.

mod field;
mod point;
mod scalar;
mod sha512;

use point::Point;
use sha512::Sha512;

/// Whether `signature` is the key's over the parts of a message, one after the other.
#[inline(never)]
pub(super) fn verify(key: &[u8; 32], message: &[&[u8]], signature: &[u8; 64]) -> bool {
    let Some((r, s)) = signature.split_first_chunk::<32>() else { return false };
    let Some(s) = s.first_chunk::<32>().map(words).filter(scalar::is_canonical) else { return false };
    let k = challenge(key, message, r);
    let mut decoded = Point::decode(key);
    let Some(point) = decoded.as_mut().filter(|a| !a.has_small_order()) else { return false };
    point.negate();
    point.combine(&k, &s);
    point.encode() == words(r) && !point.has_small_order()
}

/// The scalar that binds signature, key and message.
#[inline(never)]
fn challenge(key: &[u8; 32], message: &[&[u8]], r: &[u8; 32]) -> [u32; 8] {
    let mut hash = Sha512::new();
    hash.update(r);
    hash.update(key);
    message.iter().for_each(|part| hash.update(part));
    scalar::reduce(hash.finish())
}

/// Little-endian words of bytes.
fn words(bytes: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    let from = bytes.chunks_exact(4).filter_map(|b| b.first_chunk());
    words.iter_mut().zip(from).for_each(|(to, from)| *to = u32::from_le_bytes(*from));
    words
}

/// Takes `what` away from `from`, if it is not more; tells whether it was not.
fn subtract(from: &mut [u32; 8], what: &[u32; 8]) -> bool {
    if from.iter().rev().lt(what.iter().rev()) {
        return false;
    }
    let mut borrow = false;
    for (to, from) in from.iter_mut().zip(what) {
        let (difference, first) = to.overflowing_sub(*from);
        let (difference, second) = difference.overflowing_sub(u32::from(borrow));
        (*to, borrow) = (difference, first | second);
    }
    true
}

#[cfg(all(test, feature = "std"))]
mod tests;
