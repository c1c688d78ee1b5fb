//! Windows of many devices, added.

use std::vec::Vec;

use crate::latency::BUCKETS;
use crate::window::{AXIS_ONE, Counter, Window};
use crate::{AXES, BINS, DISTANCES};

/// Latency buckets of all numbers that there are.
pub const ALL_BUCKETS: usize = 128;

/// Sums over windows, of one device or many: 64 bits for each count. Adding is associative and commutative, and nothing
/// is lost: what two aggregates have, their sum has.
///
/// All windows should be of one model; what they have of different shapes is kept side by side, the shorter with zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    windows: u64,
    incomplete: u64,
    rounded: u64,
    seconds: u64,
    counters: [u64; Counter::ALL.len()],
    latency: Vec<u64>,
    confidence: [u64; BINS],
    classes: Vec<u64>,
    features: Vec<[u64; BINS]>,
    distances: [u64; DISTANCES],
    axes: [i128; AXES],
}

fn add(to: &mut [u64], from: impl IntoIterator<Item = u64>) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.saturating_add(from));
}

impl Aggregate {
    /// No windows.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a window.
    pub fn add<const C: usize, const F: usize>(&mut self, window: &Window<C, F>) {
        let head = window.head();
        self.windows = self.windows.saturating_add(head.span.into());
        self.incomplete = self.incomplete.saturating_add(if head.complete { 0 } else { head.span.into() });
        self.rounded = self.rounded.saturating_add(if window.is_exact() { 0 } else { head.span.into() });
        self.seconds = self.seconds.saturating_add(head.seconds.into());
        for (sum, counter) in self.counters.iter_mut().zip(Counter::ALL) {
            let value = u64::from(window.counters().get(counter));
            *sum = if counter.is_peak() { (*sum).max(value) } else { sum.saturating_add(value) };
        }
        let wide = |list: &[u32]| list.iter().map(|c| u64::from(*c)).collect::<Vec<u64>>();
        if window.latency().iter().any(|c| *c > 0) {
            self.latency.resize(ALL_BUCKETS, 0);
            let from = self.latency.get_mut(usize::from(window.latency_first())..).unwrap_or(&mut []);
            add(from, wide(window.latency()));
        }
        add(&mut self.confidence, wide(window.confidence()));
        self.room(window.classes().len(), window.features().len());
        add(&mut self.classes, wide(window.classes()));
        self.features.iter_mut().zip(window.features()).for_each(|(to, from)| add(to, wide(from)));
        add(&mut self.distances, wide(window.distances()));
        self.axes.iter_mut().zip(window.axes()).for_each(|(to, from)| *to += i128::from(*from));
    }

    fn room(&mut self, classes: usize, features: usize) {
        self.classes.resize(self.classes.len().max(classes), 0);
        self.features.resize(self.features.len().max(features), [0; BINS]);
    }

    /// Adds another.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in [
            (&mut self.windows, other.windows),
            (&mut self.incomplete, other.incomplete),
            (&mut self.rounded, other.rounded),
            (&mut self.seconds, other.seconds),
        ] {
            *to = to.saturating_add(from);
        }
        for ((sum, counter), value) in self.counters.iter_mut().zip(Counter::ALL).zip(other.counters) {
            *sum = if counter.is_peak() { (*sum).max(value) } else { sum.saturating_add(value) };
        }
        self.latency.resize(self.latency.len().max(other.latency.len()), 0);
        add(&mut self.latency, other.latency.iter().copied());
        add(&mut self.confidence, other.confidence);
        self.room(other.classes.len(), other.features.len());
        add(&mut self.classes, other.classes.iter().copied());
        self.features.iter_mut().zip(&other.features).for_each(|(to, from)| add(to, *from));
        add(&mut self.distances, other.distances);
        self.axes.iter_mut().zip(other.axes).for_each(|(to, from)| *to += from);
    }

    /// Windows in it.
    #[must_use]
    pub const fn windows(&self) -> u64 {
        self.windows
    }

    /// Windows in it that do not have all that happened.
    #[must_use]
    pub const fn incomplete(&self) -> u64 {
        self.incomplete
    }

    /// Windows in it whose numbers are rounded.
    #[must_use]
    pub const fn rounded(&self) -> u64 {
        self.rounded
    }

    /// Seconds that they lasted together.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.seconds
    }

    /// A counter's sum, or peak.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).copied().unwrap_or(0)
    }

    /// Inferences by duration: bucket `i` of [`latency`](crate::latency) at index `i`; empty or 128 of them.
    #[must_use]
    pub fn latency(&self) -> &[u64] {
        &self.latency
    }

    /// Inferences by confidence, in ten bins from 0 to 1.
    #[must_use]
    pub const fn confidence(&self) -> &[u64; BINS] {
        &self.confidence
    }

    /// Inferences by class.
    #[must_use]
    pub fn classes(&self) -> &[u64] {
        &self.classes
    }

    /// Watched values by bins of the package's reference.
    #[must_use]
    pub fn features(&self) -> &[[u64; BINS]] {
        &self.features
    }

    /// Embeddings by squared distance.
    #[must_use]
    pub const fn distances(&self) -> &[u64; DISTANCES] {
        &self.distances
    }

    /// Embeddings measured.
    #[must_use]
    pub fn embeddings(&self) -> u64 {
        self.distances.iter().fold(0, |sum: u64, c| sum.saturating_add(*c))
    }

    /// Sums of the whitened embeddings by axis, in 256ths of a standard deviation.
    #[must_use]
    pub const fn axes(&self) -> &[i128; AXES] {
        &self.axes
    }

    /// The mean of the whitened embeddings, in standard deviations; `None` without embeddings.
    #[must_use]
    pub fn mean(&self) -> Option<[f64; AXES]> {
        let n = self.embeddings();
        (n > 0).then(|| self.axes.map(|sum| sum as f64 / f64::from(AXIS_ONE) / n as f64))
    }
}

const _: () = assert!(BUCKETS <= ALL_BUCKETS);

#[cfg(test)]
mod tests;
