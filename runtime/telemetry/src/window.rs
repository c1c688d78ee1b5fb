//! A window: the counts of a stretch of time. Windows merge by addition.

use crate::bits::total;
use crate::latency::BUCKETS;
use crate::{AXES, BINS, DISTANCES};

/// What is counted. The order is that of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Inferences, also those that failed or were taken from a cache.
    Inferences = 0,
    /// Inferences that failed because of their input.
    InputErrors,
    /// Inferences that failed while they ran.
    InferenceErrors,
    /// Inferences whose output the application could not use.
    OutputErrors,
    /// Inferences that failed otherwise.
    OtherErrors,
    /// Inferences that took longer than their deadline.
    DeadlineMisses,
    /// Inputs with something that is no number.
    NotANumber,
    /// Inputs of which more than a quarter is at an end of the range.
    Saturated,
    /// Inputs that were the same as the one before.
    Stuck,
    /// Outputs that the application's own rule held back.
    Guardrails,
    /// Classes other than that of the inference before.
    Flips,
    /// Alarms of the change detector.
    Alarms,
    /// Inferences that a second model made too.
    ShadowRuns,
    /// Those of them in which it gave another class.
    ShadowDisagreements,
    /// Inferences that were answered from a cache.
    CacheHits,
    /// Starts after a fault since a report last arrived; losses of power do not count.
    Resets,
    /// Windows that were lost on the device.
    Dropped,
    /// Microjoules, as far as the target measures them.
    Energy,
    /// The greatest number of bytes of the arena in use; this one merges to the greater.
    ArenaPeak,
}

impl Counter {
    /// All, in the order of the wire.
    pub const ALL: [Self; 19] = [
        Self::Inferences,
        Self::InputErrors,
        Self::InferenceErrors,
        Self::OutputErrors,
        Self::OtherErrors,
        Self::DeadlineMisses,
        Self::NotANumber,
        Self::Saturated,
        Self::Stuck,
        Self::Guardrails,
        Self::Flips,
        Self::Alarms,
        Self::ShadowRuns,
        Self::ShadowDisagreements,
        Self::CacheHits,
        Self::Resets,
        Self::Dropped,
        Self::Energy,
        Self::ArenaPeak,
    ];

    /// Its name, as exporters and tables use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inferences => "inferences",
            Self::InputErrors => "input_errors",
            Self::InferenceErrors => "inference_errors",
            Self::OutputErrors => "output_errors",
            Self::OtherErrors => "other_errors",
            Self::DeadlineMisses => "deadline_misses",
            Self::NotANumber => "not_a_number",
            Self::Saturated => "saturated",
            Self::Stuck => "stuck",
            Self::Guardrails => "guardrails",
            Self::Flips => "flips",
            Self::Alarms => "alarms",
            Self::ShadowRuns => "shadow_runs",
            Self::ShadowDisagreements => "shadow_disagreements",
            Self::CacheHits => "cache_hits",
            Self::Resets => "resets",
            Self::Dropped => "dropped",
            Self::Energy => "energy_microjoules",
            Self::ArenaPeak => "arena_peak_bytes",
        }
    }

    /// Whether it merges to the greater and not to the sum.
    #[must_use]
    pub const fn is_peak(self) -> bool {
        matches!(self, Self::ArenaPeak)
    }
}

/// A number for each [`Counter`]; they stay at 2^32 - 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters([u32; Counter::ALL.len()]);

/// The greatest count: one less than fits, so that one more can be written.
pub(crate) const MOST: u32 = u32::MAX - 1;

impl Counters {
    /// One of them.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u32 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Inferences.
    #[must_use]
    pub fn inferences(&self) -> u32 {
        self.get(Counter::Inferences)
    }

    /// Inferences that failed, of all kinds.
    #[must_use]
    pub fn errors(&self) -> u32 {
        let kinds = [Counter::InputErrors, Counter::InferenceErrors, Counter::OutputErrors, Counter::OtherErrors];
        kinds.iter().fold(0, |sum: u32, k| sum.saturating_add(self.get(*k)).min(MOST))
    }

    /// Inputs that are not what inputs should be, of all kinds.
    #[must_use]
    pub fn bad_inputs(&self) -> u32 {
        let kinds = [Counter::NotANumber, Counter::Saturated, Counter::Stuck];
        kinds.iter().fold(0, |sum: u32, k| sum.saturating_add(self.get(*k)).min(MOST))
    }

    /// Counts `by` more; a peak becomes the greater.
    pub fn add(&mut self, counter: Counter, by: u32) {
        if let Some(count) = self.0.get_mut(counter as usize) {
            *count = if counter.is_peak() { (*count).max(by) } else { count.saturating_add(by) }.min(MOST);
        }
    }

    /// Sets one, as far as it can be counted.
    pub(crate) fn set(&mut self, counter: Counter, to: u32) {
        if let Some(count) = self.0.get_mut(counter as usize) {
            *count = to.min(MOST);
        }
    }
}

/// Whose part in a rollout a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Arm {
    /// None.
    #[default]
    Rest = 0,
    /// It keeps the old model.
    Control = 1,
    /// It runs the candidate.
    Candidate = 2,
    /// The candidate runs beside the old model and serves nobody.
    Shadow = 3,
}

impl Arm {
    /// The arm of a number.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            1 => Self::Control,
            2 => Self::Candidate,
            3 => Self::Shadow,
            _ => Self::Rest,
        }
    }
}

/// Where a window belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The first two bytes of the package's digest, the first the more significant.
    pub model: u16,
    /// Its part in a rollout.
    pub arm: Arm,
    /// How often the device has started.
    pub boot: u32,
    /// The window's number since that start; of merged ones the last.
    pub seq: u32,
    /// Windows that are merged in it: those with the numbers `seq - span + 1` to `seq`.
    pub span: u32,
    /// Seconds that it lasted.
    pub seconds: u32,
    /// Whether all that happened in it is counted.
    pub complete: bool,
}

/// Counts of a stretch of time, with room for `C` classes and `F` watched values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window<const C: usize, const F: usize> {
    pub(crate) head: Head,
    pub(crate) counters: Counters,
    pub(crate) latency_first: u8,
    pub(crate) latency: [u32; BUCKETS],
    pub(crate) confidence: [u32; BINS],
    pub(crate) class_count: u16,
    pub(crate) classes: [u32; C],
    pub(crate) feature_count: u8,
    pub(crate) features: [[u32; BINS]; F],
    pub(crate) distances: [u32; DISTANCES],
    pub(crate) axes: [i64; AXES],
    pub(crate) exact: bool,
}

/// Why two windows do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// They are of different models.
    Model,
    /// They are of different arms of a rollout.
    Arm,
    /// They are not of one start of the device, or not one after the other.
    Order,
    /// They have different buckets, classes or watched values.
    Shape,
    /// A count would not fit.
    Full,
}

impl core::fmt::Display for MergeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Model => "the windows are of different models",
            Self::Arm => "the windows are of different arms of a rollout",
            Self::Order => "the windows do not follow one another",
            Self::Shape => "the windows have different buckets, classes or watched values",
            Self::Full => "a count would not fit",
        })
    }
}

impl core::error::Error for MergeError {}

impl<const C: usize, const F: usize> Window<C, F> {
    /// Nothing, yet.
    #[must_use]
    pub fn new(head: Head, latency_first: u8, classes: u16, features: u8) -> Self {
        Self {
            head,
            counters: Counters::default(),
            latency_first,
            latency: [0; BUCKETS],
            confidence: [0; BINS],
            class_count: classes.min(u16::try_from(C).unwrap_or(u16::MAX)),
            classes: [0; C],
            feature_count: features.min(u8::try_from(F).unwrap_or(u8::MAX)),
            features: [[0; BINS]; F],
            distances: [0; DISTANCES],
            axes: [0; AXES],
            exact: true,
        }
    }

    /// Where it belongs.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the histograms are exact: those of [`Profile::Mini`](crate::Profile::Mini) are rounded.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.exact
    }

    /// Inferences by duration. Bucket `i` is number `latency_first() + i` of [`latency`](crate::latency).
    #[must_use]
    pub const fn latency(&self) -> &[u32; BUCKETS] {
        &self.latency
    }

    /// The number of the first bucket.
    #[must_use]
    pub const fn latency_first(&self) -> u8 {
        self.latency_first
    }

    /// Inferences by confidence, in ten bins from 0 to 1.
    #[must_use]
    pub const fn confidence(&self) -> &[u32; BINS] {
        &self.confidence
    }

    /// Inferences by class.
    #[must_use]
    pub fn classes(&self) -> &[u32] {
        self.classes.get(..usize::from(self.class_count)).unwrap_or(&[])
    }

    /// Watched values, by bins of the package's reference.
    #[must_use]
    pub fn features(&self) -> &[[u32; BINS]] {
        self.features.get(..usize::from(self.feature_count)).unwrap_or(&[])
    }

    /// Embeddings by squared distance from the reference's mean, in whitened coordinates.
    #[must_use]
    pub const fn distances(&self) -> &[u32; DISTANCES] {
        &self.distances
    }

    /// Embeddings measured.
    #[must_use]
    pub fn embeddings(&self) -> u32 {
        total(&self.distances)
    }

    /// The mean of the whitened embeddings along an axis, in standard deviations of the reference.
    #[must_use]
    pub fn mean(&self, axis: usize) -> Option<f64> {
        let n = self.embeddings();
        let sum = *self.axes.get(axis)?;
        (n > 0).then(|| sum as f64 / f64::from(AXIS_ONE) / f64::from(n))
    }

    /// The sums of the whitened embeddings by axis, in 256ths of a standard deviation.
    #[must_use]
    pub const fn axes(&self) -> &[i64; AXES] {
        &self.axes
    }

    /// Adds a window that follows this one.
    ///
    /// # Errors
    /// When it does not follow, or does not fit; then nothing changes.
    pub fn merge(&mut self, next: &Self) -> Result<(), MergeError> {
        let (a, b) = (&self.head, &next.head);
        if a.model != b.model {
            return Err(MergeError::Model);
        }
        if a.arm != b.arm {
            return Err(MergeError::Arm);
        }
        let follows = b.seq.checked_sub(b.span) == Some(a.seq) && b.span > 0;
        if a.boot != b.boot || !follows {
            return Err(MergeError::Order);
        }
        let head = Head {
            seq: b.seq,
            span: a.span.checked_add(b.span).ok_or(MergeError::Full)?,
            seconds: a.seconds.checked_add(b.seconds).ok_or(MergeError::Full)?,
            complete: a.complete && b.complete,
            ..*a
        };
        let shape = |w: &Self| (w.latency_first, w.class_count, w.feature_count);
        if shape(self) != shape(next) {
            return Err(MergeError::Shape);
        }
        let mut sum = *self;
        sum.head = head;
        sum.exact &= next.exact;
        for counter in Counter::ALL {
            let by = next.counters.get(counter);
            if !counter.is_peak() && sum.counters.get(counter).checked_add(by).is_none_or(|n| n > MOST) {
                return Err(MergeError::Full);
            }
            sum.counters.add(counter, by);
        }
        let counts = |w: &mut Self, n: &Self| -> Option<()> {
            add(&mut w.latency, &n.latency)?;
            add(&mut w.confidence, &n.confidence)?;
            add(&mut w.classes, &n.classes)?;
            add(&mut w.distances, &n.distances)?;
            w.features.iter_mut().zip(&n.features).try_for_each(|(to, from)| add(to, from))?;
            w.axes.iter_mut().zip(&n.axes).try_for_each(|(to, from)| {
                *to = to.checked_add(*from)?;
                Some(())
            })
        };
        counts(&mut sum, next).ok_or(MergeError::Full)?;
        *self = sum;
        Ok(())
    }
}

/// One standard deviation in [`Window::axes`].
pub const AXIS_ONE: i32 = 256;

/// Adds counts, if their sum can be counted.
fn add(to: &mut [u32], from: &[u32]) -> Option<()> {
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.checked_add(*from)?;
    }
    (to.iter().try_fold(0u32, |sum, c| sum.checked_add(*c))? <= MOST).then_some(())
}
