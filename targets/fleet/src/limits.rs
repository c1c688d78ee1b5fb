//! How often somebody may ask: the generic cell rate algorithm (ITU-T I.371), one number a key.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

const SHARDS: usize = 16;

/// Theoretical arrival times by key, in microseconds.
#[derive(Debug)]
pub(crate) struct Limits {
    shards: [Mutex<HashMap<u64, u64>>; SHARDS],
    hasher: RandomState,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// Lets a request through at `rate` a second with bursts of twice that, or says in how many seconds to come again.
    pub(crate) fn take(&self, key: &str, rate: u32, now: u64) -> Result<(), u64> {
        let gap = 1_000_000 / u64::from(rate.max(1));
        self.spaced(key, gap, 2_000_000, now)
    }

    /// Lets one through every `gap` microseconds, and as many at once as fit into `burst` microseconds.
    pub(crate) fn spaced(&self, key: &str, gap: u64, burst: u64, now: u64) -> Result<(), u64> {
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shards.get(hash as usize % SHARDS) else { return Ok(()) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // A time that has passed says nothing any more.
        if shard.len() > 100_000 {
            shard.retain(|_, at| *at > now);
        }
        let at = shard.get(&hash).copied().unwrap_or(0).max(now);
        if at - now > burst {
            return Err((at - now - burst).div_ceil(1_000_000).max(1));
        }
        shard.insert(hash, at + gap);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn bursts_pass_and_then_the_rate_holds() {
        let limits = Limits::new();
        let mut now = 1_000_000_000;
        let passed = (0..100).filter(|_| limits.take("a", 10, now).is_ok()).count();
        assert_eq!(passed, 21);
        assert_eq!(limits.take("b", 10, now), Ok(()), "another key");
        let wait = limits.take("a", 10, now).expect_err("full");
        now += wait * 1_000_000;
        assert_eq!(limits.take("a", 10, now), Ok(()), "after the wait");
        let mut passed = 0;
        for _ in 0..1000 {
            now += 10_000;
            passed += u32::from(limits.take("c", 10, now).is_ok());
        }
        assert!((100..=121).contains(&passed), "{passed} in ten seconds");
    }
}
