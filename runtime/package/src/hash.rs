//! SHA-256, in one place, so that it is compiled once and cannot panic.

use sha2::block_api::compress256;

/// The first 32 bits of the fractional parts of the square roots of the first eight primes (FIPS 180-4, 5.3.3).
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A hash under way.
///
/// The rounds are those of the `sha2` crate, with whatever the processor has for them. What lies around them is here since
/// the crate's own keeps a branch that panics when it is compiled for size, if one that is never taken.
#[derive(Clone, Debug)]
pub struct Hash {
    state: [u32; 8],
    block: [u8; 64],
    len: u64,
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// Of nothing as yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: START, block: [0; 64], len: 0 }
    }

    /// Takes the next bytes.
    #[inline(never)]
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let held = (self.len % 64) as usize;
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if held != 0 {
            let room = self.block.get_mut(held..).unwrap_or(&mut []);
            let taken = room.len().min(rest.len());
            room.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            rest = rest.get(taken..).unwrap_or(&[]);
            if held + taken < 64 {
                return;
            }
            compress256(&mut self.state, &[self.block]);
        }
        let (blocks, rest) = rest.as_chunks::<64>();
        compress256(&mut self.state, blocks);
        self.block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    /// The hash of what was taken; it begins anew then.
    #[inline(never)]
    pub fn finish(&mut self) -> [u8; 32] {
        let bits = self.len.wrapping_mul(8);
        self.update(&[0x80]);
        while self.len % 64 != 56 {
            self.update(&[0]);
        }
        self.update(&bits.to_be_bytes());
        let mut hash = [0; 32];
        for (to, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(&self.state) {
            *to = word.to_be_bytes();
        }
        *self = Self::new();
        hash
    }

    /// The hash of parts, one after the other.
    #[must_use]
    #[inline(never)]
    pub fn of(parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Self::new();
        parts.iter().for_each(|part| hash.update(part));
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::Hash;

    proptest! {
        #[test]
        fn any_parting_gives_the_crates_own_hash(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            cuts in prop::collection::vec(0usize..300, 0..4),
        ) {
            let expected: [u8; 32] = Sha256::digest(&bytes).into();
            let mut cuts = cuts;
            cuts.iter_mut().for_each(|at| *at = (*at).min(bytes.len()));
            cuts.sort_unstable();
            let mut hash = Hash::new();
            for _ in 0..2 {
                let mut from = 0;
                for at in cuts.iter().copied().chain([bytes.len()]) {
                    hash.update(&bytes[from..at]);
                    from = at;
                }
                // The second time tells whether it began anew.
                prop_assert_eq!(hash.finish(), expected);
            }
        }
    }
}
