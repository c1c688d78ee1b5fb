//! Time, as far as a board knows it.

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

/// A clock that does not wrap, over one that does; right while it is asked at least every 71 minutes.
#[derive(Clone, Copy, Debug)]
pub struct Wide<C> {
    clock: C,
    last: u32,
    wraps: u32,
}

impl<C: Clock> Wide<C> {
    /// Over a clock.
    pub const fn new(clock: C) -> Self {
        Self { clock, last: 0, wraps: 0 }
    }

    /// Microseconds since some moment.
    pub fn now(&mut self) -> u64 {
        let now = self.clock.now();
        self.wraps = self.wraps.wrapping_add(u32::from(now < self.last));
        self.last = now;
        u64::from(self.wraps) << 32 | u64::from(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Steps(u32);

    impl Clock for Steps {
        fn now(&mut self) -> u32 {
            self.0 = self.0.wrapping_add(1 << 31);
            self.0
        }
    }

    #[test]
    fn a_wide_clock_does_not_wrap() {
        let mut clock = Wide::new(Steps(5));
        for i in 1..20 {
            assert_eq!(clock.now(), 5 + (i << 31));
        }
    }
}
