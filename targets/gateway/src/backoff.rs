//! How long to wait before another attempt.

use std::time::Duration;

/// Exponential backoff with full jitter: each wait is uniform between nothing and a bound that doubles, so that those who
/// failed together do not come back together.
///
/// M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first bound, and the last.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// How long to wait after one more failure. What the server asked for is waited in any case; the jitter comes on top
    /// of it, since it asked everybody.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        retry_after.unwrap_or_default().saturating_add(uniform(bound))
    }

    /// The longest wait that [`next`](Self::next) may give now without a wish of the server's.
    #[must_use]
    pub fn bound(&self) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).and_then(|n| self.base.checked_mul(n));
        doubled.map_or(self.cap, |d| d.min(self.cap))
    }

    /// Failures since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Uniform in `0..=bound`. Without randomness it is the bound.
pub(crate) fn uniform(bound: Duration) -> Duration {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        return bound;
    }
    let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    let scaled = (u128::from(u64::from_le_bytes(bytes)) * (u128::from(nanos) + 1)) >> 64;
    Duration::from_nanos(scaled as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap_and_waits_are_below() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut bounds = Vec::new();
        for _ in 0..40 {
            bounds.push(backoff.bound().as_secs());
            let bound = backoff.bound();
            assert!(backoff.next(None) <= bound);
        }
        assert_eq!(bounds.get(..8), Some(&[1, 2, 4, 8, 16, 32, 60, 60][..]));
        assert!(bounds.iter().skip(6).all(|b| *b == 60));
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_secs(1));
        let wished = backoff.next(Some(Duration::from_secs(30)));
        assert!((30..=31).contains(&wished.as_secs()), "{wished:?}");
    }

    #[test]
    fn waits_spread_over_the_whole_bound() {
        let waits: Vec<_> = (0..400).map(|_| uniform(Duration::from_secs(4)).as_secs()).collect();
        // Each quarter has 100 of 400 with a standard deviation of 9.
        for quarter in 0..4 {
            assert!(waits.iter().filter(|w| **w == quarter).count() > 40, "{quarter}");
        }
    }
}
