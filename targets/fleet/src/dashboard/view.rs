//! What pages show, as plain values, and the templates that show it.
//!
//! Nothing here asks the store: a page is a struct that [`super::query`] fills and `templates/` draws.

mod device;
mod drift;
mod fleet;
mod log;
mod operate;
mod rollout;
mod serving;

pub(crate) use device::*;
pub(crate) use drift::*;
pub(crate) use fleet::*;
pub(crate) use log::*;
pub(crate) use operate::*;
pub(crate) use rollout::*;
pub(crate) use serving::*;

use super::figure;

/// A place in the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Health,
    Rollouts,
    Drift,
    Devices,
    Flags,
    Audit,
}

impl Section {
    /// The navigation: place, address, words.
    pub(crate) const ALL: [(Self, &str, &str); 6] = [
        (Self::Health, "/", "Health"),
        (Self::Rollouts, "/rollouts", "Rollouts"),
        (Self::Drift, "/drift", "Drift"),
        (Self::Devices, "/devices", "Devices"),
        (Self::Flags, "/flags", "Flags"),
        (Self::Audit, "/audit", "Audit"),
    ];
}

/// What every page has around it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) title: String,
    pub(crate) section: Section,
    pub(crate) tenant: String,
    pub(crate) actor: String,
    pub(crate) role: String,
    /// Goes with every action; see [`super::session`].
    pub(crate) csrf: String,
    /// The moment of the page, seconds since 1970.
    pub(crate) now: i64,
    /// Where inference is stopped.
    pub(crate) stops: Vec<Banner>,
    /// Whether the viewer may stop and resume inference and set flags.
    pub(crate) may_operate: bool,
    /// What an action just did.
    pub(crate) notice: Option<String>,
}

/// How something is, with a mark and a word of its own so that no colour is needed to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Watch,
    /// Somebody has to act.
    Bad,
    /// Under way.
    Busy,
    /// Nothing can be said, or nothing is to be said.
    Quiet,
}

impl Tone {
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Watch => "watch",
            Self::Bad => "bad",
            Self::Busy => "busy",
            Self::Quiet => "quiet",
        }
    }

    /// The mark's outline in a square of 16.
    pub(crate) const fn outline(self) -> &'static str {
        match self {
            Self::Good => "M3 8.5l3.5 3.5L13 4.5",
            Self::Watch => "M8 2.5L14.5 13.5H1.5zM8 6.5v3.5M8 11.6v.4",
            Self::Bad => "M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2zM5.5 5.5l5 5M10.5 5.5l-5 5",
            Self::Busy => "M8 1.5a6.5 6.5 0 1 0 6.5 6.5M8 4.5V8l2.5 2",
            Self::Quiet => "M3.5 8h9",
        }
    }
}

/// A state in a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Badge {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

impl Badge {
    pub(crate) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into() }
    }
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) bad: u64,
    pub(crate) of: u64,
}

impl Rate {
    pub(crate) const fn new(bad: u64, of: u64) -> Self {
        Self { bad, of }
    }

    /// Nothing of nothing is not zero.
    pub(crate) fn part(self) -> Option<f64> {
        (self.of > 0).then(|| self.bad as f64 / self.of as f64)
    }

    pub(crate) fn percent(self) -> String {
        self.part().map_or_else(|| figure::NONE.to_owned(), figure::percent)
    }

    pub(crate) fn counts(self) -> String {
        format!("{} of {}", figure::count(self.bad), figure::count(self.of))
    }
}

/// A model's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Hexadecimal.
    pub(crate) digest: String,
}

impl Model {
    pub(crate) fn short(&self) -> &str {
        figure::short(&self.digest)
    }
}

/// Lines over time, for the chart and for the table beneath it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chart {
    /// Seconds since 1970, rising.
    pub(crate) times: Vec<i64>,
    pub(crate) lines: Vec<Line>,
    /// Drawn on top of each other.
    pub(crate) stacked: bool,
    /// Shares, written as percentages.
    pub(crate) share: bool,
    /// Microseconds, written as milliseconds.
    pub(crate) micros: bool,
    /// Moments that are marked.
    pub(crate) marks: Vec<Mark>,
}

/// A moment on a chart.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) time: i64,
    pub(crate) label: String,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// As many as there are moments; nothing where nothing is known.
    pub(crate) values: Vec<Option<f64>>,
}

impl Chart {
    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty() || self.lines.iter().all(|l| l.values.iter().all(Option::is_none))
    }

    /// As the page's script takes it.
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "times": self.times,
            "names": self.lines.iter().map(|l| &l.name).collect::<Vec<_>>(),
            "values": self.lines.iter().map(|l| &l.values).collect::<Vec<_>>(),
            "stacked": self.stacked,
            "share": self.share,
            "micros": self.micros,
            "marks": self.marks.iter().map(|m| (m.time, &m.label)).collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// At most a dozen rows for the table, newest first.
    pub(crate) fn rows(&self) -> Vec<(i64, Vec<String>)> {
        let step = self.times.len().div_ceil(12).max(1);
        let written = |v: Option<f64>| match v {
            None => figure::NONE.to_owned(),
            Some(v) if self.share => figure::percent(v),
            Some(v) if self.micros => format!("{} ms", figure::number(v / 1000.0)),
            Some(v) => figure::count(v.max(0.0).round() as u64),
        };
        let row = |(i, time): (usize, &i64)| {
            (*time, self.lines.iter().map(|l| written(l.values.get(i).copied().flatten())).collect())
        };
        self.times.iter().enumerate().rev().step_by(step).map(row).collect()
    }
}
