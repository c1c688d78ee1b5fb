//! Time, as far as a device knows it.

/// A clock that runs while the device does.
///
/// `embedded-hal` has delays but no clock, so this is what a board has to bring: a free-running timer.
pub trait Clock {
    /// Microseconds since some moment, wrapping to 0 after 2^32 - 1.
    fn now(&mut self) -> u32;
}

impl<C: Clock + ?Sized> Clock for &mut C {
    fn now(&mut self) -> u32 {
        (**self).now()
    }
}

/// Whether `now` is `after` microseconds or more past `start`; right while the question is asked at least every 35
/// minutes.
#[must_use]
pub fn has_passed(start: u32, now: u32, after: u32) -> bool {
    now.wrapping_sub(start) >= after
}
