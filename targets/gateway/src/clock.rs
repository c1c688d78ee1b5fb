//! Where the time is from: a simulation brings its own.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks: of the day, for nonces, and one that never goes back, for intervals.
pub trait Clock: Debug + Send + Sync {
    /// Microseconds since 1970.
    fn wall(&self) -> u64;
    /// Time since some moment before.
    fn now(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
