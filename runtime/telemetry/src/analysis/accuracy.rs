//! Accuracy without labels, from how sure the model was (confidence-based performance estimation).

use super::device::{Bootstrap, ByDevice, Interval, Unit};

/// How often the model was right in the reference, by bins of its confidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calibration {
    bins: Vec<(u64, u64)>,
}

/// An estimate of the accuracy now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Estimated share of right answers, 0 to 1.
    pub estimate: f64,
    /// Share of right answers in the reference.
    pub reference: f64,
    /// Bounds of the estimate.
    pub interval: Option<Interval>,
    /// Share of the inferences whose confidence was seen fewer than [`Calibration::FEW`] times in the reference; for
    /// those the estimate rests on the confidence itself.
    pub unsupported: f64,
    /// Inferences now.
    pub n: u64,
    /// Inferences of the reference.
    pub m: u64,
}

impl Calibration {
    /// A bin with fewer inferences of the reference says little.
    pub const FEW: u64 = 10;
    /// Weight of the confidence itself in a bin, in inferences.
    const PRIOR: f64 = 2.0;

    /// From the inferences and the right answers of each bin; the bins part 0 to 1 evenly. Right answers beyond the
    /// inferences are not counted.
    #[must_use]
    pub fn new(bins: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self { bins: bins.into_iter().map(|(all, right)| (all, right.min(all))).collect() }
    }

    /// Inferences and right answers of each bin.
    #[must_use]
    pub fn bins(&self) -> &[(u64, u64)] {
        &self.bins
    }

    /// Right and wrong answers that a bin stands for, the prior at its middle included.
    fn weights(&self) -> impl Iterator<Item = (f64, f64)> {
        let count = self.bins.len() as f64;
        self.bins.iter().enumerate().map(move |(b, &(all, right))| {
            let middle = (b as f64 + 0.5) / count;
            (right as f64 + Self::PRIOR * middle, (all - right) as f64 + Self::PRIOR * (1.0 - middle))
        })
    }

    /// `sum h_b acc_b / sum h_b` over the counts `h` of now by confidence.
    ///
    /// Holds while inputs change and what the confidence means does not (covariate shift); it is blind to a change of
    /// what the right answers are. `None` without inferences, now or in the reference, or with another number of bins.
    #[must_use]
    pub fn estimate(&self, now: &ByDevice, bootstrap: &Bootstrap) -> Option<Accuracy> {
        let total = now.total();
        let (n, m) = (total.iter().sum::<u64>(), self.bins.iter().map(|b| b.0).sum::<u64>());
        if n == 0 || m == 0 || total.len() != self.bins.len() {
            return None;
        }
        let mean = |counts: &[u64], accuracy: &mut dyn Iterator<Item = f64>| {
            let (mut right, mut all) = (0.0, 0.0);
            for (&h, a) in counts.iter().zip(accuracy) {
                right += h as f64 * a;
                all += h as f64;
            }
            right / all
        };
        let estimate = mean(&total, &mut self.weights().map(|(r, w)| r / (r + w)));
        let unit = bootstrap.unit(now.devices());
        let mut drawn = vec![0; total.len()];
        let interval = bootstrap.around(estimate, unit, |random| {
            match unit {
                Unit::Device => now.resample(random, &mut drawn),
                Unit::Inference => super::device::poisson(random, &total, &mut drawn),
            }
            // The reference's accuracies are themselves estimates: each is drawn from its Beta distribution.
            let accuracy: Vec<f64> = self
                .weights()
                .map(|(right, wrong)| {
                    let (r, w) = (random.gamma(right), random.gamma(wrong));
                    if r + w > 0.0 { r / (r + w) } else { 0.5 }
                })
                .collect();
            if drawn.iter().all(|&d| d == 0) { estimate } else { mean(&drawn, &mut accuracy.into_iter()) }
        });
        let interval = interval.map(|i| Interval { low: i.low.max(0.0), high: i.high.min(1.0), ..i });
        let few = total.iter().zip(&self.bins).filter(|(_, (all, _))| *all < Self::FEW).map(|(h, _)| h).sum::<u64>();
        let right: u64 = self.bins.iter().map(|b| b.1).sum();
        Some(Accuracy {
            estimate,
            reference: right as f64 / m as f64,
            interval,
            unsupported: few as f64 / n as f64,
            n,
            m,
        })
    }
}

#[cfg(test)]
mod tests;
