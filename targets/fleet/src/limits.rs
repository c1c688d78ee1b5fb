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

/// What a tenant's quota surely allows without counting anew: to count a million rows takes longer than to add one.
#[derive(Debug, Default)]
pub(crate) struct Allowance(Mutex<HashMap<String, (i64, i64)>>);

/// Replicas that may rely on one count at the same time.
const REPLICAS: i64 = 16;

impl Allowance {
    /// Takes one of what is surely allowed under this quota; `false`: it has to be counted.
    pub(crate) fn take(&self, tenant: &str, quota: i64) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(tenant) {
            Some((of, left)) if *of == quota && *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Notes that `total` were counted. Each replica relies on its part of what is left, so that all together stay below.
    pub(crate) fn counted(&self, tenant: &str, quota: i64, total: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(tenant.to_owned(), (quota, (quota - total) / REPLICAS));
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, Limits};

    #[test]
    fn quotas_are_kept_with_few_counts() {
        let replicas: [Allowance; 16] = Default::default();
        let (mut total, mut counts) = (0, 0);
        let mut enrol = |at: usize, quota: i64| {
            if replicas[at].take("a", quota) {
                total += 1;
                return true;
            }
            counts += 1;
            if total < quota {
                total += 1;
                replicas[at].counted("a", quota, total);
                return true;
            }
            false
        };
        let in_turn = (0..100_000).filter(|n| enrol(n % 16, 50_000)).count();
        assert_eq!(in_turn, 50_000);
        assert!(!enrol(3, 50_000) && !enrol(4, 49_000), "one more, and with less than there are");
        assert!(enrol(5, 50_001), "until there may be more");
        let alone = Allowance::default();
        let mut counts_alone = 0;
        for n in 0..50_000 {
            if !alone.take("a", 1_000_000) {
                counts_alone += 1;
                alone.counted("a", 1_000_000, n);
            }
        }
        assert!(counts_alone < 10, "{counts_alone}");
        assert!(counts < 55_000, "{counts}, of which those that are refused are half of all");
    }

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
