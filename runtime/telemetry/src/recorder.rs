//! The recorder: fixed arrays that each inference adds to.
//!
//! An inference is first reduced to a [`Sample`], a few bytes without borrows; this reads the tensors. Adding a sample
//! takes the same few instructions whatever the model. So where inferences happen in an interrupt or in another task,
//! samples go through a `heapless::spsc::Queue` to the one task that has the recorder; the queue needs no lock, and
//! [`Recorder::take`] swaps a window out whole because nobody else touches it.

use crate::latency::{self, BUCKETS};
use crate::reference::{Confidence, Port, Reference, Statistic};
use crate::window::{AXIS_ONE, Arm, Counter, Counters, Head, Window};
use crate::{AXES, BINS, DISTANCES};

/// Watched values that a sample has room for.
pub const SAMPLE_FEATURES: usize = 4;
/// No bin.
const NONE: u8 = u8::MAX;
/// Distances beyond it count as it does, so that one outlier is no change.
const FAR: f32 = 1024.0;

/// Why an inference gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Fault {
    /// Its input could not be used.
    Input,
    /// It failed while it ran.
    Inference,
    /// Its output could not be used.
    Output,
    /// Anything else.
    Other,
}

/// Elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'v> {
    /// Floats.
    F32(&'v [f32]),
    /// Integers that stand for `scale * (q - zero_point)`.
    I8 {
        /// The elements.
        q: &'v [i8],
        /// Value of one step.
        scale: f32,
        /// The integer that means zero.
        zero_point: i32,
    },
}

impl Values<'_> {
    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I8 { q, .. } => q.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element of an index.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<f32> {
        match *self {
            Self::F32(v) => v.get(i).copied(),
            Self::I8 { q, scale, zero_point } => q.get(i).map(|q| scale * (i32::from(*q) - zero_point) as f32),
        }
    }

    /// Index and value of the first greatest element; what is no number is passed over.
    #[must_use]
    pub fn greatest(&self) -> Option<(usize, f32)> {
        let index = match *self {
            Self::F32(v) => first_greatest(v.iter().copied().filter(|x| !x.is_nan()).zip(indices(v)))?,
            Self::I8 { q, .. } => first_greatest(q.iter().copied().zip(0..))?,
        };
        self.get(index).map(|value| (index, value))
    }

    /// A watched number; `None` of nothing, or where there is no such element.
    #[must_use]
    pub fn statistic(&self, statistic: Statistic) -> Option<f32> {
        if self.is_empty() {
            return None;
        }
        match (statistic, *self) {
            (Statistic::Element(i), _) => self.get(i as usize),
            (Statistic::Mean, Self::F32(v)) => Some(v.iter().sum::<f32>() / v.len() as f32),
            (Statistic::Mean, Self::I8 { q, scale, zero_point }) => {
                let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
                Some(scale * (sum as f32 / q.len() as f32 - zero_point as f32))
            }
            (Statistic::Range, Self::F32(v)) => {
                // `min` and `max` are calls on a Cortex-M4. What is no number changes neither, as with them.
                let wider = |(l, h): (f32, f32), x: &f32| (if *x < l { *x } else { l }, if *x > h { *x } else { h });
                let (low, high) = v.iter().fold((f32::INFINITY, f32::NEG_INFINITY), wider);
                Some(high - low)
            }
            (Statistic::Range, Self::I8 { q, scale, .. }) => {
                let (low, high) = q.iter().fold((i8::MAX, i8::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
                Some(scale * f32::from(i16::from(high) - i16::from(low)))
            }
        }
    }

    /// How sure a softmax would be of the element of this value.
    fn softmax(&self, top: f32) -> f32 {
        let sum: f32 = (0..self.len()).filter_map(|i| self.get(i)).map(|x| libm::expf(x - top)).sum();
        1.0 / sum
    }

    /// Bit 0: something is no number. Bit 1: more than a quarter of it is at an end of the range.
    fn faults(&self) -> u8 {
        match *self {
            Self::F32(v) => u8::from(v.iter().any(|x| !x.is_finite())),
            Self::I8 { q, .. } => {
                let ends = q.iter().filter(|q| matches!(**q, i8::MIN | i8::MAX)).count();
                u8::from(ends > q.len() / 4) << 1
            }
        }
    }

    /// A hash of the elements, so that the same input is known again: FNV-1a over words.
    fn hash(&self, start: u32) -> u32 {
        let step = |hash: u32, word: u32| (hash ^ word).wrapping_mul(0x0100_0193).rotate_left(5);
        match *self {
            Self::F32(v) => v.iter().fold(start, |h, x| step(h, x.to_bits())),
            Self::I8 { q, .. } => {
                let words = q.chunks_exact(4);
                let rest = words.remainder().iter().fold(start, |h, x| step(h, *x as u8 as u32));
                words.fold(rest, |h, w| step(h, w.iter().fold(0, |word, x| word << 8 | u32::from(x.cast_unsigned()))))
            }
        }
    }
}

/// Indices of what is a number.
fn indices(values: &[f32]) -> impl Iterator<Item = usize> + use<'_> {
    values.iter().enumerate().filter(|(_, x)| !x.is_nan()).map(|(i, _)| i)
}

fn first_greatest<T: PartialOrd>(values: impl Iterator<Item = (T, usize)>) -> Option<usize> {
    let mut best: Option<(T, usize)> = None;
    for (value, i) in values {
        if best.as_ref().is_none_or(|(top, _)| value > *top) {
            best = Some((value, i));
        }
    }
    best.map(|(_, i)| i)
}

/// What can be seen of an inference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'v> {
    /// Microseconds that it took.
    pub micros: u32,
    /// Why it gave nothing, if it did not.
    pub fault: Option<Fault>,
    /// The inputs, as far as somebody should look at them.
    pub inputs: &'v [Values<'v>],
    /// The outputs.
    pub outputs: &'v [Values<'v>],
    /// The class that it gave.
    pub class: Option<u16>,
    /// How sure it was, 0 to 1.
    pub confidence: Option<f32>,
    /// Whether the application's own rule held the output back.
    pub guardrail: bool,
    /// Whether it came from a cache.
    pub cached: bool,
    /// Microjoules it took, if they are measured.
    pub energy_uj: u32,
    /// If a second model ran too: whether it gave the same class.
    pub shadow: Option<bool>,
}

impl Observation<'_> {
    /// With class and confidence of the first output, taken as probabilities.
    #[must_use]
    pub fn classified(self) -> Self {
        self.classified_by(0, Confidence::Greatest)
    }

    /// With class and confidence of an output.
    #[must_use]
    pub fn classified_by(mut self, output: u8, confidence: Confidence) -> Self {
        if let Some(values) = self.outputs.get(usize::from(output)) {
            let greatest = values.greatest();
            self.class = greatest.and_then(|(i, _)| u16::try_from(i).ok());
            self.confidence = greatest.map(|(_, top)| match confidence {
                Confidence::Greatest => top,
                Confidence::Softmax => values.softmax(top),
            });
        }
        self
    }

    fn port(&self, port: Port) -> Option<&Values<'_>> {
        match port {
            Port::Input(i) => self.inputs.get(usize::from(i)),
            Port::Output(i) => self.outputs.get(usize::from(i)),
        }
    }
}

/// An inference, reduced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    micros: u32,
    energy_uj: u32,
    input_hash: u32,
    squared: f32,
    change: [f32; 3],
    axes: [i16; AXES],
    class: u16,
    features: [u8; SAMPLE_FEATURES],
    latency: u8,
    confidence: u8,
    distance: u8,
    flags: u16,
}

/// Bits of [`Sample::flags`].
mod flag {
    pub(super) const FAULTS: u16 = 0b111;
    pub(super) const LATE: u16 = 1 << 3;
    pub(super) const NOT_A_NUMBER: u16 = 1 << 4;
    pub(super) const SATURATED: u16 = 1 << 5;
    pub(super) const GUARDRAIL: u16 = 1 << 6;
    pub(super) const CACHED: u16 = 1 << 7;
    pub(super) const SHADOW: u16 = 1 << 8;
    pub(super) const DISAGREES: u16 = 1 << 9;
    pub(super) const HASHED: u16 = 1 << 10;
}

const NO_CLASS: u16 = u16::MAX;

impl Sample {
    /// Reduces an inference. This reads every element of the inputs once, and of what the reference watches.
    #[must_use]
    pub fn of(reference: &Reference<'_>, seen: &Observation<'_>) -> Self {
        let deadline = reference.deadline_us();
        let mut flags = match seen.fault {
            None => 0,
            Some(Fault::Input) => 1,
            Some(Fault::Inference) => 2,
            Some(Fault::Output) => 3,
            Some(Fault::Other) => 4,
        };
        let mut set = |bit: u16, when: bool| flags |= if when { bit } else { 0 };
        set(flag::LATE, deadline > 0 && seen.micros > deadline);
        set(flag::GUARDRAIL, seen.guardrail);
        set(flag::CACHED, seen.cached);
        set(flag::SHADOW, seen.shadow.is_some());
        set(flag::DISAGREES, seen.shadow == Some(false));
        let faults = seen.inputs.iter().fold(0, |all, v| all | v.faults());
        set(flag::NOT_A_NUMBER, faults & 1 != 0);
        set(flag::SATURATED, faults & 2 != 0);
        set(flag::HASHED, !seen.inputs.is_empty() && !seen.cached);
        let change = reference.change();
        let mut sample = Self {
            micros: seen.micros,
            energy_uj: seen.energy_uj,
            input_hash: seen.inputs.iter().fold(0x811C_9DC5, |hash, v| v.hash(hash)),
            squared: 0.0,
            change: [change.mean, change.drift, change.threshold],
            axes: [0; AXES],
            class: seen.class.unwrap_or(NO_CLASS),
            features: [NONE; SAMPLE_FEATURES],
            latency: latency::place(seen.micros, reference.latency_first()) as u8,
            confidence: seen.confidence.filter(|c| !c.is_nan()).map_or(NONE, confidence_bin),
            distance: NONE,
            flags,
        };
        for (bin, feature) in sample.features.iter_mut().zip(reference.features()) {
            let value = seen.port(feature.port).and_then(|v| v.statistic(feature.statistic));
            *bin = value.filter(|v| !v.is_nan()).map_or(NONE, |v| feature.bin(v));
        }
        sample.embed(reference, seen);
        sample
    }

    /// With what another sample, of nothing but an input, saw: for whoever cannot show inputs and outputs at one time, since
    /// they share memory.
    #[must_use]
    pub fn joined(mut self, input: &Self) -> Self {
        const OF_INPUTS: u16 = flag::NOT_A_NUMBER | flag::SATURATED | flag::HASHED;
        self.flags |= input.flags & OF_INPUTS;
        self.input_hash = self.input_hash.rotate_left(7) ^ input.input_hash;
        let features = self.features.iter_mut().zip(input.features);
        features.filter(|(bin, _)| **bin == NONE).for_each(|(bin, seen)| *bin = seen);
        if self.distance == NONE {
            (self.distance, self.squared, self.axes) = (input.distance, input.squared, input.axes);
        }
        self
    }

    /// With whether a second model, which ran too, gave the same class.
    #[must_use]
    pub const fn with_shadow(mut self, agrees: bool) -> Self {
        self.flags |= flag::SHADOW | if agrees { 0 } else { flag::DISAGREES };
        self
    }

    fn embed(&mut self, reference: &Reference<'_>, seen: &Observation<'_>) {
        let Some(embedding) = reference.embedding() else { return };
        let Some(values) = seen.port(embedding.port()) else { return };
        let len = embedding.len();
        if values.len() != len * embedding.pool() {
            return;
        }
        let mut squared = 0.0;
        for ((row, scale, offset), axis) in embedding.rows().zip(&mut self.axes) {
            let z = scale * project(values, row, len) - offset;
            squared += z * z;
            // A cast of what is no number gives 0; of what is too great, the greatest.
            *axis = (z.clamp(-127.0, 127.0) * AXIS_ONE as f32) as i16;
        }
        if squared.is_finite() {
            self.squared = squared;
            self.distance = embedding.distance_bin(squared);
        } else {
            self.axes = [0; AXES];
        }
    }
}

/// The sum of products of a row and a tensor, in which the row repeats.
fn project(values: &Values<'_>, row: &[u8], len: usize) -> f32 {
    match *values {
        Values::F32(v) => {
            let part = |v: &[f32]| v.iter().zip(row).map(|(x, r)| x * f32::from(r.cast_signed())).sum::<f32>();
            v.chunks_exact(len).map(part).sum()
        }
        Values::I8 { q, .. } => {
            let part =
                |q: &[i8]| q.iter().zip(row).map(|(x, r)| i32::from(*x) * i32::from(r.cast_signed())).sum::<i32>();
            q.chunks_exact(len).map(part).sum::<i32>() as f32
        }
    }
}

/// The bin of a confidence.
#[must_use]
pub fn confidence_bin(confidence: f32) -> u8 {
    ((confidence.clamp(0.0, 1.0) * BINS as f32) as u8).min(BINS as u8 - 1)
}

/// Counts of the window that is open, with room for `C` classes and `F` watched values (at most
/// [`SAMPLE_FEATURES`]).
///
/// Histograms are 16 bits wide: a window has at most 65,535 inferences. More of them are not counted in it, and make it
/// incomplete; [`Recorder::is_full`] tells in time.
#[derive(Clone, Debug)]
pub struct Recorder<const C: usize, const F: usize> {
    counters: Counters,
    axes: [i32; AXES],
    latency: [u16; BUCKETS],
    confidence: [u16; BINS],
    classes: [u16; C],
    features: [[u16; BINS]; F],
    distances: [u16; DISTANCES],
    boot: u32,
    seq: u32,
    since: u32,
    input_hash: u32,
    change: [f32; 2],
    model: u16,
    previous: u16,
    latency_first: u8,
    class_count: u16,
    feature_count: u8,
    arm: Arm,
    complete: bool,
    hashed: bool,
}

/// The recorder for a model of up to ten classes and two watched values.
pub type DefaultRecorder = Recorder<10, 2>;

impl<const C: usize, const F: usize> Recorder<C, F> {
    /// An empty one. `boot` is the number of the device's start, `model` the first two bytes of the package's digest.
    ///
    /// Why the device started it does not know: whoever does counts faults as [`Counter::Resets`].
    #[must_use]
    pub fn new(boot: u32, model: u16) -> Self {
        Self {
            counters: Counters::default(),
            axes: [0; AXES],
            latency: [0; BUCKETS],
            confidence: [0; BINS],
            classes: [0; C],
            features: [[0; BINS]; F],
            distances: [0; DISTANCES],
            boot,
            seq: 0,
            since: 0,
            input_hash: 0,
            change: [0.0; 2],
            model,
            previous: NO_CLASS,
            latency_first: latency::FIRST,
            class_count: C as u16,
            feature_count: F as u8,
            arm: Arm::Rest,
            complete: true,
            hashed: false,
        }
    }

    /// Sets what the reference says of the shape: classes, watched values, the first bucket.
    #[must_use]
    pub fn shaped(mut self, reference: &Reference<'_>) -> Self {
        self.latency_first = reference.latency_first();
        let classes = reference.classes().count();
        if classes > 0 {
            self.class_count = classes.min(C) as u16;
        }
        self.feature_count = reference.features().count().min(F).min(SAMPLE_FEATURES) as u8;
        self
    }

    /// Goes on with another model: windows are numbered on, what was known of the one before is forgotten. The open window
    /// should be taken before.
    pub fn serve(&mut self, model: u16, reference: &Reference<'_>) {
        let fresh = Self::new(self.boot, model).shaped(reference);
        (self.model, self.latency_first) = (model, fresh.latency_first);
        (self.class_count, self.feature_count) = (fresh.class_count, fresh.feature_count);
        (self.previous, self.hashed, self.change) = (NO_CLASS, false, [0.0; 2]);
    }

    /// Sets the part in a rollout from now on; the open window should be taken before.
    pub fn set_arm(&mut self, arm: Arm) {
        self.arm = arm;
    }

    /// Counts something other than an inference.
    pub fn count(&mut self, counter: Counter, by: u32) {
        self.counters.add(counter, by);
    }

    /// The counters of the open window.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the window should be taken, because no more fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.counters.inferences() >= u32::from(u16::MAX)
    }

    /// Adds an inference. Tells whether the change detector gave an alarm.
    pub fn add(&mut self, sample: &Sample) -> bool {
        if self.is_full() {
            self.complete = false;
            return false;
        }
        let has = |bit: u16| sample.flags & bit != 0;
        self.counters.add(Counter::Inferences, 1);
        match sample.flags & flag::FAULTS {
            0 => {}
            1 => self.counters.add(Counter::InputErrors, 1),
            2 => self.counters.add(Counter::InferenceErrors, 1),
            3 => self.counters.add(Counter::OutputErrors, 1),
            _ => self.counters.add(Counter::OtherErrors, 1),
        }
        let counters = [
            (flag::LATE, Counter::DeadlineMisses),
            (flag::NOT_A_NUMBER, Counter::NotANumber),
            (flag::SATURATED, Counter::Saturated),
            (flag::GUARDRAIL, Counter::Guardrails),
            (flag::CACHED, Counter::CacheHits),
            (flag::SHADOW, Counter::ShadowRuns),
            (flag::DISAGREES, Counter::ShadowDisagreements),
        ];
        counters.iter().filter(|(bit, _)| has(*bit)).for_each(|(_, counter)| self.counters.add(*counter, 1));
        self.counters.add(Counter::Energy, sample.energy_uj);
        if has(flag::HASHED) {
            if self.hashed && self.input_hash == sample.input_hash {
                self.counters.add(Counter::Stuck, 1);
            }
            (self.input_hash, self.hashed) = (sample.input_hash, true);
        }
        bump(&mut self.latency, sample.latency);
        bump(&mut self.confidence, sample.confidence);
        bump(&mut self.distances, sample.distance);
        self.features.iter_mut().zip(sample.features).for_each(|(bins, bin)| bump(bins, bin));
        if sample.class != NO_CLASS {
            if let Some(count) = self.classes.get_mut(usize::from(sample.class)) {
                *count += 1;
            }
            if self.previous != NO_CLASS && self.previous != sample.class {
                self.counters.add(Counter::Flips, 1);
            }
            self.previous = sample.class;
        }
        if sample.distance == NONE {
            return false;
        }
        // At most 65,535 times 127 * 256: it fits.
        self.axes.iter_mut().zip(sample.axes).for_each(|(sum, z)| *sum += i32::from(z));
        self.changed(sample)
    }

    /// Page's test: the sum of what distances are more than they should be, above its least value so far.
    fn changed(&mut self, sample: &Sample) -> bool {
        let [mean, drift, threshold] = sample.change;
        if threshold <= 0.0 {
            return false;
        }
        let [sum, least] = &mut self.change;
        *sum += sample.squared.min(FAR) - mean - drift;
        *least = least.min(*sum);
        let alarm = *sum - *least > threshold;
        if alarm {
            self.change = [0.0; 2];
            self.counters.add(Counter::Alarms, 1);
        }
        alarm
    }

    /// Closes the window, at `now` seconds since the start of the device, and opens the next. What belongs to no window,
    /// the detector and the class before, goes on.
    pub fn take(&mut self, now: u32) -> Window<C, F> {
        let head = Head {
            model: self.model,
            arm: self.arm,
            boot: self.boot,
            seq: self.seq,
            span: 1,
            seconds: now.saturating_sub(self.since),
            complete: self.complete,
        };
        let mut window = Window::new(head, self.latency_first, self.class_count, self.feature_count);
        window.counters = self.counters;
        widen(&mut window.latency, &mut self.latency);
        widen(&mut window.confidence, &mut self.confidence);
        widen(&mut window.classes, &mut self.classes);
        widen(&mut window.distances, &mut self.distances);
        window.features.iter_mut().zip(&mut self.features).for_each(|(to, from)| widen(to, from));
        window.axes.iter_mut().zip(&mut self.axes).for_each(|(to, from)| *to = i64::from(core::mem::take(from)));
        self.counters = Counters::default();
        (self.seq, self.since, self.complete) = (self.seq.wrapping_add(1), now, true);
        window
    }
}

/// One more in a bin; [`NONE`] is beyond all.
fn bump(bins: &mut [u16], bin: u8) {
    if let Some(count) = bins.get_mut(usize::from(bin)) {
        *count += 1;
    }
}

/// Moves counts.
fn widen(to: &mut [u32], from: &mut [u16]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = u32::from(core::mem::take(from)));
}

#[cfg(test)]
mod tests;
