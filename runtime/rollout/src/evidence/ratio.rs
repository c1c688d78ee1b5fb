//! The conditional-binomial e-process.
//!
//! Given that x + y device-days of a batch were bad, and that canary and control had e and k device-days, x is binomial
//! with share θ(R) = eR / (eR + k) when the canary's rate is R times the control's; what the day does to both cancels.
//! Against R <= R0 stands an equal mixture over larger ratios:
//!
//! ```text
//! λ_j += x ln(θ(R_j) / θ(R0)) + y ln((1 - θ(R_j)) / (1 - θ(R0)))
//!      = x ln(R_j / R0) - (x + y) ln((e R_j + k) / (e R0 + k))
//! E    = mean_j exp(λ_j)
//! ```
//!
//! Each factor has expectation at most 1 for every R <= R0, since it rises with x and x is stochastically smaller then:
//! E is a nonnegative supermartingale from 1, and by Ville's inequality P(E >= 1/α at any time) <= α. Lindon and Malek,
//! "Anytime-valid inference for multinomial count data" (arXiv 2011.03567), have the idea.
//!
//! With e = k = 1 the batch is a pair, one device's day in halves. Then the expectation is at most 1 whatever the halves have to
//! do with each other, and as e = k makes the terms add up, so is that of any number of pairs; `GATES.md` has the proof.
//!
//! λ is kept in fixed point, units of 2^-32, each term rounded down: sums are then exact, and the same in any order.

use serde::{Deserialize, Serialize};

use super::{Both, Count};

/// The ratio of rates that is still accepted.
pub const R0: f64 = 1.25;
/// The ratios that stand against it, in equal parts.
pub const RATIOS: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 8.0, 12.0];

const UNIT: f64 = 4_294_967_296.0;

/// Counts of one guardrail with their e-process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    bad: Both<u64>,
    of: Both<u64>,
    lambda: [i64; 6],
}

impl Ratio {
    /// Nothing counted; E is 1.
    pub const NONE: Self = Self { bad: Both::new(0, 0), of: Both::new(0, 0), lambda: [0; 6] };

    /// Counts a batch of arrivals.
    pub fn count(&mut self, canary: Count, control: Count) {
        self.bad.add(canary.bad.into(), control.bad.into());
        self.of.add(canary.of.into(), control.of.into());
        // With one arm only nothing can be compared.
        if canary.of == 0 || control.of == 0 {
            return;
        }
        let (e, k) = (f64::from(canary.of), f64::from(control.of));
        let (x, all) = (f64::from(canary.bad), f64::from(canary.bad) + f64::from(control.bad));
        for (lambda, ratio) in self.lambda.iter_mut().zip(RATIOS) {
            let term = x * libm::log(ratio / R0) - all * libm::log((e * ratio + k) / (e * R0 + k));
            *lambda = lambda.saturating_add(libm::floor(term * UNIT) as i64);
        }
    }

    /// Adds other arrivals.
    pub fn merge(&mut self, other: &Self) {
        self.bad.add(other.bad.canary, other.bad.control);
        self.of.add(other.of.canary, other.of.control);
        self.lambda.iter_mut().zip(other.lambda).for_each(|(a, b)| *a = a.saturating_add(b));
    }

    /// ln E. Strata multiply: their logarithms add.
    #[must_use]
    pub fn ln_e(&self) -> f64 {
        let top = self.lambda.iter().copied().max().unwrap_or(0);
        let sum: f64 = self.lambda.iter().map(|l| libm::exp(l.saturating_sub(top) as f64 / UNIT)).sum();
        top as f64 / UNIT + libm::log(sum / RATIOS.len() as f64)
    }

    /// Bad device-days.
    #[must_use]
    pub const fn bad(&self) -> Both<u64> {
        self.bad
    }

    /// Device-days.
    #[must_use]
    pub const fn of(&self) -> Both<u64> {
        self.of
    }
}
