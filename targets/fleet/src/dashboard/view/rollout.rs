//! One rollout: its stages, what it is judged by, and why.

use askama::Template;

use super::{Badge, Chart, Compared, Frame, Model, Rate, Section, Serving, Tone};
use crate::dashboard::markup::Html;
use crate::dashboard::{figure, markup, picture};
use crate::outlook;
use crate::status::RollbackProgress;

/// The page of a rollout.
#[derive(Template)]
#[template(path = "rollout.html")]
pub(crate) struct RolloutPage {
    pub(crate) frame: Frame,
    pub(crate) id: String,
    /// From 0; goes with what is pressed, so that nothing moves that was seen in another stage.
    pub(crate) stage: u8,
    /// Where it is and why.
    pub(crate) status_line: String,
    /// When the server decides next.
    pub(crate) next_decision: Option<i64>,
    /// What a person does now.
    pub(crate) next: String,
    /// How far an ordered rollback has come.
    pub(crate) rollback: Option<RollbackProgress>,
    /// The guardrail with the most evidence, in a sentence.
    pub(crate) sentence: Option<String>,
    pub(crate) charts: Vec<Figure>,
    /// What people and the server did, the newest first.
    pub(crate) history: Vec<HistoryLine>,
    pub(crate) candidate: Model,
    pub(crate) base: Option<Model>,
    /// Devices that confirmed the candidate cannot go back to the base.
    pub(crate) irreversible: bool,
    pub(crate) phase: Badge,
    pub(crate) strategy: String,
    pub(crate) attempt: u16,
    pub(crate) started_by: Option<String>,
    pub(crate) stages: Vec<StageStep>,
    pub(crate) compared: Compared,
    pub(crate) serving: Option<Serving>,
    pub(crate) last: Option<VerdictLine>,
    pub(crate) earlier: Vec<VerdictLine>,
    pub(crate) guardrails: Vec<GuardrailLine>,
    pub(crate) margins: Vec<MarginLine>,
    pub(crate) hops: Vec<HopLine>,
    pub(crate) reported: Arms,
    pub(crate) devices: Vec<RunningLine>,
    pub(crate) actions: Vec<Action>,
    pub(crate) approvals: Vec<Approval>,
}

impl RolloutPage {
    /// Returns the next decision, absolute and relative.
    pub(crate) fn decision_time(&self, at: &i64) -> String {
        match *at {
            at if at <= self.frame.now => "due now".to_owned(),
            at => format!("{} UTC ({})", figure::moment(at), figure::ago(at, self.frame.now)),
        }
    }

    /// Returns whether devices go back because a person or the server ordered it.
    pub(crate) fn is_recalled(&self) -> bool {
        self.rollback.is_some()
    }

    /// Returns the part of the devices that are back, as a bar.
    pub(crate) fn back_bar(&self, back: &RollbackProgress) -> Html {
        let part = back.back as f64 / back.devices().max(1) as f64;
        picture::bar(part, if back.back == back.devices() { "good" } else { "busy" })
    }
}

/// A chart with its caption.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// For the element's id.
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) chart: Chart,
}

/// An act of a person or of the server.
#[derive(Clone, Debug)]
pub(crate) struct HistoryLine {
    pub(crate) time: i64,
    pub(crate) what: String,
    pub(crate) who: String,
    pub(crate) reason: Option<String>,
}

/// A number for either arm.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arms {
    pub(crate) canary: Rate,
    pub(crate) control: Rate,
}

/// A stage in the row of stages.
#[derive(Clone, Debug)]
pub(crate) struct StageStep {
    pub(crate) name: String,
    /// Whom it reaches, and beside whom.
    pub(crate) exposure: String,
    pub(crate) state: StepState,
    /// What it takes to leave it: words, so far, needed.
    pub(crate) needs: Vec<Need>,
    pub(crate) approval: bool,
}

/// Where a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepState {
    Passed,
    Current(Tone),
    ToCome,
}

impl StepState {
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Current(_) => "current",
            Self::ToCome => "to-come",
        }
    }

    pub(crate) const fn tone(self) -> Tone {
        match self {
            Self::Passed => Tone::Good,
            Self::Current(tone) => tone,
            Self::ToCome => Tone::Quiet,
        }
    }

    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Current(Tone::Bad) => "rolled back here",
            Self::Current(_) => "now",
            Self::ToCome => "to come",
        }
    }
}

/// Something a stage waits for.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub(crate) what: &'static str,
    pub(crate) found: u64,
    pub(crate) needed: u64,
}

impl Need {
    pub(crate) fn text(&self) -> String {
        format!("{} of {}", figure::count(self.found), figure::count(self.needed))
    }

    pub(crate) fn is_met(&self) -> bool {
        self.found >= self.needed
    }

    pub(crate) fn bar(&self) -> Html {
        let part = self.found as f64 / self.needed.max(1) as f64;
        picture::bar(part, if self.is_met() { "good" } else { "busy" })
    }
}

/// A verdict with its numbers.
#[derive(Clone, Debug)]
pub(crate) struct VerdictLine {
    pub(crate) n: i64,
    pub(crate) time: i64,
    /// From 1.
    pub(crate) stage: u32,
    pub(crate) verdict: Badge,
    pub(crate) reason: String,
    pub(crate) numbers: Vec<(String, String)>,
    /// Verdicts like it in a row, this one included.
    pub(crate) repeated: u64,
    pub(crate) since: i64,
}

/// A guardrail: canary against control.
#[derive(Clone, Debug)]
pub(crate) struct GuardrailLine {
    pub(crate) name: &'static str,
    pub(crate) meaning: &'static str,
    /// Bad device-days of device-days.
    pub(crate) canary: Rate,
    pub(crate) control: Rate,
    /// Natural logarithms: the e-value, its largest, and the bound at which the candidate is taken back.
    pub(crate) ln_e: f64,
    pub(crate) peak: f64,
    pub(crate) bound: f64,
    pub(crate) required: bool,
    /// The least ratio of rates that this rollout sees.
    pub(crate) detectable: Detectable,
}

/// What a comparison of this size can see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Detectable {
    /// From this ratio on.
    From(f64),
    /// Not even a hundredfold.
    Nothing,
    /// The control's rate is not known yet.
    Unknown,
}

impl Detectable {
    pub(crate) fn text(self) -> String {
        match self {
            Self::From(ratio) => format!("{ratio:.1} ×"),
            Self::Nothing => "none up to 100 ×".to_owned(),
            Self::Unknown => figure::NONE.to_owned(),
        }
    }
}

impl GuardrailLine {
    /// An e-value that is no number counts as crossed, as it does for the gate.
    pub(crate) fn is_crossed(&self) -> bool {
        self.ln_e >= self.bound || self.ln_e.is_nan() || self.bound.is_nan()
    }

    pub(crate) fn state(&self) -> Badge {
        match self {
            _ if self.is_crossed() => Badge::new(Tone::Bad, "over the limit"),
            Self { required: true, canary: Rate { of: 0, .. }, .. } => Badge::new(Tone::Quiet, "no data, holds"),
            Self { canary: Rate { of: 0, .. }, .. } => Badge::new(Tone::Quiet, "no data"),
            _ if self.ln_e > self.bound / 2.0 => Badge::new(Tone::Watch, "rising"),
            _ => Badge::new(Tone::Good, "below the limit"),
        }
    }

    pub(crate) fn ratio(&self) -> String {
        match (self.canary.part(), self.control.part()) {
            (Some(canary), Some(control)) if control > 0.0 => format!("{:.2} ×", canary / control),
            (Some(_), Some(_)) if self.canary.bad == 0 => "none bad".to_owned(),
            (Some(_), Some(_)) => "control 0".to_owned(),
            _ => figure::NONE.to_owned(),
        }
    }

    /// Returns the evidence against its limit: `6.8 of 2.0`.
    pub(crate) fn evidence(&self) -> String {
        outlook::evidence_text(self.ln_e, self.bound)
    }

    /// A p-value that holds at all looks together.
    pub(crate) fn p(&self) -> String {
        if self.peak.is_nan() { figure::NONE.to_owned() } else { figure::number((-self.peak).exp().min(1.0)) }
    }

    pub(crate) fn bar(&self) -> Html {
        picture::bar(if self.ln_e.is_nan() { 1.0 } else { self.ln_e / self.bound }, self.state().tone.class())
    }
}

/// A metric against its margin.
#[derive(Clone, Debug)]
pub(crate) struct MarginLine {
    pub(crate) metric: String,
    /// `at most 10 % more`.
    pub(crate) rule: String,
    pub(crate) canary: Option<f64>,
    pub(crate) control: Option<f64>,
    pub(crate) devices: (u64, u64),
    /// How much worse it is, in the metric's unit, with the margin in the same unit.
    pub(crate) worse: Option<(f64, f64)>,
    pub(crate) margin: f64,
    pub(crate) place: Badge,
}

impl MarginLine {
    pub(crate) fn mean(&self, mean: &Option<f64>) -> String {
        mean.map_or_else(|| figure::NONE.to_owned(), figure::number)
    }

    pub(crate) fn interval(&self) -> String {
        match self.worse {
            Some((low, high)) => format!("{} to {}", figure::number(low), figure::number(high)),
            None => "no interval yet".to_owned(),
        }
    }

    pub(crate) fn picture(&self) -> Html {
        let class = self.place.tone.class();
        self.worse.map_or_else(|| Html(String::new()), |(low, high)| picture::interval(low, high, self.margin, class))
    }
}

/// The arms' sizes after a hop.
#[derive(Clone, Debug)]
pub(crate) struct HopLine {
    pub(crate) name: &'static str,
    pub(crate) canary: u64,
    pub(crate) control: u64,
    /// The planned share of the canary.
    pub(crate) expected: Option<f64>,
    pub(crate) ln_e: f64,
    pub(crate) bound: f64,
}

impl HopLine {
    pub(crate) fn share(&self) -> String {
        Rate::new(self.canary, self.canary + self.control).percent()
    }

    pub(crate) fn state(&self) -> Badge {
        match self {
            Self { expected: None, .. } => Badge::new(Tone::Quiet, "not compared"),
            _ if self.ln_e >= self.bound || self.ln_e.is_nan() => Badge::new(Tone::Bad, "not as planned"),
            Self { canary: 0, control: 0, .. } => Badge::new(Tone::Quiet, figure::NONE),
            _ => Badge::new(Tone::Good, "as planned"),
        }
    }
}

/// Devices of an arm by what they report to run. The page's note defines each column.
#[derive(Clone, Debug)]
pub(crate) struct RunningLine {
    pub(crate) arm: &'static str,
    /// Devices in the arm.
    pub(crate) exposed: u64,
    /// Devices that serve by the candidate now.
    pub(crate) updated: u64,
    /// Devices that have it in shadow mode or alternate with it.
    pub(crate) beside: u64,
    /// Devices that went back on their own.
    pub(crate) reverted: u64,
    /// Devices that went back because the fleet ordered it.
    pub(crate) returned: u64,
    /// Devices without a report since they were assigned.
    pub(crate) waiting: u64,
}

/// What becomes of devices that have the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// As the form says it.
    pub(crate) value: &'static str,
    pub(crate) label: &'static str,
}

impl Fate {
    pub(crate) const REVERT: Self = Self { value: "revert", label: "go back to what they had" };
    pub(crate) const KEEP: Self = Self { value: "keep", label: "keep the candidate; nobody else gets it" };
    /// With a base; and without one, where there is nothing to go back to.
    pub(crate) const EITHER: &[Self] = &[Self::REVERT, Self::KEEP];
    pub(crate) const STAY: &[Self] = &[Self::KEEP];
}

/// Something that a person may do to it now.
#[derive(Clone, Debug)]
pub(crate) struct Action {
    /// The last part of its address.
    pub(crate) verb: &'static str,
    pub(crate) label: &'static str,
    pub(crate) style: &'static str,
    /// The question of the dialog.
    pub(crate) question: String,
    /// What will happen.
    pub(crate) consequence: String,
    /// A reason has to be given.
    pub(crate) reason: bool,
    /// What may become of devices that have the candidate; nothing: the question does not arise.
    pub(crate) fates: &'static [Fate],
    /// Why it may not be done, when it may not.
    pub(crate) refused: Option<String>,
}

/// Somebody's word for a stage.
#[derive(Clone, Debug)]
pub(crate) struct Approval {
    /// The stage that was left, from 1; 0: the draft.
    pub(crate) stage: u32,
    pub(crate) who: String,
    pub(crate) time: i64,
}

/// Asks whether to do it, where there is no script for a dialog.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(crate) struct ConfirmPage {
    pub(crate) frame: Frame,
    pub(crate) id: String,
    pub(crate) stage: u8,
    pub(crate) action: Action,
}
