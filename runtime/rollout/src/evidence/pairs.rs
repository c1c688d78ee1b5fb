//! Values of devices that ran both packages in turn, mergeable.

use serde::{Deserialize, Serialize};

use super::Both;

/// Number, means, sums of squared distances from the means, and the sum of products of both distances. Merged as Chan, Golub
/// and LeVeque merge squares (1979); the products by the same step (Pebay, *Formulas for robust, one-pass parallel
/// computation of covariances and arbitrary-order statistical moments*, SAND2008-6212).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    n: u64,
    mean: Both<f64>,
    squares: Both<f64>,
    products: f64,
}

impl Pairs {
    /// No devices.
    pub const NONE: Self = Self { n: 0, mean: Both::new(0.0, 0.0), squares: Both::new(0.0, 0.0), products: 0.0 };

    /// Adds a device.
    pub fn add(&mut self, value: Both<f64>) {
        self.merge(&Self { n: 1, mean: value, ..Self::NONE });
    }

    /// Adds other devices.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let n = self.n.saturating_add(other.n);
        let (a, b) = (self.n as f64 / n as f64, other.n as f64 / n as f64);
        let weight = a * other.n as f64;
        let distance = Both::new(other.mean.canary - self.mean.canary, other.mean.control - self.mean.control);
        self.squares.canary += other.squares.canary + distance.canary * distance.canary * weight;
        self.squares.control += other.squares.control + distance.control * distance.control * weight;
        self.products += other.products + distance.canary * distance.control * weight;
        self.mean.canary = a * self.mean.canary + b * other.mean.canary;
        self.mean.control = a * self.mean.control + b * other.mean.control;
        self.n = n;
    }

    /// Number of devices.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// Mean of the devices' values with the candidate and without; 0 without devices.
    #[must_use]
    pub const fn mean(&self) -> Both<f64> {
        self.mean
    }

    /// Variance, by n - 1, of the devices' differences `canary - factor * control`; 0 with fewer than two devices.
    #[must_use]
    pub fn variance(&self, factor: f64) -> f64 {
        if self.n < 2 {
            return 0.0;
        }
        let sum = self.squares.canary - 2.0 * factor * self.products + factor * factor * self.squares.control;
        // Where both values rise together exactly, rounding may leave less than nothing.
        sum.max(0.0) / (self.n - 1) as f64
    }
}
