//! Drift: what devices see now, against the reference.

use askama::Template;

use super::{Badge, Frame, Model, Section, Tone};
use crate::dashboard::markup::Html;
use crate::dashboard::{figure, picture};

/// The page of drift.
#[derive(Template)]
#[template(path = "drift.html")]
pub(crate) struct DriftPage {
    pub(crate) frame: Frame,
    /// Models that have reported, and the one that is shown.
    pub(crate) models: Vec<(Model, bool)>,
    pub(crate) hours: u32,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) summary: Option<Badge>,
}

/// Something that is counted.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) meaning: String,
    pub(crate) bins: Vec<String>,
    pub(crate) now: Vec<u64>,
    pub(crate) reference: Vec<u64>,
    pub(crate) verdicts: Vec<Statistic>,
}

impl Subject {
    /// The gravest of its verdicts; nothing can be said only where none of them says anything.
    pub(crate) fn tone(&self) -> Tone {
        let any = |tone: Tone| self.verdicts.iter().any(|v| v.level.tone == tone);
        [Tone::Bad, Tone::Watch, Tone::Good].into_iter().find(|t| any(*t)).unwrap_or(Tone::Quiet)
    }

    pub(crate) fn picture(&self) -> Html {
        picture::histogram(&self.now, &self.reference)
    }

    /// Bin, share now, share of the reference.
    pub(crate) fn rows(&self) -> Vec<(String, String, String)> {
        let share = |counts: &[u64], i: usize| {
            let of = counts.iter().sum();
            super::Rate::new(counts.get(i).copied().unwrap_or(0), of).percent()
        };
        let bins = self.now.len().max(self.reference.len());
        let name = |i: usize| self.bins.get(i).cloned().unwrap_or_else(|| i.to_string());
        (0..bins).map(|i| (name(i), share(&self.now, i), share(&self.reference, i))).collect()
    }
}

/// What one statistic says.
#[derive(Clone, Debug)]
pub(crate) struct Statistic {
    pub(crate) name: String,
    pub(crate) level: Badge,
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    pub(crate) warn: f64,
    pub(crate) act: f64,
    pub(crate) n: u64,
    pub(crate) devices: u64,
    pub(crate) reason: String,
}

impl Statistic {
    pub(crate) fn value(&self) -> String {
        self.value.map_or_else(|| figure::NONE.to_owned(), figure::number)
    }

    pub(crate) fn interval(&self) -> String {
        match self.interval {
            Some((low, high)) => format!("{} to {}", figure::number(low), figure::number(high)),
            None => "none".to_owned(),
        }
    }
}
