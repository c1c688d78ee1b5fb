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
