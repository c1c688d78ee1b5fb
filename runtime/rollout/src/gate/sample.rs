//! Are the arms as large as planned?

use crate::evidence::Both;

/// How firmly the alternative expects the planned share: as after so many devices.
const PRIOR: f64 = 100.0;

/// ln of the e-value against a canary's share of `share` among the devices of both arms: the Dirichlet-multinomial test of
/// Lindon and Malek (arXiv 2011.03567), for two arms
///
/// ```text
/// ln E = ln B(a + x, b + y) - ln B(a, b) - x ln p - y ln(1 - p)      a = 100 p, b = 100 (1 - p)
/// ```
///
/// The probability that E ever reaches 1/α is at most α when the share is right, however often one looks.
#[must_use]
pub fn ln_mismatch(devices: Both<u64>, share: f64) -> f64 {
    let (x, y) = (devices.canary as f64, devices.control as f64);
    let (a, b) = (PRIOR * share, PRIOR * (1.0 - share));
    ln_beta(a + x, b + y) - ln_beta(a, b) - x * libm::log(share) - y * libm::log(1.0 - share)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}
