//! Mean and covariance in one pass, and what calibration makes of them: shrinkage, principal axes, whitening.

use nalgebra::{Cholesky, DMatrix, DVector, SymmetricEigen};

/// Why points have no usable covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CovarianceError {
    /// A point has another number of values than the first.
    Dimension {
        /// Values of the first point.
        expected: usize,
        /// Values of this one.
        got: usize,
    },
    /// A value is not a finite number.
    NotFinite,
    /// Fewer than two points.
    TooFewPoints,
    /// More axes are asked for than there are, or none.
    Axes {
        /// Values of a point.
        dimension: usize,
        /// Axes asked for.
        asked: usize,
    },
    /// The points are all the same.
    NoVariance,
}

impl std::fmt::Display for CovarianceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dimension { expected, got } => write!(f, "a point has {got} values, the first had {expected}"),
            Self::NotFinite => f.write_str("a value is not a finite number"),
            Self::TooFewPoints => f.write_str("a covariance needs two points"),
            Self::Axes { dimension, asked } => write!(f, "{asked} axes of points with {dimension} values"),
            Self::NoVariance => f.write_str("the points are all the same"),
        }
    }
}

impl std::error::Error for CovarianceError {}

/// Number, mean and scatter of points; two of them merge to that of all points.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    n: u64,
    mean: DVector<f64>,
    scatter: DMatrix<f64>,
}

impl Moments {
    /// No points, of so many values each.
    #[must_use]
    pub fn new(dimension: usize) -> Self {
        Self { n: 0, mean: DVector::zeros(dimension), scatter: DMatrix::zeros(dimension, dimension) }
    }

    /// Adds a point (Welford, 1962).
    ///
    /// # Errors
    ///
    /// If it has another number of values, or one that is not finite; then nothing is added.
    pub fn push(&mut self, point: &[f64]) -> Result<(), CovarianceError> {
        if point.len() != self.mean.len() {
            return Err(CovarianceError::Dimension { expected: self.mean.len(), got: point.len() });
        }
        if point.iter().any(|v| !v.is_finite()) {
            return Err(CovarianceError::NotFinite);
        }
        self.n += 1;
        let before = DVector::from_column_slice(point) - &self.mean;
        self.mean += &before / self.n as f64;
        let weight = (self.n - 1) as f64 / self.n as f64;
        self.scatter.ger(weight, &before, &before, 1.0);
        Ok(())
    }

    /// Adds the points of another (Chan, Golub and LeVeque, 1983): `M2 += M2' + d d^T n n'/(n + n')`.
    ///
    /// # Errors
    ///
    /// If its points have another number of values.
    pub fn merge(&mut self, other: &Self) -> Result<(), CovarianceError> {
        if other.mean.len() != self.mean.len() {
            return Err(CovarianceError::Dimension { expected: self.mean.len(), got: other.mean.len() });
        }
        if other.n == 0 {
            return Ok(());
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let apart = &other.mean - &self.mean;
        self.scatter += &other.scatter;
        self.scatter.ger(a * b / (a + b), &apart, &apart, 1.0);
        self.mean += apart * (b / (a + b));
        self.n += other.n;
        Ok(())
    }

    /// Number of points.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean of the points.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// Covariance, with `n - 1` below.
    ///
    /// # Errors
    ///
    /// If there are fewer than two points.
    pub fn covariance(&self) -> Result<DMatrix<f64>, CovarianceError> {
        if self.n < 2 {
            return Err(CovarianceError::TooFewPoints);
        }
        Ok(&self.scatter / (self.n - 1) as f64)
    }
}

/// A covariance drawn towards a multiple of the identity: `(1-l) S + l tr(S)/k I`. `l` is between 0 and 1.
///
/// Keeps the smallest axes of few points from being taken for certain (Ledoit and Wolf, 2004).
#[must_use]
pub fn shrink(covariance: &DMatrix<f64>, l: f64) -> DMatrix<f64> {
    let k = covariance.nrows();
    let level = covariance.trace() / k.max(1) as f64;
    covariance * (1.0 - l) + DMatrix::identity(k, k) * (l * level)
}

/// A map that takes points to `k` numbers which have mean 0 and covariance 1 on the reference: `L^-1 P^T (x - mean)`,
/// with P the k principal axes and `L L^T` the shrunk covariance along them.
///
/// `d2(x) = |z|^2` is the squared Mahalanobis distance within those axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    mean: DVector<f64>,
    matrix: DMatrix<f64>,
    explained: f64,
}

impl Whitening {
    /// Of the points' moments, their first `axes` principal axes, with this shrinkage.
    ///
    /// # Errors
    ///
    /// If there are fewer than two points, no variance, or fewer values than axes.
    pub fn new(moments: &Moments, axes: usize, shrinkage: f64) -> Result<Self, CovarianceError> {
        let covariance = moments.covariance()?;
        let dimension = covariance.nrows();
        if axes == 0 || axes > dimension {
            return Err(CovarianceError::Axes { dimension, asked: axes });
        }
        let eigen = SymmetricEigen::new(covariance.clone());
        let mut order: Vec<usize> = (0..dimension).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        order.truncate(axes);
        let mut principal = eigen.eigenvectors.select_columns(&order);
        // An axis has no direction of its own: its largest value is made positive, so that equal points give equal bytes.
        for mut axis in principal.column_iter_mut() {
            if axis[axis.iamax()] < 0.0 {
                axis.neg_mut();
            }
        }
        let along = shrink(&(principal.transpose() * &covariance * &principal), shrinkage);
        let cholesky = Cholesky::new(along).ok_or(CovarianceError::NoVariance)?;
        let mut matrix = principal.transpose();
        if !cholesky.l_dirty().solve_lower_triangular_mut(&mut matrix) {
            return Err(CovarianceError::NoVariance);
        }
        let kept: f64 = order.iter().map(|&i| eigen.eigenvalues[i]).sum();
        Ok(Self { mean: moments.mean.clone(), matrix, explained: kept / covariance.trace() })
    }

    /// Values of a point.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.mean.len()
    }

    /// Axes kept.
    #[must_use]
    pub fn axes(&self) -> usize {
        self.matrix.nrows()
    }

    /// Share of the points' variance along the axes that were kept, 0 to 1.
    #[must_use]
    pub fn explained(&self) -> f64 {
        self.explained
    }

    /// Mean of the reference.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        self.mean.as_slice()
    }

    /// Row `i` of `L^-1 P^T`, as long as a point.
    #[must_use]
    pub fn row(&self, i: usize) -> Vec<f64> {
        self.matrix.row(i).iter().copied().collect()
    }

    /// The point, whitened; as many numbers as axes. Values that a short point lacks count as the mean.
    #[must_use]
    pub fn apply(&self, point: &[f64]) -> Vec<f64> {
        let apart = DVector::from_iterator(
            self.mean.len(),
            self.mean.iter().enumerate().map(|(i, m)| point.get(i).map_or(0.0, |v| v - m)),
        );
        (&self.matrix * apart).iter().copied().collect()
    }

    /// Squared distance from the reference's mean, `|z|^2`.
    #[must_use]
    pub fn distance(&self, point: &[f64]) -> f64 {
        self.apply(point).iter().map(|z| z * z).sum()
    }
}

#[cfg(test)]
mod tests;
