//! What a reference is made of: the numbers that devices compare themselves with, computed from a model's outputs on
//! data as it should be.
//!
//! A [`Calibrator`] takes one [`Point`] an inference and gives a [`Calibrated`]: the class mix, confidences with how
//! often they were right, the quantiles of watched values, and a [`Projection`] that whitens embeddings on a device in
//! int8. [`Calibrated::draft`] makes a package's drift section of it.

use crate::analysis::{CovarianceError, Moments, Random, Whitening};
use crate::recorder::{Observation, Values};
use crate::reference::{Change, Confidence, Draft, EmbeddingDraft, Feature, Port, Statistic};
use crate::{AXES, BINS, DISTANCES};

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
pub struct Point<'a> {
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
    /// An inference has not the tensor or element that is to be watched.
    Missing(Port),
    /// The tensor of the embedding cannot be parted into equal pools.
    Pool {
        /// Its elements.
        elements: usize,
        /// Elements that were to be added to a value.
        pool: u32,
    },
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
            Self::Missing(Port::Input(i)) => write!(f, "there is no input {i}, or not the element of it"),
            Self::Missing(Port::Output(i)) => write!(f, "there is no output {i}, or not the element of it"),
            Self::Pool { elements, pool } => {
                write!(f, "{elements} elements cannot be parted into pools of {pool} for the embedding")
            }
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
    /// all the same give one bin. Values that are binary32 numbers give edges that are.
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
            // Devices compare in binary32.
            let middle = f64::from((0.5 * (below + above)) as f32);
            let bound = if below < middle { middle } else { above };
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

/// What devices are to watch of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The output that classifies.
    pub class_output: Option<u8>,
    /// How the confidence is found in it.
    pub confidence_by: Confidence,
    /// Microseconds that an inference should take at most; 0: any.
    pub deadline_us: u32,
    /// The watched values, in the order of [`Point::features`].
    pub features: Vec<(Port, Statistic)>,
    /// Whose elements are the embedding, and how many are added to one of its values.
    pub embedding: Option<(Port, u32)>,
}

/// Squared distances drawn to find how far chance alone brings the change detector.
const CHANCE: usize = 200_000;

fn count(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX - 1)
}

/// The exponent of a positive binary32 number, as devices find bins.
fn exponent(value: f64) -> i32 {
    ((value as f32).to_bits() >> 23) as i32 - 127
}

impl Calibrated {
    /// The draft of a drift section.
    ///
    /// Squared distances are binned so that at most one in a thousand of the reference lies in the last bin. The change detector
    /// adds up what a distance is above its mean by more than half a standard deviation (Page, 1954; Hinkley, 1971); its
    /// threshold is a quarter above the greatest sum among 200,000 distances drawn from the reference in random order.
    /// A device whose inputs follow each other closely has longer runs than that: the alarm is a hint, not a verdict.
    #[must_use]
    pub fn draft(&self, spec: &Spec) -> Draft {
        let features = self.features.iter().zip(&spec.features).map(|(q, &(port, statistic))| {
            let mut feature = Feature { port, statistic, bins: 1, edges: [0.0; BINS + 1], counts: [0; BINS] };
            feature.bins = u8::try_from(q.counts.len().clamp(1, BINS)).unwrap_or(1);
            feature.edges.iter_mut().zip(&q.edges).for_each(|(to, &from)| *to = from as f32);
            feature.counts.iter_mut().zip(&q.counts).for_each(|(to, &from)| *to = count(from));
            feature
        });
        let confidence = self.confidence.iter().map(|&(n, right)| (count(n), right.map(count)));
        let seen = self.confidence.iter().any(|b| b.0 > 0);
        Draft {
            n: self.n,
            deadline_us: spec.deadline_us,
            class_output: spec.class_output,
            confidence_by: spec.confidence_by,
            change: self.change(),
            classes: if spec.class_output.is_some() {
                self.class.iter().map(|&n| count(n)).collect()
            } else {
                Vec::new()
            },
            confidence: if seen && self.confidence.len() == BINS { confidence.collect() } else { Vec::new() },
            features: features.collect(),
            embedding: self.projection.as_ref().zip(spec.embedding).map(|(p, (port, pool))| {
                let last = self.distances.get(self.distances.len().saturating_sub(1) * 999 / 1000);
                let first = exponent(last.copied().unwrap_or(1.0).max(1e-30)) + 2 - (DISTANCES as i32 - 1);
                let mut distances = [0u32; DISTANCES];
                for &d2 in &self.distances {
                    let bin = if d2 > 0.0 { (exponent(d2) - first + 1).clamp(0, DISTANCES as i32 - 1) } else { 0 };
                    if let Some(n) = distances.get_mut(bin as usize) {
                        *n = n.saturating_add(1);
                    }
                }
                let rows = p.rows.iter().zip(&p.scales).zip(&p.offsets).take(AXES);
                EmbeddingDraft {
                    port,
                    pool,
                    distance_first: i8::try_from(first).unwrap_or(0),
                    rows: rows.map(|((row, &scale), &offset)| (row.clone(), scale as f32, offset as f32)).collect(),
                    distances,
                }
            }),
            ..Draft::new()
        }
    }

    fn change(&self) -> Change {
        let n = self.distances.len();
        if n < 2 {
            return Change { mean: 0.0, drift: 0.0, threshold: 0.0 };
        }
        let mean = self.distances.iter().sum::<f64>() / n as f64;
        let variance = self.distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        let drift = 0.5 * variance.sqrt();
        let mut random = Random::new(n as u64);
        let (mut sum, mut most) = (0.0f64, 0.0f64);
        for _ in 0..CHANCE {
            let d2 = self.distances.get(random.below(n)).copied().unwrap_or(mean);
            sum = (sum + d2 - mean - drift).max(0.0);
            most = most.max(sum);
        }
        Change { mean: mean as f32, drift: drift as f32, threshold: (1.25 * most) as f32 }
    }
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
    pub fn push(&mut self, observation: &Point<'_>) -> Result<(), CalibrateError> {
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

    /// Adds what `spec` watches of an inference, found in its tensors as devices find it.
    ///
    /// # Errors
    ///
    /// If a tensor is missing, and as [`push`](Self::push).
    pub fn observe(&mut self, spec: &Spec, seen: &Observation<'_>, label: Option<usize>) -> Result<(), CalibrateError> {
        let seen = spec.class_output.map_or(*seen, |output| seen.classified_by(output, spec.confidence_by));
        let port = |port: Port| match port {
            Port::Input(i) => seen.inputs.get(usize::from(i)),
            Port::Output(i) => seen.outputs.get(usize::from(i)),
        };
        let mut features = Vec::new();
        for &(from, statistic) in &spec.features {
            let value = port(from).and_then(|v| v.statistic(statistic)).ok_or(CalibrateError::Missing(from))?;
            features.push(f64::from(value));
        }
        let mut embedding = Vec::new();
        if let Some((from, pool)) = spec.embedding {
            let values = port(from).ok_or(CalibrateError::Missing(from))?;
            let elements = values.len();
            let width = elements.checked_div(pool as usize).filter(|w| *w > 0 && w * pool as usize == elements);
            let width = width.ok_or(CalibrateError::Pool { elements, pool })?;
            embedding = vec![0.0; width];
            // As they are stored: the zero point of integers goes into the offsets.
            let mut add = |stored: &mut dyn Iterator<Item = f64>| {
                stored.enumerate().for_each(|(i, v)| embedding[i % width] += v);
            };
            match *values {
                Values::F32(v) => add(&mut v.iter().map(|&v| f64::from(v))),
                Values::I8 { q, .. } => add(&mut q.iter().map(|&q| f64::from(q))),
            }
        }
        self.push(&Point {
            class: seen.class.map(usize::from),
            confidence: seen.confidence.map(f64::from),
            label,
            embedding: &embedding,
            features: &features,
        })
    }

    /// The same observations without their embeddings, for those that have no usable covariance.
    #[must_use]
    pub fn without_embedding(self) -> Self {
        Self { moments: None, embeddings: Vec::new(), ..self }
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
