//! `dunlin drift`: what the reports of a fleet say about its model, against the model's reference.

pub mod svg;
pub mod terminal;

use dunlin_telemetry::analysis::{Baseline, Fleet, Verdict};

/// One histogram: shares now and in the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What is counted.
    pub title: String,
    /// Inferences now.
    pub n: u64,
    /// Inferences of the reference.
    pub m: u64,
    /// The bins.
    pub bins: Vec<Bin>,
}

/// A bin of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin {
    /// What is in it.
    pub label: String,
    /// Its share now.
    pub now: f64,
    /// Its share in the reference.
    pub reference: f64,
}

/// All there is to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Model.
    pub title: String,
    /// Devices, reports, inferences.
    pub subtitle: String,
    /// Histograms.
    pub panels: Vec<Panel>,
    /// Verdicts on them.
    pub verdicts: Vec<Verdict>,
}

impl Panel {
    /// Of counts; bins without a name are numbered.
    #[must_use]
    pub fn new(title: &str, now: &[u64], reference: &[u64], labels: &[String]) -> Self {
        let (n, m) = (now.iter().sum::<u64>(), reference.iter().sum::<u64>());
        let share = |counts: &[u64], all: u64, i: usize| match (counts.get(i), all) {
            (Some(&count), 1..) => count as f64 / all as f64,
            _ => 0.0,
        };
        let bins = (0..now.len().max(reference.len()))
            .map(|i| Bin {
                label: labels.get(i).cloned().unwrap_or_else(|| i.to_string()),
                now: share(now, n, i),
                reference: share(reference, m, i),
            })
            .collect();
        Self { title: title.to_owned(), n, m, bins }
    }

    /// The histograms of a fleet beside those of its baseline, with the classes' names.
    #[must_use]
    pub fn all(fleet: &Fleet, baseline: &Baseline, classes: &[String], distances: &[String]) -> Vec<Self> {
        let total = fleet.total();
        let mut panels = Vec::new();
        if !baseline.class.is_empty() {
            panels.push(Self::new("class", &total.class, &baseline.class, classes));
        }
        if !baseline.confidence.is_empty() {
            let bins = baseline.confidence.len();
            let labels: Vec<String> = (0..bins).map(|b| between(b as f64 / bins as f64, (b + 1) as f64 / bins as f64)).collect();
            let reference: Vec<u64> = baseline.confidence.iter().map(|b| b.0).collect();
            panels.push(Self::new("confidence", &total.confidence, &reference, &labels));
        }
        if !baseline.distance.is_empty() {
            panels.push(Self::new("distance from the reference, squared", &total.distance, &baseline.distance, distances));
        }
        for (i, feature) in baseline.features.iter().enumerate() {
            let last = feature.counts.len().saturating_sub(1);
            let label = |b: usize, edge: &[f64]| match edge {
                [_, high] if b == 0 => format!("< {}", brief(*high)),
                [low, _] if b == last => format!("≥ {}", brief(*low)),
                [low, high] => between(*low, *high),
                _ => b.to_string(),
            };
            let labels: Vec<String> = feature.edges.windows(2).enumerate().map(|(b, e)| label(b, e)).collect();
            let now = total.features.get(i).map_or(&[][..], Vec::as_slice);
            panels.push(Self::new(&feature.name, now, &feature.counts, &labels));
        }
        panels
    }
}

/// A number in at most about five characters.
fn brief(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    match magnitude {
        -2..=3 => {
            let digits = usize::try_from(2 - magnitude).unwrap_or(0).min(3);
            let text = format!("{value:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        _ if value == 0.0 => "0".to_owned(),
        _ => format!("{value:.1e}"),
    }
}

fn between(low: f64, high: f64) -> String {
    format!("{}–{}", brief(low), brief(high))
}
