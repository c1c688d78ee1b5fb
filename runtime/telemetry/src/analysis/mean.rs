//! Shifts of the mean: of whitened embeddings, and of random features.

use nalgebra::{Cholesky, DMatrix, DVector};
use statrs::distribution::{ContinuousCDF, FisherSnedecor};

use super::distance::chi_square_above;
use super::random::Random;

/// Hotelling's test that whitened means are 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hotelling {
    /// The statistic T2.
    pub statistic: f64,
    /// Probability of one at least as large by chance.
    pub p: f64,
}

/// Hotelling's T2 of a mean of `n` whitened points against a reference of `m`: `|z|^2 nm/(n+m)`, which has a chi-square
/// distribution of as many degrees of freedom as `z` has values if all points are independent, which those of one
/// device are not. 0 points give a statistic of 0.
#[must_use]
pub fn hotelling(z: &[f64], n: u64, m: u64) -> Hotelling {
    let (n, m) = (n as f64, m as f64);
    let weight = if n > 0.0 && m > 0.0 { n * m / (n + m) } else { 0.0 };
    let statistic = weight * z.iter().map(|v| v * v).sum::<f64>();
    Hotelling { statistic, p: chi_square_above(statistic, z.len() as f64) }
}

/// Hotelling's T2 with devices as the points: their means against 0, measured by how they differ from each other,
/// `T2 = D z^T S^-1 z`, `(D-k)/(k(D-1)) T2 ~ F(k, D-k)`. Holds in a fleet whose devices differ. `None` unless there are
/// more than k devices with k values each that do not lie in a plane.
#[must_use]
pub fn hotelling_by_device(means: &[Vec<f64>]) -> Option<Hotelling> {
    let (count, k) = (means.len(), means.first()?.len());
    if count <= k || k == 0 || means.iter().any(|z| z.len() != k) {
        return None;
    }
    let rows = DMatrix::from_row_iterator(count, k, means.iter().flatten().copied());
    let mean: DVector<f64> = rows.row_mean().transpose();
    let mut apart = rows;
    for mut row in apart.row_iter_mut() {
        row -= mean.transpose();
    }
    let covariance = apart.transpose() * &apart / (count - 1) as f64;
    let solved = Cholesky::new(covariance)?.solve(&mean);
    let (d, k) = (count as f64, k as f64);
    let statistic = d * mean.dot(&solved);
    let p = FisherSnedecor::new(k, d - k).ok()?.sf((d - k) / (k * (d - 1.0)) * statistic);
    statistic.is_finite().then_some(Hotelling { statistic, p })
}

/// Random Fourier features of a Gaussian kernel (Rahimi and Recht, 2007): `sqrt(2/D) cos(w_i x + b_i)`, so that the
/// squared distance of two means of features is about the squared maximum mean discrepancy of the points (Gretton et
/// al., 2012). Means of features merge by addition, and D numbers stand for all points.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomFeatures {
    dimension: usize,
    frequencies: Vec<f64>,
    phases: Vec<f64>,
}

impl RandomFeatures {
    /// `features` features of points with `dimension` values, of the kernel `exp(-|x-y|^2 / (2 width^2))`.
    ///
    /// For whitened points the median distance of two is near `sqrt(2 dimension)`, which is the usual width.
    #[must_use]
    pub fn new(dimension: usize, features: usize, width: f64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let frequencies = (0..dimension * features).map(|_| random.normal() / width).collect();
        let phases = (0..features).map(|_| std::f64::consts::TAU * random.uniform()).collect();
        Self { dimension, frequencies, phases }
    }

    /// The features of a point; values that a short one lacks count as 0.
    #[must_use]
    pub fn apply(&self, point: &[f64]) -> Vec<f64> {
        let scale = (2.0 / self.phases.len() as f64).sqrt();
        self.phases
            .iter()
            .enumerate()
            .map(|(i, b)| {
                let w = self.frequencies.iter().skip(i * self.dimension).take(self.dimension);
                scale * (w.zip(point).map(|(w, x)| w * x).sum::<f64>() + b).cos()
            })
            .collect()
    }

    /// The mean of the features of points; zeros for none.
    #[must_use]
    pub fn mean<'p>(&self, points: impl IntoIterator<Item = &'p [f64]>) -> Vec<f64> {
        let mut sum = vec![0.0; self.phases.len()];
        let mut n = 0.0f64;
        for point in points {
            n += 1.0;
            for (s, f) in sum.iter_mut().zip(self.apply(point)) {
                *s += f;
            }
        }
        sum.iter_mut().for_each(|s| *s /= n.max(1.0));
        sum
    }
}

/// The squared maximum mean discrepancy of two means of random features over `n` and `m` points, less what sampling
/// adds: `|a-b|^2 - (1-|a|^2)/(n-1) - (1-|b|^2)/(m-1)`, as the features of a point have a squared length of 1 on average.
/// `None` where a side has fewer than two points or the lengths differ.
#[must_use]
pub fn mmd2(a: &[f64], n: u64, b: &[f64], m: u64) -> Option<f64> {
    if a.len() != b.len() || n < 2 || m < 2 {
        return None;
    }
    let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
    let apart: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    Some(apart - (1.0 - square(a)) / (n - 1) as f64 - (1.0 - square(b)) / (m - 1) as f64)
}

#[cfg(test)]
mod tests;
