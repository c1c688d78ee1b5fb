//! The kill switch, the form of a flag, and the alerts of the past.

use askama::Template;

use super::{Badge, Frame, Section, Tone};
use crate::dashboard::{figure, markup};
use crate::flags::reach::Reach;
use crate::flags::serving::StopStatus;

/// Asks before inference is stopped or resumed.
#[derive(Template)]
#[template(path = "serving.html")]
pub(crate) struct ServingPage {
    pub(crate) frame: Frame,
    /// Whether it is about stopping; else about resuming.
    pub(crate) stops: bool,
    /// The model that it is about; nothing: the whole fleet.
    pub(crate) model: Option<String>,
    /// Devices that it is about.
    pub(crate) devices: i64,
    /// The other models that could be stopped alone, and their names in an address.
    pub(crate) models: Vec<(String, String)>,
    /// Seconds between polls.
    pub(crate) poll_seconds: u32,
}

impl ServingPage {
    /// What has to be typed to confirm.
    pub(crate) fn expected(&self) -> &str {
        self.model.as_deref().unwrap_or(&self.frame.tenant)
    }

    pub(crate) fn verb(&self) -> &'static str {
        if self.stops { "stop" } else { "resume" }
    }

    pub(crate) fn what(&self) -> String {
        match &self.model {
            Some(model) => format!("inference of {model}"),
            None => "all inference".to_owned(),
        }
    }
}

/// A stop of inference, for the banner.
#[derive(Clone, Debug)]
pub(crate) struct Banner {
    pub(crate) what: String,
    /// Address of the page that resumes.
    pub(crate) resume: String,
    pub(crate) since: i64,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) obeying: i64,
    pub(crate) devices: i64,
    pub(crate) silent: i64,
}

impl From<StopStatus> for Banner {
    fn from(of: StopStatus) -> Self {
        let resume = match &of.model {
            Some(model) => format!("/serving/resume?model={}", crate::dashboard::page::escape(model)),
            None => "/serving/resume".to_owned(),
        };
        Self {
            what: of.what(),
            resume,
            since: of.since,
            by: of.by,
            reason: of.reason,
            obeying: of.obeying,
            devices: of.devices,
            silent: of.silent,
        }
    }
}

impl Banner {
    /// How far the stop has come.
    pub(crate) fn progress(&self) -> String {
        let n = |n: i64| figure::count(n.unsigned_abs());
        let silent = if self.silent > 0 { format!("; {} are silent", n(self.silent)) } else { String::new() };
        format!("{} of {} devices obey{silent}", n(self.obeying), n(self.devices))
    }

    /// Since when.
    pub(crate) fn when(&self, now: &i64) -> markup::Html {
        markup::when(&self.since, now)
    }

    pub(crate) fn title(&self) -> String {
        let mut title = self.what.clone();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        title
    }
}

/// What somebody wrote into the form of a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(default)]
pub(crate) struct FlagForm {
    pub(crate) csrf: String,
    pub(crate) key: String,
    /// Lines `name = value`.
    pub(crate) variants: String,
    /// The name of a variant; empty: as compiled in.
    pub(crate) default: String,
    pub(crate) off: String,
    /// Lines `condition -> variant`, or JSON.
    pub(crate) rules: String,
    /// A share of the devices, in percent, that no rule matches; empty: none.
    pub(crate) percent: String,
    /// What that share gets.
    pub(crate) percent_variant: String,
    /// What was previewed, so that nothing else is saved.
    pub(crate) previewed: String,
}

/// The form of a flag, and whom the flag would reach.
#[derive(Template)]
#[template(path = "flag.html")]
pub(crate) struct FlagPage {
    pub(crate) frame: Frame,
    pub(crate) form: FlagForm,
    /// Whether there is a flag of this key.
    pub(crate) exists: bool,
    pub(crate) error: Option<(String, String)>,
    /// Whom it would reach; nothing before it was previewed.
    pub(crate) after: Option<Reach>,
    /// Whom it reaches now.
    pub(crate) before: Option<Reach>,
    /// What [`FlagForm::previewed`] has to be for the form to be saved; nothing: it cannot be.
    pub(crate) saves: Option<String>,
}

/// A line of a preview.
#[derive(Clone, Debug)]
pub(crate) struct ReachLine {
    pub(crate) name: String,
    pub(crate) before: Option<u64>,
    pub(crate) after: u64,
    pub(crate) share: f64,
}

impl FlagPage {
    pub(crate) fn lines(&self) -> Vec<ReachLine> {
        let Some(after) = &self.after else { return Vec::new() };
        let share = |n: u64| if after.devices == 0 { 0.0 } else { n as f64 / after.devices as f64 };
        let before = self.before.as_ref();
        let mut lines: Vec<ReachLine> = after
            .variants
            .iter()
            .map(|(name, n)| ReachLine {
                name: name.clone(),
                before: before.map(|b| b.variants.get(name).copied().unwrap_or(0)),
                after: *n,
                share: share(*n),
            })
            .collect();
        lines.push(ReachLine {
            name: "as compiled in".to_owned(),
            before: before.map(|b| b.compiled_in),
            after: after.compiled_in,
            share: share(after.compiled_in),
        });
        lines
    }
}

/// Asks before a flag is killed or revived.
#[derive(Template)]
#[template(path = "flag_switch.html")]
pub(crate) struct SwitchPage {
    pub(crate) frame: Frame,
    pub(crate) key: String,
    /// Whether it is killed now.
    pub(crate) killed: bool,
    /// What devices get when it is killed.
    pub(crate) off: String,
}

/// An alert of any time.
#[derive(Clone, Debug)]
pub(crate) struct PastAlert {
    pub(crate) n: i64,
    pub(crate) tone: Tone,
    pub(crate) severity: &'static str,
    pub(crate) rule: String,
    pub(crate) title: String,
    pub(crate) link: Option<String>,
    pub(crate) opened: i64,
    pub(crate) acknowledged: Option<(i64, String)>,
    /// Whether it still needs attention.
    pub(crate) state: Badge,
    pub(crate) resolved: Option<i64>,
}

/// All alerts, the newest first.
#[derive(Template)]
#[template(path = "alerts.html")]
pub(crate) struct AlertsPage {
    pub(crate) frame: Frame,
    pub(crate) alerts: Vec<PastAlert>,
    pub(crate) older: Option<String>,
    pub(crate) newer: Option<String>,
}
