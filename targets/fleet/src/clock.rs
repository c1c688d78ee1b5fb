//! The time, so that a rollout of weeks can be tested in seconds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the server has the time from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Microseconds since 1970.
    fn micros(&self) -> u64;

    /// Seconds since 1970.
    fn seconds(&self) -> u64 {
        self.micros() / 1_000_000
    }
}

/// The computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }
}

/// The computer's clock plus what somebody has skipped; copies share it.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Nothing skipped yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets seconds pass at once.
    pub fn skip(&self, seconds: u64) {
        self.0.fetch_add(seconds.saturating_mul(1_000_000), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn micros(&self) -> u64 {
        SystemClock.micros().saturating_add(self.0.load(Ordering::SeqCst))
    }
}
