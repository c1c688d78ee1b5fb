//! What each device counted, and intervals that take devices, not inferences, as the independent units.

use super::random::Random;

/// Counts of many devices over the same bins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByDevice {
    bins: usize,
    rows: Vec<u64>,
}

impl ByDevice {
    /// No devices, so many bins.
    #[must_use]
    pub fn new(bins: usize) -> Self {
        Self { bins: bins.max(1), rows: Vec::new() }
    }

    /// Adds a device; missing bins are empty, bins too many are left out. A device that counted nothing is not added.
    pub fn push(&mut self, counts: impl IntoIterator<Item = u64>) {
        let start = self.rows.len();
        self.rows.extend(counts.into_iter().take(self.bins));
        self.rows.resize(start + self.bins, 0);
        if self.rows.iter().skip(start).all(|&c| c == 0) {
            self.rows.truncate(start);
        }
    }

    /// Bins of every device.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Number of devices that counted anything.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.rows.len() / self.bins
    }

    /// The counts of each device.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.rows.chunks_exact(self.bins)
    }

    /// The counts of all devices together.
    #[must_use]
    pub fn total(&self) -> Vec<u64> {
        let mut total = vec![0u64; self.bins];
        for row in self.rows() {
            add(&mut total, row);
        }
        total
    }

    /// The counts together of as many devices, drawn with replacement.
    pub(super) fn resample(&self, random: &mut Random, total: &mut [u64]) {
        total.fill(0);
        for _ in 0..self.devices() {
            let at = random.below(self.devices()) * self.bins;
            add(total, &self.rows[at..at + self.bins]);
        }
    }
}

fn add(total: &mut [u64], row: &[u64]) {
    for (t, c) in total.iter_mut().zip(row) {
        *t = t.saturating_add(*c);
    }
}

/// What an interval takes as its independent units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Devices: holds however they differ from each other.
    Device,
    /// Inferences: too narrow when those of a device are alike. Used where there are too few devices, and never the
    /// ground of more than a warning.
    Inference,
}

impl Unit {
    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Inference => "inference",
        }
    }
}

/// Between which bounds the value lies, at the confidence of the [`Bootstrap`] that gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// What was drawn again and again.
    pub unit: Unit,
}

/// A seeded bootstrap: the same counts give the same interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How often devices are drawn anew.
    pub resamples: usize,
    /// Share of intervals that hold the true value, 0 to 1.
    pub confidence: f64,
    /// Seed.
    pub seed: u64,
    /// Fewest devices that are taken as units.
    pub min_devices: usize,
}

impl Default for Bootstrap {
    /// 1000 draws, 99 %, from five devices on.
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.99, seed: 0x64_75_6E_6C_69_6E, min_devices: 5 }
    }
}

impl Bootstrap {
    /// What is drawn when there are so many devices.
    #[must_use]
    pub fn unit(&self, devices: usize) -> Unit {
        if devices >= self.min_devices.max(2) { Unit::Device } else { Unit::Inference }
    }

    /// The interval of `statistic(now, reference)`. The reference, counted once by one calibration, is drawn as
    /// independent counts.
    ///
    /// `None` where nothing was counted or nothing is drawn. See [`around`](Self::around) for its form.
    #[must_use]
    pub fn interval(
        &self,
        now: &ByDevice,
        reference: &[u64],
        statistic: impl Fn(&[u64], &[u64]) -> f64,
    ) -> Option<Interval> {
        let total = now.total();
        let unit = self.unit(now.devices());
        if now.devices() == 0 {
            return None;
        }
        let value = statistic(&total, reference);
        let (mut drawn, mut other) = (vec![0; now.bins()], vec![0; reference.len()]);
        self.around(value, unit, |random| {
            match unit {
                Unit::Device => now.resample(random, &mut drawn),
                Unit::Inference => poisson(random, &total, &mut drawn),
            }
            poisson(random, reference, &mut other);
            statistic(&drawn, &other)
        })
    }

    /// The basic bootstrap interval around `value` (Davison and Hinkley, 1997, 5.2): `2 value - quantile` of what
    /// `draw` gives. A distance is too large by its noise, and a distance of drawn counts by twice its noise; reflected
    /// at the value, the interval lies where the distance without noise is.
    ///
    /// `None` where nothing is drawn or a draw is no finite number.
    #[must_use]
    pub fn around(&self, value: f64, unit: Unit, mut draw: impl FnMut(&mut Random) -> f64) -> Option<Interval> {
        let mut random = Random::new(self.seed);
        let mut values: Vec<f64> = (0..self.resamples).map(|_| draw(&mut random)).collect();
        if !value.is_finite() || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - self.confidence.clamp(0.0, 1.0));
        let (low, high) = (quantile(&values, tail)?, quantile(&values, 1.0 - tail)?);
        Some(Interval { low: 2.0 * value - high, high: 2.0 * value - low, unit })
    }
}

/// The quantile of sorted values, with a straight line between neighbours; `None` of nothing.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (*sorted.get(at.floor() as usize)?, *sorted.get(at.ceil() as usize)?);
    Some(low + (high - low) * at.fract())
}

/// Counts as they would have come another time, were all inferences independent.
pub(super) fn poisson(random: &mut Random, counts: &[u64], drawn: &mut [u64]) {
    for (to, &count) in drawn.iter_mut().zip(counts) {
        *to = random.poisson(count as f64);
    }
}

#[cfg(test)]
mod tests;
