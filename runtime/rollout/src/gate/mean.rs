//! Confidence sequences for differences of means.
//!
//! Let D be an estimate whose error is about normal with variance V, and v = 1/V its information. S = D v moves like
//! Brownian motion in time v, with drift of the true value. For a true value of 0, exp(λS - λ²v/2) is a martingale for
//! each λ; mixing λ over a normal law of variance 1/ρ gives
//!
//! ```text
//! M = sqrt(ρ / (v + ρ)) exp(S² / (2 (v + ρ)))
//! ```
//!
//! and by Ville's inequality P(M >= 1/α at any time) <= α. So at all times at once, with u = v/ρ:
//!
//! ```text
//! |S| <= sqrt((v + ρ) ln((v + ρ) / (ρ α²)))
//! |D| <= sqrt(V (1 + 1/u) ln((1 + u) / α²))
//! ```
//!
//! That is Robbins' normal mixture (1970), the two-sided normal mixture boundary of Howard, Ramdas, McAuliffe and Sekhon
//! (arXiv 1810.08240, section 3.2), and, with u = tρ² and V = σ²/t, the asymptotic confidence sequence of Waudby-Smith,
//! Arbour, Sinha, Kennedy and Ramdas (arXiv 2103.06476, section 2), who show that the variance may be estimated. The
//! product ρα² is under the logarithm; a sum ρ + α², as it can be found printed, is another number.
//!
//! The width at a planned information v* is least where d/du of (1 + 1/u) ln((1 + u)/α²) is 0: u* = 2 ln(1/α) + ln(1 + u*),
//! and one step from u = 2 ln(1/α) is near enough: u* = 2 ln(1/α) + ln(1 + 2 ln(1/α)). Information grows with devices, so
//! u = u* · devices / planned devices.

use serde::{Deserialize, Serialize};

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The interval around an estimate with this variance, when `progress` of the planned devices are there (1: all of them),
/// of a sequence that leaves out the true value at any time with probability `alpha`. Without progress: everything.
#[must_use]
pub fn interval(estimate: f64, variance: f64, progress: f64, alpha: f64) -> Interval {
    let tuned = -2.0 * libm::log(alpha);
    let tuned = tuned + libm::log(1.0 + tuned);
    let u = tuned * progress;
    let half = libm::sqrt(variance * (1.0 + 1.0 / u) * (libm::log(1.0 + u) - 2.0 * libm::log(alpha)));
    if !(u > 0.0 && half.is_finite() && estimate.is_finite()) {
        return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    }
    Interval { low: estimate - half, high: estimate + half }
}
