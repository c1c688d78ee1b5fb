//! A flock's time: the computer's, a multiple of it, or as somebody says.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dunlin_fleet::Clock;

/// Longest sleep, so that a flock that is to stop does.
const NAP: Duration = Duration::from_millis(50);

thread_local! {
    /// What was told. Each thread has members of its own, and these come in the order of their time.
    static TOLD: Cell<u64> = const { Cell::new(0) };
}

/// Where a flock has its time from. Moments are microseconds since it began.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    speed: f64,
    /// Whether the time is what is told.
    told: bool,
    wall: Arc<dyn Clock>,
    stopped: AtomicBool,
}

/// The same time for those who speak to the server for devices.
impl dunlin_gateway::Clock for Pace {
    fn wall(&self) -> u64 {
        self.wall.micros()
    }

    fn now(&self) -> Duration {
        Duration::from_micros(Pace::now(self))
    }
}

impl Pace {
    /// So many times as fast as the computer's clock; requests have the wall clock's time.
    #[must_use]
    pub fn running(speed: f64, wall: Arc<dyn Clock>) -> Self {
        Self { began: Instant::now(), speed, told: false, wall, stopped: AtomicBool::new(false) }
    }

    /// Time that passes only when [`Pace::tell`] says so.
    #[must_use]
    pub fn told(wall: Arc<dyn Clock>) -> Self {
        Self { told: true, ..Self::running(1.0, wall) }
    }

    /// Says what time it is for this thread, where time is told.
    pub fn tell(&self, now: u64) {
        TOLD.set(now);
    }

    /// Whether somebody tells the time.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> u64 {
        if self.told { TOLD.get() } else { (self.began.elapsed().as_micros() as f64 * self.speed) as u64 }
    }

    /// Microseconds since 1970, as a device with a good clock has them.
    #[must_use]
    pub fn wall(&self) -> u64 {
        self.wall.micros()
    }

    /// So long by the computer's clock, in the flock's time.
    #[must_use]
    pub fn of(&self, real: Duration) -> u64 {
        (real.as_micros() as f64 * self.speed) as u64
    }

    /// Waits until a moment; `false` when the flock is to stop. Time that is told is not waited for.
    #[must_use]
    pub fn wait(&self, until: u64) -> bool {
        while !self.stopped.load(Ordering::Relaxed) {
            let now = self.now();
            if self.told || now >= until {
                return true;
            }
            let real = Duration::from_micros(((until - now) as f64 / self.speed) as u64);
            std::thread::sleep(real.min(NAP));
        }
        false
    }

    /// Ends all waiting.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use dunlin_fleet::SystemClock;

    use super::*;

    #[test]
    fn told_time_stands_still() {
        let pace = Pace::told(Arc::new(SystemClock));
        assert_eq!(pace.now(), 0);
        pace.tell(5_000_000);
        assert_eq!(pace.now(), 5_000_000);
        assert!(pace.wait(u64::MAX), "it is not waited for");
    }

    #[test]
    fn fast_time_is_waited_for() {
        let pace = Pace::running(1e6, Arc::new(SystemClock));
        assert!(pace.wait(10_000_000) && pace.now() >= 10_000_000);
        assert_eq!(pace.of(Duration::from_micros(3)), 3_000_000);
        pace.stop();
        assert!(!pace.wait(u64::MAX));
    }
}
