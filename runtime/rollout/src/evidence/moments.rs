//! Number, mean and variance of values, mergeable.

use serde::{Deserialize, Serialize};

/// Number, mean and sum of squared distances from the mean; merged as Chan, Golub and LeVeque do (1979).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    n: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// No values.
    pub const NONE: Self = Self { n: 0, mean: 0.0, squares: 0.0 };

    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.merge(&Self { n: 1, mean: value, squares: 0.0 });
    }

    /// Adds other values.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let n = self.n.saturating_add(other.n);
        let (a, b) = (self.n as f64 / n as f64, other.n as f64 / n as f64);
        let distance = other.mean - self.mean;
        self.squares += other.squares + distance * distance * a * other.n as f64;
        self.mean = a * self.mean + b * other.mean;
        self.n = n;
    }

    /// Number of values.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// Their mean; 0 without values.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// Their variance, by n - 1; 0 with fewer than two values.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.squares / (self.n - 1) as f64 }
    }
}
