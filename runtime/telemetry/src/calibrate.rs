//! What a reference is made of: the numbers that devices compare themselves with, computed from a model's outputs on
//! data as it should be.
//!
//! A [`Calibrator`] takes one [`Observation`] an inference and gives a [`Calibrated`]: the class mix, confidences with
//! how often they were right, the quantiles of watched values, and a [`Projection`] that whitens embeddings on a device
//! in int8.

use crate::analysis::{CovarianceError, Moments, Whitening};

/// What is kept of the observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Classes that are counted.
    pub classes: usize,
    /// Bins of the confidence, which part 0 to 1 evenly.
    pub confidence_bins: usize,
    /// Bins of each watched value, at its quantiles.
    pub feature_bins: usize,
    /// Principal axes of embeddings; fewer where an embedding has fewer values.
    pub axes: usize,
    /// How far the covariance is drawn towards a multiple of the identity, 0 to 1.
    pub shrinkage: f64,
}

impl Default for Options {
    /// Ten classes, bins and bins, eight axes, a shrinkage of 5 %.
    fn default() -> Self {
        Self { classes: 10, confidence_bins: 10, feature_bins: 10, axes: 8, shrinkage: 0.05 }
    }
}

/// One inference on reference data.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observation<'a> {
    /// The class that the model gave, if it classifies.
    pub class: Option<usize>,
    /// How sure it was, 0 to 1.
    pub confidence: Option<f64>,
    /// The right class, if it is known.
    pub label: Option<usize>,
    /// The embedding; empty if there is none. All have the same number of values.
    pub embedding: &'a [f64],
    /// Watched values, in a fixed order.
    pub features: &'a [f64],
}

/// Why nothing can be calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CalibrateError {
    /// There are no observations.
    Nothing,
    /// An observation has another number of watched values than the first.
    Features {
        /// Values of the first.
        expected: usize,
        /// Values of this one.
        got: usize,
    },
    /// A watched value or confidence is not a finite number.
    NotFinite,
    /// Some observations have labels and some have not.
    SomeLabels,
    /// The embeddings have no usable covariance.
    Embedding(CovarianceError),
}

impl std::fmt::Display for CalibrateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("there are no observations"),
            Self::Features { expected, got } => {
                write!(f, "an observation has {got} watched values, the first had {expected}")
            }
            Self::NotFinite => f.write_str("a watched value or confidence is not a finite number"),
            Self::SomeLabels => f.write_str("some observations have labels and some have not"),
            Self::Embedding(error) => write!(f, "embeddings: {error}"),
        }
    }
}

impl std::error::Error for CalibrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Embedding(error) => Some(error),
            _ => None,
        }
    }
}

/// `L^-1 P^T` in int8 with a scale a row: `z_i = scale_i (sum_j row_ij x_j) - offset_i`.
///
/// The offsets are the means of the first part over the reference, so that its whitened mean is 0 whatever the rounding.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The rows, each as long as an embedding.
    pub rows: Vec<Vec<i8>>,
    /// What a row is worth.
    pub scales: Vec<f64>,
    /// What is taken off.
    pub offsets: Vec<f64>,
    /// Share of the embeddings' variance along the axes, 0 to 1.
    pub explained: f64,
}

impl Projection {
    /// Rounds a whitening of points with this mean.
    #[must_use]
    pub fn new(whitening: &Whitening) -> Self {
        let mut projection =
            Self { rows: Vec::new(), scales: Vec::new(), offsets: Vec::new(), explained: whitening.explained() };
        for i in 0..whitening.axes() {
            let row = whitening.row(i);
            let most = row.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let scale = if most > 0.0 { most / 127.0 } else { 1.0 };
            let rounded: Vec<i8> = row.iter().map(|v| (v / scale).round().clamp(-127.0, 127.0) as i8).collect();
            let offset = rounded.iter().zip(whitening.mean()).map(|(&r, m)| f64::from(r) * m).sum::<f64>() * scale;
            projection.rows.push(rounded);
            projection.scales.push(scale);
            projection.offsets.push(offset);
        }
        projection
    }

    /// The embedding, whitened.
    #[must_use]
    pub fn apply(&self, embedding: &[f64]) -> Vec<f64> {
        let rows = self.rows.iter().zip(&self.scales).zip(&self.offsets);
        rows.map(|((row, scale), offset)| {
            scale * row.iter().zip(embedding).map(|(&r, x)| f64::from(r) * x).sum::<f64>() - offset
        })
        .collect()
    }
}

/// A watched value's bins: those between `edges`, at quantiles of the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    /// Least and greatest value seen, with the bounds of the bins between them; rising, one more than bins.
    pub edges: Vec<f64>,
    /// Observations by bin. The first and last bin also take what lies beyond them.
    pub counts: Vec<u64>,
}

impl Quantiles {
    /// At most `bins` bins with as equal counts as the values allow; a bin begins with its lower edge. Values that are
    /// all the same give one bin.
    #[must_use]
    pub fn new(values: &[f64], bins: usize) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else {
            return Self { edges: Vec::new(), counts: Vec::new() };
        };
        let mut edges = vec![least];
        for b in 1..bins.max(1) {
            let at = b * sorted.len() / bins;
            // A bound between two values, so that it holds for values that differ by rounding.
            let (below, above) = (sorted[at.saturating_sub(1)], sorted[at.min(sorted.len() - 1)]);
            let bound = if below < above { 0.5 * (below + above) } else { above };
            if edges.last().is_some_and(|&last| bound > last) && bound < most {
                edges.push(bound);
            }
        }
        edges.push(most);
        let mut quantiles = Self { counts: vec![0; edges.len() - 1], edges };
        for &value in values {
            let bin = quantiles.bin(value);
            quantiles.counts[bin] += 1;
        }
        quantiles
    }

    /// Bounds between bins.
    #[must_use]
    pub fn inner(&self) -> &[f64] {
        self.edges.get(1..self.edges.len().saturating_sub(1)).unwrap_or(&[])
    }

    /// The bin of a value.
    #[must_use]
    pub fn bin(&self, value: f64) -> usize {
        self.inner().iter().take_while(|&&bound| value >= bound).count()
    }
}

/// What came of the observations.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// Observations.
    pub n: u64,
    /// Observations by class given.
    pub class: Vec<u64>,
    /// Observations by confidence, and how many of them were right where labels are known.
    pub confidence: Vec<(u64, Option<u64>)>,
    /// Share of right answers where labels are known.
    pub accuracy: Option<f64>,
    /// Bins of the watched values.
    pub features: Vec<Quantiles>,
    /// The whitening of embeddings.
    pub projection: Option<Projection>,
    /// Squared distance of each observation from the mean under that projection, rising.
    pub distances: Vec<f64>,
}

/// Collects observations.
#[derive(Clone, Debug)]
pub struct Calibrator {
    options: Options,
    n: u64,
    class: Vec<u64>,
    confidence: Vec<(u64, u64)>,
    labelled: u64,
    right: u64,
    features: Vec<Vec<f64>>,
    moments: Option<Moments>,
    embeddings: Vec<Vec<f64>>,
}

impl Calibrator {
    /// No observations yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            n: 0,
            class: vec![0; options.classes],
            confidence: vec![(0, 0); options.confidence_bins],
            labelled: 0,
            right: 0,
            features: Vec::new(),
            moments: None,
            embeddings: Vec::new(),
        }
    }

    /// Adds an observation. A class beyond those counted is counted nowhere.
    ///
    /// # Errors
    ///
    /// If it does not fit to those before, or holds what is no number; then it is not added.
    pub fn push(&mut self, observation: &Observation<'_>) -> Result<(), CalibrateError> {
        let o = observation;
        if self.n == 0 {
            self.features = vec![Vec::new(); o.features.len()];
        }
        if o.features.len() != self.features.len() {
            return Err(CalibrateError::Features { expected: self.features.len(), got: o.features.len() });
        }
        if o.features.iter().chain(&o.confidence).any(|v| !v.is_finite()) {
            return Err(CalibrateError::NotFinite);
        }
        if !o.embedding.is_empty() || self.moments.is_some() {
            let moments = self.moments.get_or_insert_with(|| Moments::new(o.embedding.len()));
            moments.push(o.embedding).map_err(CalibrateError::Embedding)?;
            self.embeddings.push(o.embedding.to_vec());
        }
        self.n += 1;
        for (values, &value) in self.features.iter_mut().zip(o.features) {
            values.push(value);
        }
        if let Some(count) = o.class.and_then(|c| self.class.get_mut(c)) {
            *count += 1;
        }
        let right = o.label.is_some() && o.label == o.class;
        self.labelled += u64::from(o.label.is_some());
        self.right += u64::from(right);
        if let Some(confidence) = o.confidence {
            let bins = self.confidence.len();
            let bin = ((confidence.clamp(0.0, 1.0) * bins as f64) as usize).min(bins.saturating_sub(1));
            if let Some((all, correct)) = self.confidence.get_mut(bin) {
                *all += 1;
                *correct += u64::from(right);
            }
        }
        Ok(())
    }

    /// Computes everything.
    ///
    /// # Errors
    ///
    /// If there are no observations, labels for some only, or embeddings without a usable covariance.
    pub fn finish(self) -> Result<Calibrated, CalibrateError> {
        if self.n == 0 {
            return Err(CalibrateError::Nothing);
        }
        if self.labelled != 0 && self.labelled != self.n {
            return Err(CalibrateError::SomeLabels);
        }
        let labels = self.labelled > 0;
        let mut projection = None;
        let mut distances = Vec::new();
        if let Some(moments) = &self.moments {
            let axes = self.options.axes.min(moments.mean().len());
            let whitening = Whitening::new(moments, axes, self.options.shrinkage).map_err(CalibrateError::Embedding)?;
            let rounded = Projection::new(&whitening);
            distances = self.embeddings.iter().map(|e| rounded.apply(e).iter().map(|z| z * z).sum()).collect();
            distances.sort_by(f64::total_cmp);
            projection = Some(rounded);
        }
        Ok(Calibrated {
            n: self.n,
            class: self.class,
            confidence: self.confidence.iter().map(|&(all, right)| (all, labels.then_some(right))).collect(),
            accuracy: labels.then(|| self.right as f64 / self.n as f64),
            features: self.features.iter().map(|v| Quantiles::new(v, self.options.feature_bins)).collect(),
            projection,
            distances,
        })
    }
}

#[cfg(test)]
mod tests;
