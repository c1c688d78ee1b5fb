//! Verdicts: a number, what it rests on, and what follows from it.

use std::fmt;

use super::accuracy::Calibration;
use super::device::{Bootstrap, ByDevice, Interval, Unit};
use super::distance::{CompareError, Compared};
use super::mean::hotelling;

/// What follows from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing can be said; this is not [`Level::Steady`].
    NotEnoughData,
    /// No change that matters was seen, in enough data to see one.
    Steady,
    /// A change worth a look.
    Warn,
    /// A change worth acting on.
    Act,
}

impl Level {
    /// Lower-case name, as JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEnoughData => "not_enough_data",
            Self::Steady => "steady",
            Self::Warn => "warn",
            Self::Act => "act",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotEnoughData => "not enough data",
            other => other.name(),
        })
    }
}

/// A statistic that has verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Statistic {
    /// The population stability index without its noise.
    Psi,
    /// The Jensen-Shannon divergence in bits without its noise.
    JensenShannon,
    /// The Kolmogorov-Smirnov distance on the bins.
    KolmogorovSmirnov,
    /// The Wasserstein-1 distance, in standard deviations of the reference.
    Wasserstein,
    /// The squared shift of the whitened mean, in standard deviations of the reference, without its noise.
    MeanShift,
    /// How far the estimated accuracy is below that of the reference, as a share.
    AccuracyDrop,
    /// How far a rate is above that of the reference, as a share.
    RateRise,
}

impl Statistic {
    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Psi => "psi",
            Self::JensenShannon => "jensen_shannon",
            Self::KolmogorovSmirnov => "kolmogorov_smirnov",
            Self::Wasserstein => "wasserstein",
            Self::MeanShift => "mean_shift",
            Self::AccuracyDrop => "accuracy_drop",
            Self::RateRise => "rate_rise",
        }
    }

    /// The usual bounds of warning and acting.
    ///
    /// 0.1 and 0.25 are the field's for the PSI. To the second order 8 ln 2 times the Jensen-Shannon divergence in bits
    /// is the PSI, which gives its bounds. The others were set so that they warn at changes of a like size.
    #[must_use]
    pub const fn bounds(self) -> (f64, f64) {
        match self {
            Self::Psi => (0.1, 0.25),
            Self::JensenShannon => (0.018, 0.045),
            Self::KolmogorovSmirnov => (0.1, 0.2),
            Self::Wasserstein => (0.15, 0.3),
            Self::MeanShift => (0.25, 1.0),
            Self::AccuracyDrop => (0.02, 0.05),
            Self::RateRise => (0.01, 0.05),
        }
    }
}

/// How verdicts are reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criteria {
    /// Fewest inferences now of which anything is said. Below 500 noise alone makes a PSI of ten bins exceed 0.1 now and
    /// then: in 31 % of the cases at 100.
    pub min_n: u64,
    /// Fewest inferences of the reference. Its noise is the same in every window, so it is taken off well, and fewer
    /// will do.
    pub min_m: u64,
    /// Bounds in the place of [`Statistic::bounds`].
    pub bounds: Option<(f64, f64)>,
    /// How intervals are drawn.
    pub bootstrap: Bootstrap,
    /// Whether to draw intervals also where they decide nothing, as the value is below both bounds.
    pub always_draw: bool,
}

impl Default for Criteria {
    /// 500 inferences against 200, the usual bounds, an interval with every verdict.
    fn default() -> Self {
        Self { min_n: 500, min_m: 200, bounds: None, bootstrap: Bootstrap::default(), always_draw: true }
    }
}

/// A verdict with all its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What was judged: `class`, `confidence`, ...
    pub subject: String,
    /// By which statistic.
    pub statistic: Statistic,
    /// What follows.
    pub level: Level,
    /// The statistic's value, where there is one.
    pub value: Option<f64>,
    /// Bounds of the value.
    pub interval: Option<Interval>,
    /// Inferences now.
    pub n: u64,
    /// Inferences of the reference.
    pub m: u64,
    /// Devices that counted anything.
    pub devices: u64,
    /// From which value on to warn.
    pub warn: f64,
    /// From which value on to act.
    pub act: f64,
    /// The probability of a value as large if all inferences were independent. Shown, never decisive.
    pub p: Option<f64>,
    /// Why, in words.
    pub reason: String,
}

impl Verdict {
    fn none(subject: &str, statistic: Statistic, criteria: &Criteria, counts: (u64, u64, u64), reason: String) -> Self {
        let (warn, act) = criteria.bounds.unwrap_or(statistic.bounds());
        let (n, m, devices) = counts;
        Self {
            subject: subject.to_owned(),
            statistic,
            level: Level::NotEnoughData,
            value: None,
            interval: None,
            n,
            m,
            devices,
            warn,
            act,
            p: None,
            reason,
        }
    }

    /// Why nothing can be said, if nothing can.
    fn lacking(counts: (u64, u64, u64), criteria: &Criteria) -> Option<String> {
        let (n, m, _) = counts;
        if n < criteria.min_n {
            return Some(format!("{n} inferences, and {} are needed", criteria.min_n));
        }
        (m < criteria.min_m).then(|| format!("the reference has {m} inferences, and {} are needed", criteria.min_m))
    }

    /// Fills in value and interval and decides: the value must reach a bound *and* the interval exclude 0, by devices for
    /// more than a warning.
    fn decide(mut self, value: f64, draw: bool, interval: impl FnOnce() -> Option<Interval>, p: Option<f64>) -> Self {
        let reached = if value >= self.act {
            Level::Act
        } else if value >= self.warn {
            Level::Warn
        } else {
            Level::Steady
        };
        let interval = if draw || reached > Level::Steady { interval() } else { None };
        self.value = Some(value);
        self.interval = interval;
        self.p = p;
        let bound = if reached == Level::Act { self.act } else { self.warn };
        (self.level, self.reason) = match (reached, interval) {
            (Level::Steady, _) => (Level::Steady, format!("{value:.4} is below {bound}")),
            (_, None) => (Level::NotEnoughData, "no interval could be drawn".to_owned()),
            (_, Some(i)) if i.low <= 0.0 && i.unit == Unit::Device => (
                Level::Steady,
                format!("{value:.4} is not below {bound}, but the devices differ so much that 0 is not excluded"),
            ),
            (_, Some(i)) if i.low <= 0.0 => {
                (Level::Steady, format!("{value:.4} is not below {bound}, but 0 is not excluded"))
            }
            (level, Some(i)) if i.unit == Unit::Device => {
                (level, format!("{value:.4} is not below {bound}, and the interval by device excludes 0"))
            }
            (_, Some(_)) => (
                Level::Warn,
                format!("{value:.4} is not below {bound}; {} devices are too few to say more than this", self.devices),
            ),
        };
        self
    }

    /// Judges counts by a distance. `edges` are the bins' edges, for [`Statistic::Wasserstein`] only.
    ///
    /// Counts that cannot be compared, too few of them, and statistics that are no distance of counts give
    /// [`Level::NotEnoughData`] with the reason.
    #[must_use]
    pub fn of_counts(
        subject: &str,
        statistic: Statistic,
        now: &ByDevice,
        reference: &[u64],
        edges: Option<&[f64]>,
        criteria: &Criteria,
    ) -> Self {
        let total = now.total();
        let counts = (total.iter().sum(), reference.iter().sum(), now.devices() as u64);
        let none = |reason: String| Self::none(subject, statistic, criteria, counts, reason);
        let lacking = Self::lacking(counts, criteria);
        let compared = match (lacking, Compared::new(&total, reference)) {
            (Some(reason), _) => return none(reason),
            (None, Err(CompareError::TooFewBins)) => return none("one bin shows no change".to_owned()),
            (None, Err(error)) => return none(error.to_string()),
            (None, Ok(compared)) => compared,
        };
        let spread = edges.map_or(0.0, |edges| deviation(reference, edges));
        if statistic == Statistic::Wasserstein && spread <= 0.0 {
            return none("the bins have no edges, or the reference no spread".to_owned());
        }
        if !matches!(
            statistic,
            Statistic::Psi | Statistic::JensenShannon | Statistic::KolmogorovSmirnov | Statistic::Wasserstein
        ) {
            return none(format!("{} is no distance of counts", statistic.name()));
        }
        // What is compared with bounds is freed of noise here; the interval frees itself of it.
        let raw = |c: &Compared<'_>| match statistic {
            Statistic::Psi => c.psi(),
            Statistic::JensenShannon => c.jensen_shannon(),
            Statistic::KolmogorovSmirnov => c.kolmogorov_smirnov(),
            _ => edges.and_then(|edges| c.wasserstein(edges)).map_or(f64::NAN, |w| w / spread),
        };
        let value = match statistic {
            Statistic::Psi => compared.psi_adjusted(),
            Statistic::JensenShannon => compared.jensen_shannon_adjusted(),
            _ => raw(&compared),
        };
        if !value.is_finite() {
            return none("the edges of the bins do not rise".to_owned());
        }
        let interval = || {
            criteria.bootstrap.interval(now, reference, |now, reference| {
                // A draw may come out empty only where nearly nothing was counted.
                Compared::new(now, reference).map_or(0.0, |c| raw(&c))
            })
        };
        let p = compared.chi_square().p;
        none(String::new()).decide(value, criteria.always_draw, interval, Some(p))
    }

    /// Judges the mean of whitened embeddings: for each device the number of its inferences and their mean. `m` is the
    /// number of points that the whitening was made from.
    #[must_use]
    pub fn of_means(subject: &str, devices: &[(u64, Vec<f64>)], m: u64, criteria: &Criteria) -> Self {
        let k = devices.iter().map(|d| d.1.len()).max().unwrap_or(0);
        let mut kept: Vec<(f64, &[f64])> = Vec::new();
        let mut n = 0u64;
        for (count, mean) in devices {
            if *count > 0 && mean.len() == k && mean.iter().all(|v| v.is_finite()) {
                kept.push((*count as f64, mean));
                n = n.saturating_add(*count);
            }
        }
        let counts = (n, m, kept.len() as u64);
        let none = |reason: String| Self::none(subject, Statistic::MeanShift, criteria, counts, reason);
        if let Some(reason) = Self::lacking(counts, criteria) {
            return none(reason);
        }
        let pooled = |chosen: &mut dyn Iterator<Item = (f64, &[f64])>| -> Vec<f64> {
            let (mut sum, mut all) = (vec![0.0; k], 0.0);
            for (count, mean) in chosen {
                all += count;
                sum.iter_mut().zip(mean).for_each(|(s, v)| *s += count * v);
            }
            sum.iter().map(|s| s / all).collect()
        };
        let square = |z: &[f64]| z.iter().map(|v| v * v).sum::<f64>();
        let mean = pooled(&mut kept.iter().copied());
        let noise = k as f64 * (1.0 / n as f64 + 1.0 / m as f64);
        let unit = criteria.bootstrap.unit(kept.len());
        let interval = || {
            criteria.bootstrap.around(square(&mean), unit, |random| {
                let mut z = match unit {
                    Unit::Device => {
                        let drawn: Vec<usize> = kept.iter().map(|_| random.below(kept.len())).collect();
                        pooled(&mut drawn.iter().filter_map(|&i| kept.get(i).copied()))
                    }
                    // Whitened points have a variance of 1.
                    Unit::Inference => mean.iter().map(|v| v + random.normal() / (n as f64).sqrt()).collect(),
                };
                z.iter_mut().for_each(|v| *v += random.normal() / (m as f64).sqrt());
                square(&z)
            })
        };
        let p = hotelling(&mean, n, m).p;
        none(String::new()).decide(square(&mean) - noise, criteria.always_draw, interval, Some(p))
    }

    /// Judges the accuracy that the confidences of now make one expect.
    #[must_use]
    pub fn of_accuracy(subject: &str, now: &ByDevice, calibration: &Calibration, criteria: &Criteria) -> Self {
        let n = now.total().iter().sum();
        let m = calibration.bins().iter().map(|b| b.0).sum();
        let counts = (n, m, now.devices() as u64);
        let none = |reason: String| Self::none(subject, Statistic::AccuracyDrop, criteria, counts, reason);
        if let Some(reason) = Self::lacking(counts, criteria) {
            return none(reason);
        }
        let other_bins = || none("the confidences have other bins than the reference".to_owned());
        let first = if criteria.always_draw { criteria.bootstrap.resamples } else { 0 };
        let first = Bootstrap { resamples: first, ..criteria.bootstrap };
        let Some(mut accuracy) = calibration.estimate(now, &first) else { return other_bins() };
        let warn = criteria.bounds.unwrap_or(Statistic::AccuracyDrop.bounds()).0;
        if accuracy.interval.is_none() && accuracy.reference - accuracy.estimate >= warn {
            let Some(again) = calibration.estimate(now, &criteria.bootstrap) else { return other_bins() };
            accuracy = again;
        }
        if accuracy.unsupported > 0.1 {
            let share = 100.0 * accuracy.unsupported;
            return none(format!("{share:.0} % of the inferences have confidences that the reference hardly had"));
        }
        let interval = accuracy.interval.map(|i| Interval {
            low: accuracy.reference - i.high,
            high: accuracy.reference - i.low,
            unit: i.unit,
        });
        let drop = accuracy.reference - accuracy.estimate;
        let mut verdict = none(String::new()).decide(drop, true, || interval, None);
        verdict.reason = format!(
            "estimated accuracy {:.1} %, {:.1} % in the reference; {}",
            100.0 * accuracy.estimate,
            100.0 * accuracy.reference,
            verdict.reason
        );
        verdict
    }

    /// Judges how often something happened: each device's inferences with it and without it, against the reference's.
    #[must_use]
    pub fn of_rate(subject: &str, now: &ByDevice, reference: [u64; 2], criteria: &Criteria) -> Self {
        let total = now.total();
        let counts = (total.iter().sum(), reference.iter().sum(), now.devices() as u64);
        let none = |reason: String| Self::none(subject, Statistic::RateRise, criteria, counts, reason);
        if let Some(reason) = Self::lacking(counts, criteria) {
            return none(reason);
        }
        if total.len() != 2 {
            return none("a rate needs the inferences with and without".to_owned());
        }
        let rate = |counts: &[u64]| {
            let all: u64 = counts.iter().sum();
            counts.first().map_or(0.0, |&with| with as f64 / all.max(1) as f64)
        };
        let rise = |now: &[u64], reference: &[u64]| rate(now) - rate(reference);
        let interval = || criteria.bootstrap.interval(now, &reference, rise);
        let p = Compared::new(&total, &reference).ok().map(|c| c.chi_square().p);
        none(String::new()).decide(rise(&total, &reference), criteria.always_draw, interval, p)
    }

    /// The verdict as a JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "subject": self.subject,
            "statistic": self.statistic.name(),
            "level": self.level.name(),
            "value": self.value,
            "interval": self.interval.map(|i| serde_json::json!({"low": i.low, "high": i.high, "unit": i.unit.name()})),
            "n": self.n,
            "m": self.m,
            "devices": self.devices,
            "warn": self.warn,
            "act": self.act,
            "p": self.p,
            "reason": self.reason,
        })
    }
}

/// The standard deviation of binned values, spread evenly within each bin; 0 where the edges do not fit.
fn deviation(counts: &[u64], edges: &[f64]) -> f64 {
    if edges.len() != counts.len() + 1 {
        return 0.0;
    }
    let all: f64 = counts.iter().map(|&c| c as f64).sum();
    let (mut first, mut second) = (0.0, 0.0);
    for (&count, edge) in counts.iter().zip(edges.windows(2)) {
        let [low, high] = edge else { continue };
        first += count as f64 / all * 0.5 * (low + high);
        second += count as f64 / all * (low * low + low * high + high * high) / 3.0;
    }
    (second - first * first).max(0.0).sqrt()
}

/// Holds an alarm back until two consecutive windows call for it.
///
/// A window without enough data neither calls for an alarm nor calms one: it is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    before: Option<Level>,
}

impl Alarm {
    /// The next window's level, and what to do now: the lesser of this window's and the last one's.
    pub fn push(&mut self, level: Level) -> Level {
        if level == Level::NotEnoughData {
            return Level::NotEnoughData;
        }
        let before = self.before.replace(level).unwrap_or(Level::Steady);
        level.min(before)
    }
}

#[cfg(test)]
mod tests;
