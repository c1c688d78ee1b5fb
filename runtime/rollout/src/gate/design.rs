//! What a rollout of a given size can see, before it starts.

use crate::evidence::{Count, R0, Ratio};

const RUNS: u32 = 1000;

/// A planned comparison. Simulated with a fixed seed: the same plan always gives the same answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Design {
    /// Devices with the candidate.
    pub canary: u32,
    /// Devices of the control cohort.
    pub control: u32,
    /// Bad device-days of one guardrail among the control's device-days.
    pub rate: f64,
    /// Part of the device-days that report.
    pub reporting: f64,
    /// Days over which the canary's devices take the candidate up, evenly.
    pub ramp: u32,
    /// Days, with a look at the end of each.
    pub days: u32,
    /// The gate's probability of a false rollback.
    pub alpha: f64,
}

impl Design {
    /// Of this size and rate of bad device-days; 14 days, three of them a ramp, 80 % reporting, α = 0.01.
    #[must_use]
    pub const fn new(canary: u32, control: u32, rate: f64) -> Self {
        Self { canary, control, rate, reporting: 0.8, ramp: 3, days: 14, alpha: 0.01 }
    }

    /// Part of the rollouts, of candidates with `ratio` times the control's rate, that are taken back within the days.
    /// Within about 3 points (1000 simulated rollouts).
    #[must_use]
    pub fn detection(&self, ratio: f64) -> f64 {
        f64::from((0..RUNS).filter(|run| self.detects(*run, ratio)).count() as u32) / f64::from(RUNS)
    }

    /// The least ratio that is detected with probability `power`, rounded up to a twentieth; nothing when not even a
    /// ratio of 100 is, or all device-days bad.
    #[must_use]
    pub fn minimum_ratio(&self, power: f64) -> Option<f64> {
        let reaches = |steps: u32| self.detection(f64::from(steps) / 20.0) >= power;
        let (mut low, mut high) = ((R0 * 20.0) as u32, 2000);
        if !reaches(high) {
            return None;
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            if reaches(middle) { high = middle } else { low = middle }
        }
        Some(f64::from(high) / 20.0)
    }

    fn detects(&self, run: u32, ratio: f64) -> bool {
        // One stream an arm, so that more is detected of a larger ratio, run by run.
        let (mut canary, mut control) = (Stream(u64::from(run) << 1), Stream(u64::from(run) << 1 | 1));
        let bound = -libm::log(self.alpha);
        let mut process = Ratio::NONE;
        (1..=self.days).any(|day| {
            let part = f64::from(day.min(self.ramp)) / f64::from(self.ramp.max(1));
            let arrive = |devices: u32, part: f64| libm::round(f64::from(devices) * part * self.reporting) as u32;
            let (of_canary, of_control) = (arrive(self.canary, part), arrive(self.control, 1.0));
            let x = canary.poisson(f64::from(of_canary) * (self.rate * ratio).clamp(0.0, 1.0));
            let y = control.poisson(f64::from(of_control) * self.rate.clamp(0.0, 1.0));
            process.count(Count::new(x.min(of_canary), of_canary), Count::new(y.min(of_control), of_control));
            process.ln_e() >= bound
        })
    }
}

/// Random numbers: SplitMix64 (Steele, Lea and Flood, 2014).
struct Stream(u64);

impl Stream {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A Poisson number: by inversion, or, where that is long, normal, from twelve uniform ones.
    fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 500.0 {
            let normal = (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0;
            return libm::round(mean + libm::sqrt(mean) * normal).max(0.0) as u32;
        }
        let mut left = self.uniform();
        let mut probability = libm::exp(-mean);
        let mut n = 0;
        while left >= probability && n < 2000 {
            left -= probability;
            n += 1;
            probability *= mean / f64::from(n);
        }
        n
    }
}
