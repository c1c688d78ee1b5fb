//! How far the counts of now are from the counts of the reference, over the same bins.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// Why two lists of counts cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompareError {
    /// The lists have different numbers of bins.
    Bins {
        /// Bins of now.
        now: usize,
        /// Bins of the reference.
        reference: usize,
    },
    /// There are fewer than two bins.
    TooFewBins,
    /// Nothing was counted now.
    NothingNow,
    /// Nothing was counted in the reference.
    NothingInReference,
}

impl std::fmt::Display for CompareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bins { now, reference } => write!(f, "{now} bins now, {reference} in the reference"),
            Self::TooFewBins => f.write_str("a histogram needs two bins"),
            Self::NothingNow => f.write_str("nothing was counted"),
            Self::NothingInReference => f.write_str("the reference counted nothing"),
        }
    }
}

impl std::error::Error for CompareError {}

/// A test's statistic with its degrees of freedom and the probability of one at least as large by chance.
///
/// The probability supposes that every inference is independent. Inferences of one device are not: in a fleet whose
/// devices differ it says "different" nearly always. It is shown, and never decides; see [`crate::analysis`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// The statistic.
    pub statistic: f64,
    /// Degrees of freedom.
    pub freedom: u32,
    /// The probability.
    pub p: f64,
}

/// Counts of now (p, n of them) and of the reference (q, m of them) over the same B bins.
///
/// Shares are smoothed where a logarithm needs it: half a count is added to every bin. B counts the bins that hold
/// anything at all, as an empty pair of bins has no noise.
///
/// ```
/// use dunlin_telemetry::analysis::Compared;
///
/// let compared = Compared::new(&[120, 380, 500], &[250, 250, 500])?;
/// assert!((compared.psi() - 0.1493).abs() < 1e-4);
/// # Ok::<(), dunlin_telemetry::analysis::CompareError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    now: &'a [u64],
    reference: &'a [u64],
    n: u64,
    m: u64,
    bins: u32,
}

impl<'a> Compared<'a> {
    /// Pairs two lists of counts.
    ///
    /// # Errors
    ///
    /// If they differ in length, have fewer than two bins, or one of them is all zeros.
    pub fn new(now: &'a [u64], reference: &'a [u64]) -> Result<Self, CompareError> {
        if now.len() != reference.len() {
            return Err(CompareError::Bins { now: now.len(), reference: reference.len() });
        }
        if now.len() < 2 {
            return Err(CompareError::TooFewBins);
        }
        let n: u64 = now.iter().fold(0, |sum, &c| sum.saturating_add(c));
        let m: u64 = reference.iter().fold(0, |sum, &c| sum.saturating_add(c));
        match (n, m) {
            (0, _) => return Err(CompareError::NothingNow),
            (_, 0) => return Err(CompareError::NothingInReference),
            _ => {}
        }
        let bins = now.iter().zip(reference).filter(|(p, q)| **p > 0 || **q > 0).count();
        Ok(Self { now, reference, n, m, bins: u32::try_from(bins).unwrap_or(u32::MAX) })
    }

    /// Inferences counted now.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Inferences counted in the reference.
    #[must_use]
    pub fn m(&self) -> u64 {
        self.m
    }

    /// Shares of now and of the reference, half a count added to every bin.
    fn smoothed(&self) -> impl Iterator<Item = (f64, f64)> {
        let b = self.now.len() as f64;
        let (n, m) = (self.n as f64 + 0.5 * b, self.m as f64 + 0.5 * b);
        self.pairs().map(move |(p, q)| ((p + 0.5) / n, (q + 0.5) / m))
    }

    /// Counts of now and of the reference.
    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        self.now.iter().zip(self.reference).map(|(&p, &q)| (p as f64, q as f64))
    }

    /// `P_b - Q_b`, the difference of the cumulated shares at the upper end of each bin.
    fn steps(&self) -> impl Iterator<Item = f64> + use<'a> {
        let (n, m) = (self.n as f64, self.m as f64);
        self.pairs().scan((0.0, 0.0), move |(above, below), (p, q)| {
            *above += p;
            *below += q;
            Some(*above / n - *below / m)
        })
    }

    /// What sampling alone adds to [`psi`](Self::psi) on average: `(B-1)(1/n + 1/m)`, the mean of a chi-square
    /// variable over its size, to the first order.
    #[must_use]
    pub fn noise(&self) -> f64 {
        f64::from(self.bins.saturating_sub(1)) * (1.0 / self.n as f64 + 1.0 / self.m as f64)
    }

    /// The population stability index `sum (p-q) ln(p/q)`, smoothed. At least 0.
    #[must_use]
    pub fn psi(&self) -> f64 {
        self.smoothed().map(|(p, q)| (p - q) * (p / q).ln()).sum()
    }

    /// [`psi`](Self::psi) less [`noise`](Self::noise): around 0, and below it as often, when nothing has changed.
    #[must_use]
    pub fn psi_adjusted(&self) -> f64 {
        self.psi() - self.noise()
    }

    /// The Jensen-Shannon divergence in bits, `H((p+q)/2) - (H(p)+H(q))/2`, from 0 to 1. Not smoothed, as no empty bin
    /// makes it infinite. Its square root is the distance of the same name (Lin, 1991).
    #[must_use]
    pub fn jensen_shannon(&self) -> f64 {
        let (n, m) = (self.n as f64, self.m as f64);
        let term = |a: f64, mid: f64| if a > 0.0 { a * (a / mid).log2() } else { 0.0 };
        let sum: f64 = self
            .pairs()
            .map(|(p, q)| {
                let (p, q) = (p / n, q / m);
                let mid = 0.5 * (p + q);
                0.5 * (term(p, mid) + term(q, mid))
            })
            .sum();
        sum.clamp(0.0, 1.0)
    }

    /// [`jensen_shannon`](Self::jensen_shannon) less what sampling adds: to the second order the divergence is an
    /// eighth of the PSI, here in bits.
    #[must_use]
    pub fn jensen_shannon_adjusted(&self) -> f64 {
        self.jensen_shannon() - self.noise() / (8.0 * std::f64::consts::LN_2)
    }

    /// The Kolmogorov-Smirnov distance on the bins, `max |P_b - Q_b|`. The distance of the values themselves is larger
    /// by at most the largest share of a bin. The order of the bins must mean something.
    #[must_use]
    pub fn kolmogorov_smirnov(&self) -> f64 {
        self.steps().fold(0.0, |most, d| most.max(d.abs()))
    }

    /// The Wasserstein-1 distance in the unit of `edges`, the values spread evenly within each bin: the exact area
    /// between the two piecewise linear distribution functions. `None` unless there is one edge more than bins and
    /// the edges are finite and do not fall.
    #[must_use]
    pub fn wasserstein(&self, edges: &[f64]) -> Option<f64> {
        let rising = edges.windows(2).all(|w| matches!(w, [a, b] if a <= b && a.is_finite() && b.is_finite()));
        if edges.len() != self.now.len() + 1 || !rising {
            return None;
        }
        let mut before = 0.0f64;
        let mut area = 0.0;
        for (step, edge) in self.steps().zip(edges.windows(2)) {
            let [low, high] = edge else { continue };
            let (a, b) = (before.abs(), step.abs());
            // Two triangles where the difference changes its sign, else a trapezium.
            let mean = if before * step < 0.0 { (a * a + b * b) / (2.0 * (a + b)) } else { 0.5 * (a + b) };
            area += mean * (high - low);
            before = step;
        }
        Some(area)
    }

    /// Pearson's test of one distribution behind both lists; see [`ChiSquare`] for what its probability is not.
    #[must_use]
    pub fn chi_square(&self) -> ChiSquare {
        self.homogeneity(|seen, expected| (seen - expected).powi(2) / expected)
    }

    /// The likelihood-ratio (G) test of one distribution behind both lists.
    #[must_use]
    pub fn g_test(&self) -> ChiSquare {
        // The differences sum to 0; with them each term is the square of a small number where counts hardly differ.
        self.homogeneity(|seen, expected| {
            let log = if seen > 0.0 { seen * (seen / expected).ln() } else { 0.0 };
            2.0 * (log - (seen - expected))
        })
    }

    fn homogeneity(&self, term: impl Fn(f64, f64) -> f64) -> ChiSquare {
        let (n, m) = (self.n as f64, self.m as f64);
        let statistic: f64 = self
            .pairs()
            .filter(|(p, q)| p + q > 0.0)
            .map(|(p, q)| {
                let share = (p + q) / (n + m);
                term(p, share * n) + term(q, share * m)
            })
            .sum();
        let freedom = self.bins.saturating_sub(1);
        ChiSquare { statistic, freedom, p: chi_square_above(statistic, f64::from(freedom)) }
    }
}

/// The probability that a chi-square variable is above `statistic`; 1 without degrees of freedom.
pub(crate) fn chi_square_above(statistic: f64, freedom: f64) -> f64 {
    ChiSquared::new(freedom).map_or(1.0, |d| d.sf(statistic))
}

#[cfg(test)]
mod tests;
