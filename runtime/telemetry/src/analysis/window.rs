//! From reports and references to what is analysed.

use super::fleet::{Baseline, Feature, Tally};
use crate::BINS;
use crate::aggregate::Aggregate;
use crate::reference::{Port, Reference, Statistic};
use crate::window::{AXIS_ONE, Counter, Window};

/// What a watched value is called: `input 0 mean`, `output 1 [17]`.
#[must_use]
pub fn feature_name(port: Port, statistic: Statistic) -> String {
    let port = match port {
        Port::Input(i) => format!("input {i}"),
        Port::Output(i) => format!("output {i}"),
    };
    match statistic {
        Statistic::Mean => format!("{port} mean"),
        Statistic::Range => format!("{port} range"),
        Statistic::Element(e) => format!("{port} [{e}]"),
    }
}

impl From<&Reference<'_>> for Baseline {
    /// The counts of a package's reference; of [`Reference::NONE`] nothing.
    fn from(reference: &Reference<'_>) -> Self {
        let features = reference.features().map(|f| {
            let bins = usize::from(f.bins).min(BINS);
            Feature {
                name: feature_name(f.port, f.statistic),
                edges: f.edges.iter().take(bins + 1).map(|&e| f64::from(e)).collect(),
                counts: f.counts.iter().take(bins).map(|&c| u64::from(c)).collect(),
            }
        });
        let embedding = reference.embedding();
        Self {
            class: reference.classes().map(u64::from).collect(),
            confidence: reference.confidence().map(|(n, right)| (n.into(), right.map(u64::from))).collect(),
            distance: embedding.iter().flat_map(|e| e.distances()).map(u64::from).collect(),
            features: features.collect(),
            n: reference.n(),
            points: embedding.map_or(0, |e| e.distances().map(u64::from).sum()),
            axes: embedding.map_or(0, |e| e.axes()),
        }
    }
}

impl From<&Aggregate> for Tally {
    /// The counts of a device's windows.
    fn from(windows: &Aggregate) -> Self {
        let bad = [Counter::NotANumber, Counter::Saturated, Counter::Stuck].map(|c| windows.counter(c));
        let bad = bad.iter().fold(0u64, |sum, n| sum.saturating_add(*n)).min(windows.counter(Counter::Inferences));
        Self {
            class: windows.classes().to_vec(),
            confidence: windows.confidence().to_vec(),
            distance: windows.distances().to_vec(),
            features: windows.features().iter().map(|f| f.to_vec()).collect(),
            points: windows.embeddings(),
            sum: windows.axes().iter().map(|&sum| sum as f64 / f64::from(AXIS_ONE)).collect(),
            inputs: [bad, windows.counter(Counter::Inferences) - bad],
        }
    }
}

impl<const C: usize, const F: usize> From<&Window<C, F>> for Tally {
    /// The counts of one window.
    fn from(window: &Window<C, F>) -> Self {
        let mut one = Aggregate::new();
        one.add(window);
        Self::from(&one)
    }
}
