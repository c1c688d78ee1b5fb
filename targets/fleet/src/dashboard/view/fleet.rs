//! The health of the fleet.

use askama::Template;

use dunlin_rollout::Phase;

use super::{Badge, Chart, Frame, Model, Rate, Section, Tone};
use crate::dashboard::{figure, markup};
use crate::status::{phase_name, phase_words};

/// The first page.
#[derive(Template)]
#[template(path = "health.html")]
pub(crate) struct HealthPage {
    pub(crate) frame: Frame,
    pub(crate) devices: Devices,
    /// Hours that the rates below are of.
    pub(crate) hours: u32,
    pub(crate) rates: Vec<FleetRate>,
    /// Alerts that nobody has acknowledged; `alerts` has the newest of them.
    pub(crate) open: u64,
    pub(crate) alerts: Vec<Alert>,
    /// What is said where no alert is open.
    pub(crate) calm: Badge,
    pub(crate) rollouts: Vec<RolloutLine>,
    pub(crate) versions: Vec<VersionLine>,
    pub(crate) versions_over_time: Chart,
    pub(crate) rates_over_time: Chart,
}

impl HealthPage {
    /// Alerts that somebody has to do something about.
    pub(crate) fn urgent(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|a| a.tone != Tone::Good)
    }

    /// What went well, for who wants to know.
    pub(crate) fn news(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|a| a.tone == Tone::Good)
    }
}

/// Devices by when they were last heard of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Devices {
    pub(crate) all: u64,
    /// Heard of within three intervals.
    pub(crate) online: u64,
    pub(crate) silent: u64,
    /// Enrolled, and never heard of since.
    pub(crate) never: u64,
}

impl Devices {
    pub(crate) fn silent_rate(self) -> Rate {
        Rate::new(self.silent, self.all)
    }

    pub(crate) fn online_rate(self) -> Rate {
        Rate::new(self.online, self.all)
    }
}

/// How often something bad happens in the fleet.
#[derive(Clone, Debug)]
pub(crate) struct FleetRate {
    pub(crate) name: &'static str,
    /// What it is a share of.
    pub(crate) unit: &'static str,
    pub(crate) now: Rate,
    /// The same length of time before.
    pub(crate) before: Rate,
}

impl FleetRate {
    /// How it moved, in words.
    pub(crate) fn moved(&self) -> String {
        match (self.now.part(), self.before.part()) {
            (Some(_), Some(before)) => format!("{} before", figure::percent(before)),
            (Some(_), None) => "nothing to compare with before".to_owned(),
            (None, _) => "nothing has reported".to_owned(),
        }
    }
}

/// Something that somebody has to know.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) id: String,
    pub(crate) tone: Tone,
    pub(crate) time: i64,
    pub(crate) title: String,
    /// Where to look.
    pub(crate) link: Option<String>,
    /// The numbers it rests on.
    pub(crate) numbers: Vec<(String, String)>,
    /// The step of [`PLAYBOOK`] that comes next, from 0.
    pub(crate) step: Option<usize>,
    /// What to do next, in a sentence.
    pub(crate) next: String,
    /// Whether this viewer may say that they look after it.
    pub(crate) may_acknowledge: bool,
    /// When somebody said so, and who.
    pub(crate) looked_after: Option<(i64, String)>,
    /// What this viewer may do to its rollout from here, and its address.
    pub(crate) actions: Vec<RowAction>,
}

/// The steps from a fault to its repair, in their order.
pub(crate) const PLAYBOOK: [&str; 6] = ["pause", "capture", "label", "retrain", "shadow", "canary"];

impl Alert {
    /// The steps, when one of them is next.
    pub(crate) fn playbook(&self) -> Vec<Step> {
        let Some(next) = self.step else { return Vec::new() };
        let step = |(i, name): (usize, &&'static str)| Step { name, is_done: i < next, is_next: i == next };
        PLAYBOOK.iter().enumerate().map(step).collect()
    }
}

/// A step of the playbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) is_done: bool,
    pub(crate) is_next: bool,
}

/// A rollout in a list.
#[derive(Clone, Debug)]
pub(crate) struct RolloutLine {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) candidate: String,
    pub(crate) base: Option<String>,
    pub(crate) phase: Badge,
    /// From 1.
    pub(crate) stage: u32,
    pub(crate) stages: usize,
    /// The stage's name and what it is compared with.
    pub(crate) exposure: (String, String),
    pub(crate) status_line: String,
    /// Whether it has started.
    pub(crate) started: bool,
    /// Devices that run the candidate now, of those assigned to it.
    pub(crate) updated: Rate,
    /// Devices that went back, on their own or because the fleet ordered it.
    pub(crate) back: u64,
    /// Since when it is where it is.
    pub(crate) since: i64,
    pub(crate) last_actor: Option<String>,
    /// What this viewer may do to it from here.
    pub(crate) actions: Vec<RowAction>,
}

/// An action on a rollout that a list or an alert offers. It asks on a page of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowAction {
    /// The last part of its address.
    pub(crate) verb: &'static str,
    pub(crate) label: &'static str,
}

impl RolloutLine {
    /// Stage and number of stages, from 1.
    pub(crate) fn place(&self) -> String {
        format!("{} of {}", self.stage.min(self.stages as u32), self.stages)
    }
}

/// A place in the list of rollouts, as it stands in the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct RolloutFilter {
    /// A phase by its name in the API; empty: all.
    pub(crate) phase: String,
    /// A model; empty: all.
    pub(crate) model: String,
    /// From 1; 0 is the first too.
    pub(crate) page: u32,
}

impl RolloutFilter {
    pub(crate) fn is_set(&self) -> bool {
        !self.phase.is_empty() || !self.model.is_empty()
    }

    /// Returns the address of a page of the same list.
    pub(crate) fn address(&self, page: u32) -> String {
        let escape = crate::dashboard::page::escape;
        format!("/rollouts?phase={}&model={}&page={page}", escape(&self.phase), escape(&self.model))
    }
}

/// The list of rollouts.
#[derive(Template)]
#[template(path = "rollouts.html")]
pub(crate) struct RolloutsPage {
    pub(crate) frame: Frame,
    pub(crate) rollouts: Vec<RolloutLine>,
    pub(crate) filter: RolloutFilter,
    /// Models that have rollouts.
    pub(crate) models: Vec<String>,
    /// Rollouts that the filter finds.
    pub(crate) found: u64,
    pub(crate) older: Option<String>,
    pub(crate) newer: Option<String>,
}

impl RolloutsPage {
    /// Names and words of the phases.
    pub(crate) fn phases(&self) -> Vec<(&'static str, &'static str)> {
        Phase::ALL.iter().map(|phase| (phase_name(*phase), phase_words(*phase))).collect()
    }
}

/// What so many devices run.
#[derive(Clone, Debug)]
pub(crate) struct VersionLine {
    /// Nothing: devices that have not said what they run.
    pub(crate) model: Option<Model>,
    pub(crate) devices: u64,
    pub(crate) online: u64,
    pub(crate) errors: Rate,
    pub(crate) deadline_misses: Rate,
    /// Place of its line in the chart, for the colour; of those that are in `others` the last.
    pub(crate) place: usize,
}

impl HealthPage {
    pub(crate) fn share(&self, line: &VersionLine) -> String {
        Rate::new(line.devices, self.devices.all).percent()
    }
}
