//! What a model's inputs and outputs were like when it was made: the drift section of its package, read in place.
//!
//! Devices need the bounds of bins and the whitening of embeddings from it, servers also the counts. `WIRE.md` says every
//! byte; `Draft` (feature `std`) writes it.

use serde::{Deserialize, Serialize};

use crate::{AXES, BINS, DISTANCES, latency};

/// The version of the layout that this reads and writes.
pub const VERSION: u8 = 1;
/// Values that can be watched.
pub const MAX_FEATURES: usize = crate::report::MAX_FEATURES;
/// Greatest number of products that one axis of an embedding may add, so that 32 bits hold their sum.
const MAX_PRODUCTS: u64 = 131_072;

/// Why bytes are no reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceError {
    /// They have another version than [`VERSION`]: update the engine.
    Version,
    /// They do not decode, or something follows them.
    Malformed,
    /// A list has a length that it cannot have.
    Length,
    /// A number that has to be finite is not, or bounds of bins do not rise.
    Number,
    /// An embedding whose sums would not fit in 32 bits.
    Embedding,
}

impl core::fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Version => "the reference has a version that this library does not know: update it",
            Self::Malformed => "the reference does not decode",
            Self::Length => "a list of the reference has a length that it cannot have",
            Self::Number => "a number of the reference is not finite, or bounds of bins do not rise",
            Self::Embedding => "the reference's embedding is too long for sums of 32 bits",
        })
    }
}

impl core::error::Error for ReferenceError {}

/// One of a model's inputs or outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Port {
    /// The input of this index.
    Input(u8),
    /// The output of this index.
    Output(u8),
}

/// What is watched of a tensor: one number for each inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statistic {
    /// The mean of all elements.
    Mean,
    /// The greatest element less the least.
    Range,
    /// The element of this index.
    Element(u32),
}

/// How the confidence is found in the classifying output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confidence {
    /// The greatest element, as it is.
    #[default]
    Greatest,
    /// The greatest element after a softmax.
    Softmax,
}

/// How a change is found: Page's test with Hinkley's drift, on the squared distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The squared distance as it should be.
    pub mean: f32,
    /// How much more is no change.
    pub drift: f32,
    /// The sum of what is more at which there is an alarm; 0: never.
    pub threshold: f32,
}

/// The first fields. What follows them in memory are lists.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Wire<'a> {
    version: u8,
    n: u64,
    latency_first: u8,
    deadline_us: u32,
    class_output: Option<u8>,
    confidence_by: Confidence,
    change: Change,
    #[serde(borrow)]
    classes: &'a [u8],
    #[serde(borrow)]
    confidence: &'a [u8],
    feature_count: u8,
    #[serde(borrow)]
    features: &'a [u8],
    embedding: Option<EmbeddingWire<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct EmbeddingWire<'a> {
    port: Port,
    len: u32,
    pool: u32,
    distance_first: i8,
    #[serde(borrow)]
    rows: &'a [u8],
    #[serde(borrow)]
    scales: &'a [u8],
    #[serde(borrow)]
    offsets: &'a [u8],
    #[serde(borrow)]
    distances: &'a [u8],
}

/// Bytes of a watched value's record.
const FEATURE_LEN: usize = 2 + 5 + 4 * (BINS + 1) + 4 * BINS;

/// A watched value with its bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Whose.
    pub port: Port,
    /// Which number of it.
    pub statistic: Statistic,
    /// Bins in use, at least one.
    pub bins: u8,
    /// The least value, the bounds between bins, and the greatest: one more than bins, rising. The rest is not used.
    pub edges: [f32; BINS + 1],
    /// Observations of the reference by bin.
    pub counts: [u32; BINS],
}

impl Feature {
    /// The bin of a value: bin `b` begins with its lower bound; the first and the last also take what lies beyond.
    #[must_use]
    pub fn bin(&self, value: f32) -> u8 {
        let inner = self.edges.get(1..usize::from(self.bins)).unwrap_or(&[]);
        inner.iter().take_while(|bound| value >= **bound).count() as u8
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (&[side, index, kind], rest) = record.split_first_chunk::<3>()?;
        let (&element, rest) = rest.split_first_chunk::<4>()?;
        let element = u32::from_le_bytes(element);
        let port = match side {
            0 => Port::Input(index),
            1 => Port::Output(index),
            _ => return None,
        };
        let statistic = match (kind & 0xF, element) {
            (0, 0) => Statistic::Mean,
            (1, 0) => Statistic::Range,
            (2, _) => Statistic::Element(element),
            _ => return None,
        };
        let (edges, counts) = rest.split_at_checked(4 * (BINS + 1))?;
        let mut feature = Self { port, statistic, bins: kind >> 4, edges: [0.0; BINS + 1], counts: [0; BINS] };
        feature.edges.iter_mut().zip(floats(edges)).for_each(|(to, from)| *to = from);
        feature.counts.iter_mut().zip(numbers(counts)).for_each(|(to, from)| *to = from);
        let bins = usize::from(feature.bins);
        let edges = feature.edges.get(..bins + 1).filter(|_| bins > 0)?;
        let rising = edges.iter().all(|e| e.is_finite()) && edges.windows(2).all(|w| w.first() <= w.last());
        let unused = feature.counts.get(bins..)?.iter().all(|c| *c == 0);
        (rising && unused).then_some(feature)
    }

    #[cfg(feature = "std")]
    fn write(&self, to: &mut std::vec::Vec<u8>) {
        let (side, index) = match self.port {
            Port::Input(i) => (0, i),
            Port::Output(i) => (1, i),
        };
        let (kind, element) = match self.statistic {
            Statistic::Mean => (0, 0),
            Statistic::Range => (1, 0),
            Statistic::Element(e) => (2, e),
        };
        to.extend([side, index, kind | self.bins << 4]);
        to.extend(element.to_le_bytes());
        self.edges.iter().for_each(|e| to.extend(e.to_le_bytes()));
        self.counts.iter().for_each(|c| to.extend(c.to_le_bytes()));
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + Clone + use<'_> {
    bytes.chunks_exact(4).filter_map(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b))
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + Clone + use<'_> {
    numbers(bytes).map(f32::from_bits)
}

/// Whitens an embedding: `z_i = scale_i * sum_j row_ij x_j - offset_i`, where `x_j` is the sum of every `len`th element
/// from the `j`th on, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedding<'a> {
    wire: EmbeddingWire<'a>,
}

impl<'a> Embedding<'a> {
    /// Whose elements.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.wire.port
    }

    /// Values of an embedding.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.wire.len as usize
    }

    /// Whether it has no values; it always has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.wire.len == 0
    }

    /// Elements that are added to a value: the tensor has `len` times `pool` of them.
    #[must_use]
    pub const fn pool(&self) -> usize {
        self.wire.pool as usize
    }

    /// Axes in use.
    #[must_use]
    pub const fn axes(&self) -> usize {
        self.wire.scales.len() / 4
    }

    /// Row, scale and offset of each axis.
    pub fn rows(&self) -> impl Iterator<Item = (&'a [u8], f32, f32)> + use<'a> {
        let rows = self.wire.rows.chunks_exact((self.wire.len as usize).max(1));
        rows.zip(floats(self.wire.scales)).zip(floats(self.wire.offsets)).map(|((row, s), o)| (row, s, o))
    }

    /// The bin of a squared distance: the first is for those below `2^distance_first`, each next one is twice as wide.
    #[must_use]
    pub fn distance_bin(&self, squared: f32) -> u8 {
        if squared.is_nan() || squared <= 0.0 {
            return 0;
        }
        let exponent = (squared.to_bits() >> 23) as i32 - 127;
        (exponent - i32::from(self.wire.distance_first) + 1).clamp(0, DISTANCES as i32 - 1) as u8
    }

    /// The exponent of the first bin's upper bound.
    #[must_use]
    pub const fn distance_first(&self) -> i8 {
        self.wire.distance_first
    }

    /// Observations of the reference by squared distance.
    pub fn distances(&self) -> impl Iterator<Item = u32> + use<'a> {
        numbers(self.wire.distances)
    }

    fn check(&self) -> Result<(), ReferenceError> {
        let w = &self.wire;
        let axes = w.scales.len() / 4;
        let sound = (1..=AXES).contains(&axes)
            && w.len > 0
            && w.pool > 0
            && w.scales.len() == 4 * axes
            && w.offsets.len() == 4 * axes
            && w.distances.len() == 4 * DISTANCES
            && Some(w.rows.len()) == (w.len as usize).checked_mul(axes);
        if !sound {
            return Err(ReferenceError::Length);
        }
        if u64::from(w.len) * u64::from(w.pool) > MAX_PRODUCTS {
            return Err(ReferenceError::Embedding);
        }
        if !floats(w.scales).chain(floats(w.offsets)).all(f32::is_finite) {
            return Err(ReferenceError::Number);
        }
        Ok(())
    }
}

/// A reference that was checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reference<'a> {
    wire: Wire<'a>,
}

impl<'a> Reference<'a> {
    /// For models without one: counters, latencies, classes and confidences are still counted.
    pub const NONE: Reference<'static> = Reference {
        wire: Wire {
            version: VERSION,
            n: 0,
            latency_first: latency::FIRST,
            deadline_us: 0,
            class_output: None,
            confidence_by: Confidence::Greatest,
            change: Change { mean: 0.0, drift: 0.0, threshold: 0.0 },
            classes: &[],
            confidence: &[],
            feature_count: 0,
            features: &[],
            embedding: None,
        },
    };

    /// Checks a package's drift section; nothing is copied.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReferenceError> {
        if bytes.first() != Some(&VERSION) {
            return Err(ReferenceError::Version);
        }
        let (wire, rest): (Wire<'a>, _) = postcard::take_from_bytes(bytes).map_err(|_| ReferenceError::Malformed)?;
        if !rest.is_empty() {
            return Err(ReferenceError::Malformed);
        }
        let reference = Self { wire };
        let count = usize::from(wire.feature_count);
        let lists = wire.classes.len().is_multiple_of(4)
            && wire.classes.len() <= 4 * crate::report::MAX_CLASSES
            && (wire.confidence.is_empty() || wire.confidence.len() == 8 * BINS)
            && count <= MAX_FEATURES
            && wire.features.len() == FEATURE_LEN * count
            && usize::from(wire.latency_first) + latency::BUCKETS <= 128;
        if !lists {
            return Err(ReferenceError::Length);
        }
        let Change { mean, drift, threshold } = wire.change;
        let finite = [mean, drift, threshold].iter().all(|v| v.is_finite() && *v >= 0.0);
        if !finite || reference.features().count() != count {
            return Err(ReferenceError::Number);
        }
        if let Some(embedding) = reference.embedding() {
            embedding.check()?;
        }
        Ok(reference)
    }

    /// Observations that it was made of.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.wire.n
    }

    /// The number of the first bucket of latencies.
    #[must_use]
    pub const fn latency_first(&self) -> u8 {
        self.wire.latency_first
    }

    /// Microseconds that an inference should take at most; 0: any.
    #[must_use]
    pub const fn deadline_us(&self) -> u32 {
        self.wire.deadline_us
    }

    /// The output that classifies, if one does.
    #[must_use]
    pub const fn class_output(&self) -> Option<u8> {
        self.wire.class_output
    }

    /// How the confidence is found in it.
    #[must_use]
    pub const fn confidence_by(&self) -> Confidence {
        self.wire.confidence_by
    }

    /// The test for a change.
    #[must_use]
    pub const fn change(&self) -> Change {
        self.wire.change
    }

    /// Observations by class.
    pub fn classes(&self) -> impl Iterator<Item = u32> + use<'a> {
        numbers(self.wire.classes)
    }

    /// Observations by confidence, in ten bins from 0 to 1, and how many of them were right, where that is known.
    pub fn confidence(&self) -> impl Iterator<Item = (u32, Option<u32>)> + use<'a> {
        let pair = |b: &[u8]| {
            let mut two = numbers(b);
            Some((two.next()?, two.next().filter(|right| *right != u32::MAX)))
        };
        self.wire.confidence.chunks_exact(8).filter_map(pair)
    }

    /// The watched values.
    pub fn features(&self) -> impl Iterator<Item = Feature> + use<'a> {
        self.wire.features.chunks_exact(FEATURE_LEN).map_while(Feature::read)
    }

    /// The embedding, if one is watched.
    #[must_use]
    pub fn embedding(&self) -> Option<Embedding<'a>> {
        self.wire.embedding.map(|wire| Embedding { wire })
    }
}

/// What a reference is written from.
#[cfg(feature = "std")]
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Observations.
    pub n: u64,
    /// The number of the first bucket of latencies.
    pub latency_first: u8,
    /// Microseconds that an inference should take at most; 0: any.
    pub deadline_us: u32,
    /// The output that classifies.
    pub class_output: Option<u8>,
    /// How the confidence is found in it.
    pub confidence_by: Confidence,
    /// The test for a change.
    pub change: Change,
    /// Observations by class.
    pub classes: std::vec::Vec<u32>,
    /// Observations by confidence with how many were right: none, or ten.
    pub confidence: std::vec::Vec<(u32, Option<u32>)>,
    /// The watched values.
    pub features: std::vec::Vec<Feature>,
    /// The embedding.
    pub embedding: Option<EmbeddingDraft>,
}

/// What an embedding is written from.
#[cfg(feature = "std")]
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingDraft {
    /// Whose elements.
    pub port: Port,
    /// Elements that are added to a value.
    pub pool: u32,
    /// The exponent of the first bin's upper bound.
    pub distance_first: i8,
    /// Rows, all of the same length, one to eight of them, with scale and offset.
    pub rows: std::vec::Vec<(std::vec::Vec<i8>, f32, f32)>,
    /// Observations by squared distance.
    pub distances: [u32; DISTANCES],
}

#[cfg(feature = "std")]
impl Draft {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            n: 0,
            latency_first: latency::FIRST,
            deadline_us: 0,
            class_output: None,
            confidence_by: Confidence::Greatest,
            change: Change { mean: 0.0, drift: 0.0, threshold: 0.0 },
            classes: std::vec![],
            confidence: std::vec![],
            features: std::vec![],
            embedding: None,
        }
    }

    /// The section's bytes, which [`Reference::read`] takes.
    ///
    /// # Errors
    /// What the reader would say of them.
    pub fn write(&self) -> Result<std::vec::Vec<u8>, ReferenceError> {
        use std::vec::Vec;
        let words = |list: &[u32]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let classes = words(&self.classes);
        let confidence: Vec<u32> = self.confidence.iter().flat_map(|(n, r)| [*n, r.unwrap_or(u32::MAX)]).collect();
        let confidence = words(&confidence);
        let mut features = Vec::new();
        self.features.iter().for_each(|f| f.write(&mut features));
        let rows = self.embedding.iter().flat_map(|e| &e.rows);
        let mut lists = (Vec::new(), Vec::new(), Vec::new());
        for (row, scale, offset) in rows {
            lists.0.extend(row.iter().map(|v| v.cast_unsigned()));
            lists.1.extend(scale.to_le_bytes());
            lists.2.extend(offset.to_le_bytes());
        }
        let distances = self.embedding.as_ref().map(|e| words(&e.distances)).unwrap_or_default();
        let embedding = self.embedding.as_ref().map(|e| EmbeddingWire {
            port: e.port,
            len: e.rows.first().map_or(0, |(row, ..)| row.len() as u32),
            pool: e.pool,
            distance_first: e.distance_first,
            rows: &lists.0,
            scales: &lists.1,
            offsets: &lists.2,
            distances: &distances,
        });
        let wire = Wire {
            version: VERSION,
            n: self.n,
            latency_first: self.latency_first,
            deadline_us: self.deadline_us,
            class_output: self.class_output,
            confidence_by: self.confidence_by,
            change: self.change,
            classes: &classes,
            confidence: &confidence,
            feature_count: u8::try_from(self.features.len()).map_err(|_| ReferenceError::Length)?,
            features: &features,
            embedding,
        };
        let bytes = postcard::to_stdvec(&wire).map_err(|_| ReferenceError::Malformed)?;
        Reference::read(&bytes)?;
        Ok(bytes)
    }
}

#[cfg(feature = "std")]
impl Default for Draft {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
