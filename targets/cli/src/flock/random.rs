//! Numbers that look random and are the same each time.

use dunlin_update::trust::SecretKey;
use sha2::{Digest as _, Sha256};

/// SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a member of a flock.
    #[must_use]
    pub fn new(seed: u64, member: u32) -> Self {
        let mut of = Self(seed ^ (u64::from(member) << 32 | 0x9E37));
        // Neighbours' first numbers are not alike.
        of.bits();
        of
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// From 0, to 1 exclusive.
    pub fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0, to `below` exclusive; 0 when there is nothing below.
    pub fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(below)) >> 64) as u64
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.part() < probability
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.part()).ln()
    }
}

/// A member's key.
#[must_use]
pub fn key(seed: u64, member: u32) -> SecretKey {
    let mut bytes = key_seed(seed, member);
    loop {
        match SecretKey::from_seed(bytes) {
            Ok(key) => return key,
            Err(_) => bytes = Sha256::digest(bytes).into(),
        }
    }
}

/// 32 bytes for a member's key.
#[must_use]
pub fn key_seed(seed: u64, member: u32) -> [u8; 32] {
    let hash = Sha256::new_with_prefix(b"dunlin flock\0").chain_update(seed.to_le_bytes());
    hash.chain_update(member.to_le_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_same_each_time_and_even() {
        let mut a = Random::new(1, 7);
        let mut b = Random::new(1, 7);
        assert_eq!([a.bits(), a.bits()], [b.bits(), b.bits()]);
        assert_ne!(Random::new(1, 8).bits(), Random::new(1, 7).bits());
        let mut random = Random::new(3, 0);
        let mean = (0..10_000).map(|_| random.part()).sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
        let hits = (0..10_000).filter(|_| random.chance(0.1)).count();
        assert!((850..1150).contains(&hits), "{hits}");
        let mean = (0..10_000).map(|_| random.exponential(5.0)).sum::<f64>() / 10_000.0;
        assert!((4.7..5.3).contains(&mean), "{mean}");
        assert!((0..100).all(|_| random.below(3) < 3) && random.below(0) == 0);
    }
}
