//! What is usual, from the days before, and whether a number is beyond it.

/// Days that a baseline looks back on.
pub(super) const DAYS: i64 = 14;
/// Hours of the day on either side of the current one that count as the same time of day.
const AROUND: i64 = 1;
/// Samples that a baseline needs: the same time of day on three days.
pub(super) const MIN_SAMPLES: usize = 9;
/// Median absolute deviations, scaled to standard deviations, that are usual.
const DEVIATIONS: f64 = 6.0;
/// What a median absolute deviation is multiplied with to estimate a standard deviation of normal data.
const MAD_SCALE: f64 = 1.4826;
/// Times the median that are usual, however little it varied.
const FACTOR: f64 = 2.0;
/// Standard normal quantile of the confidence bound: a share fires only if chance alone would show it once in 700 times.
const QUANTILE: f64 = 3.0;

/// What is usual at this time of day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Baseline {
    pub(super) median: f64,
    /// The most that is usual.
    pub(super) upper: f64,
    pub(super) samples: usize,
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(high)) => *high,
        _ => 0.0,
    }
}

impl Baseline {
    /// The baseline for an hour from samples of earlier hours: those at the same time of day, one hour more or less.
    /// Nothing, if there are fewer than [`MIN_SAMPLES`]. Median and median absolute deviation (Hampel 1974), so that up to
    /// half of the days may have been bad ones.
    pub(super) fn of(samples: impl IntoIterator<Item = (i64, f64)>, hour: i64) -> Option<Self> {
        let is_same = |other: i64| {
            let apart = (hour - other).rem_euclid(24);
            other < hour && hour - other >= 24 - AROUND && apart.min(24 - apart) <= AROUND
        };
        let mut values: Vec<f64> = samples.into_iter().filter(|(h, _)| is_same(*h)).map(|(_, v)| v).collect();
        if values.len() < MIN_SAMPLES {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let middle = median(&values);
        let mut apart: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
        apart.sort_by(f64::total_cmp);
        let upper = (middle + DEVIATIONS * MAD_SCALE * median(&apart)).max(FACTOR * middle);
        Some(Self { median: middle, upper, samples: values.len() })
    }
}

/// The lower bound of Wilson's score interval for a share of `n`, which holds for small numbers too.
pub(super) fn lower_bound(share: f64, n: f64) -> f64 {
    if n <= 0.0 {
        return 0.0;
    }
    let squared = QUANTILE * QUANTILE;
    let center = share + squared / (2.0 * n);
    let spread = QUANTILE * (share * (1.0 - share) / n + squared / (4.0 * n * n)).max(0.0).sqrt();
    ((center - spread) / (1.0 + squared / n)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_time_of_day_counts() {
        // Devices that are off at night: 80 % silent from 0 to 5, 2 % by day.
        let night = |hour: i64| (0..6).contains(&hour.rem_euclid(24));
        let samples: Vec<(i64, f64)> = (0..240).map(|h| (h, if night(h) { 0.8 } else { 0.02 })).collect();
        let at = |hour: i64| Baseline::of(samples.iter().copied(), hour).expect("a baseline");
        assert_eq!((at(240 + 3).median, at(240 + 14).median), (0.8, 0.02));
        assert!(at(240 + 14).upper < 0.05 && at(240 + 14).samples == 30, "{:?}", at(254));
        assert_eq!(Baseline::of(samples.iter().copied().skip(192), 240 + 14), None, "two days are too few");
    }

    #[test]
    fn bad_days_do_not_become_usual() {
        let of = |bad_days: i64| {
            let samples = (0..14 * 24).map(|h| (h, if h / 24 < bad_days { 0.9 } else { 0.01 }));
            Baseline::of(samples, 14 * 24).expect("a baseline")
        };
        assert_eq!(of(5).median, 0.01);
        assert!(of(5).upper < 0.1, "{:?}", of(5));
    }

    #[test]
    fn chance_does_not_fire() {
        assert_eq!(lower_bound(0.5, 0.0), 0.0);
        assert!(lower_bound(0.5, 4.0) < 0.12);
        assert!((lower_bound(0.5, 1e9) - 0.5).abs() < 1e-3);
        assert!(lower_bound(0.0, 10.0).abs() < 1e-12);
    }
}
