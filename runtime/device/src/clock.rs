//! Time as the caller tells it, made to never go back.

/// Microseconds since the start of the device, from a clock that may jump.
///
/// A clock that was set back costs nothing but the time it was set back by: what is due stays due. One that was set ahead
/// makes things due earlier.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    /// What the caller's clock showed last.
    shown: Option<u64>,
    now: u64,
}

impl Time {
    /// Takes what the caller's clock shows.
    pub(crate) fn tell(&mut self, shown: u64) -> u64 {
        let passed = self.shown.map_or(0, |before| shown.saturating_sub(before));
        self.shown = Some(shown);
        self.now = self.now.saturating_add(passed);
        self.now
    }

    /// What was told last.
    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    /// What the caller's clock shows at a moment.
    pub(crate) fn shown_at(&self, moment: u64) -> u64 {
        self.shown.unwrap_or(0).saturating_add(moment.saturating_sub(self.now))
    }
}

/// Seconds since 1970, as somebody told them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calendar {
    told: Option<(u64, u64)>,
}

impl Calendar {
    /// Takes the seconds at a moment of [`Time`].
    pub(crate) const fn tell(&mut self, now: u64, seconds: u64) {
        self.told = Some((now, seconds));
    }

    /// The seconds at a moment.
    pub(crate) fn at(&self, now: u64) -> Option<u64> {
        self.told.map(|(then, seconds)| seconds.saturating_add(now.saturating_sub(then) / 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_costs_what_it_was_set_back_by() {
        let mut time = Time::default();
        assert_eq!([time.tell(1000), time.tell(1010), time.tell(3), time.tell(5)], [0, 10, 10, 12]);
        assert_eq!((time.shown_at(20), time.shown_at(0)), (13, 5));
        assert_eq!(time.tell(u64::MAX), u64::MAX);
        assert_eq!(time.tell(0), time.now());
    }

    #[test]
    fn seconds_go_on() {
        let mut calendar = Calendar::default();
        assert_eq!(calendar.at(9), None);
        calendar.tell(1_000_000, 50);
        assert_eq!([calendar.at(0), calendar.at(1_999_999), calendar.at(2_000_000)], [Some(50), Some(50), Some(51)]);
    }
}
