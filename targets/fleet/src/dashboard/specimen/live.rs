//! Pages that change when somebody presses a button, for browsers.

use std::sync::{Arc, Mutex};

use super::super::source::{AuditFilter, Press, Source, Trouble, Viewer};
use super::super::view::*;
use super::NOW;
use super::device::{device, devices, flags};
use super::drift::drift;
use super::health::{empty_health, health, rollout_lines, rollouts};
use super::log::audit;
use super::operate::{self, alerts};
use super::rollout::{action, rollout};
use crate::flags::serving::{self, StopStatus};

/// A tenant with a rollout that can be paused, resumed and rolled back, and another with nothing at all.
#[derive(Clone, Default)]
pub(in super::super) struct Specimen(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    phase: Option<(Tone, &'static str)>,
    revision: u64,
    sessions: Vec<(String, bool)>,
    log: Vec<(String, String)>,
    stops: Vec<StopStatus>,
}

impl Specimen {
    pub(in super::super) const TOKEN: &str = "dunlin_specimen_mira";
    pub(in super::super) const EMPTY: &str = "dunlin_specimen_empty";
    pub(in super::super) const ROLLOUT: &str = "r-7";
    pub(in super::super) const DEVICE: &str = "3f9c41d27a80be15";

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics with it")
    }

    fn line(&self) -> RolloutLine {
        let mut line = rollout_lines().remove(0);
        let (tone, word) = self.state().phase.unwrap_or((Tone::Busy, "running"));
        line.phase = Badge::new(tone, word);
        line.actions.retain(|a| word == "running" || word == "paused" && a.verb == "rollback");
        line
    }

    fn actions(&self) -> Vec<Action> {
        let phase = self.state().phase.map_or("running", |p| p.1);
        let mut actions = Vec::new();
        match phase {
            "running" => actions.push(action("pause", "Pause", "")),
            "paused" => actions.push(action("resume", "Resume", "")),
            _ => return actions,
        }
        actions.push(action("rollback", "Roll back", "danger"));
        actions
    }
}

impl Source for Specimen {
    fn now(&self) -> i64 {
        NOW
    }

    async fn sign_in(&self, token: &str) -> Result<Option<String>, Trouble> {
        if token != Self::TOKEN && token != Self::EMPTY {
            return Ok(None);
        }
        let mut state = self.state();
        let secret = format!("{:064x}", state.sessions.len() + 0xabc);
        state.sessions.push((secret.clone(), token == Self::EMPTY));
        Ok(Some(secret))
    }

    async fn viewer(&self, secret: &str) -> Result<Option<Viewer>, Trouble> {
        let found = self.state().sessions.iter().find(|(s, _)| s == secret).map(|(_, empty)| *empty);
        Ok(found.map(|empty| Viewer {
            tenant: if empty { "empty" } else { "harbour" }.to_owned(),
            actor: "mira".to_owned(),
            role: "approver".to_owned(),
        }))
    }

    async fn sign_out(&self, secret: &str) -> Result<(), Trouble> {
        self.state().sessions.iter_mut().filter(|(s, _)| s == secret).for_each(|(s, _)| s.clear());
        Ok(())
    }

    async fn revision(&self, _: &str) -> Result<String, Trouble> {
        Ok(self.state().revision.to_string())
    }

    async fn closing(&self) {
        std::future::pending().await
    }

    async fn health(&self, viewer: &Viewer, frame: Frame) -> Result<HealthPage, Trouble> {
        if viewer.tenant == "empty" {
            return Ok(empty_health(frame));
        }
        let mut page = HealthPage { frame, ..health() };
        page.rollouts = vec![self.line()];
        Ok(page)
    }

    async fn rollouts(&self, viewer: &Viewer, frame: Frame, filter: RolloutFilter) -> Result<RolloutsPage, Trouble> {
        let mut lines = if viewer.tenant == "empty" { vec![] } else { vec![self.line()] };
        let words = |line: &RolloutLine| line.phase.text.replace(' ', "");
        lines.retain(|line| filter.phase.is_empty() || words(line) == filter.phase.to_lowercase());
        Ok(RolloutsPage { filter, ..rollouts(frame, lines) })
    }

    async fn rollout(&self, viewer: &Viewer, frame: Frame, id: &str) -> Result<RolloutPage, Trouble> {
        if viewer.tenant == "empty" || id != Self::ROLLOUT {
            return Err(Trouble::Missing("rollout"));
        }
        let frame = Frame { title: rollout().frame.title, ..frame };
        let mut page = RolloutPage { frame, phase: self.line().phase, actions: self.actions(), ..rollout() };
        if let Some((verb, reason)) = self.state().log.last() {
            page.status_line = format!("{verb} by mira: {reason}");
        }
        Ok(page)
    }

    async fn confirm(&self, _: &Viewer, frame: Frame, id: &str, verb: &str) -> Result<ConfirmPage, Trouble> {
        let action = self.actions().into_iter().find(|a| a.verb == verb).ok_or(Trouble::Missing("action"))?;
        Ok(ConfirmPage { frame, id: id.to_owned(), stage: 2, action })
    }

    async fn act(&self, _: &Viewer, _: &str, verb: &str, press: &Press) -> Result<&'static str, Trouble> {
        let mut state = self.state();
        state.log.push((verb.to_owned(), press.reason.clone()));
        state.revision += 1;
        let (phase, done) = match verb {
            "pause" => ((Tone::Watch, "paused"), "paused"),
            "resume" => ((Tone::Busy, "running"), "resumed"),
            "rollback" => ((Tone::Bad, "rolled back"), "reverted"),
            _ => return Err(Trouble::Missing("action")),
        };
        state.phase = Some(phase);
        Ok(done)
    }

    async fn acknowledge(&self, _: &Viewer, _: &str) -> Result<(), Trouble> {
        self.state().revision += 1;
        Ok(())
    }

    async fn revoke(&self, _: &Viewer, device: &str, press: &Press) -> Result<(), Trouble> {
        let mut state = self.state();
        state.log.push((format!("revoke {device}"), press.reason.clone()));
        state.revision += 1;
        Ok(())
    }

    async fn drift(&self, viewer: &Viewer, frame: Frame, _: Option<&str>) -> Result<DriftPage, Trouble> {
        let page = DriftPage { frame, ..drift() };
        Ok(if viewer.tenant == "empty" { DriftPage { models: vec![], subjects: vec![], ..page } } else { page })
    }

    async fn devices(&self, viewer: &Viewer, frame: Frame, filter: DeviceFilter) -> Result<DevicesPage, Trouble> {
        let mut page = devices();
        page.frame = frame;
        page.devices.retain(|d| d.id.contains(&filter.q) && viewer.tenant != "empty");
        page.found = page.devices.len() as u64;
        Ok(DevicesPage { filter, ..page })
    }

    async fn device(&self, _: &Viewer, frame: Frame, id: &str) -> Result<DevicePage, Trouble> {
        if id == Self::DEVICE { Ok(DevicePage { frame, ..device() }) } else { Err(Trouble::Missing("device")) }
    }

    async fn flags(&self, viewer: &Viewer, frame: Frame) -> Result<FlagsPage, Trouble> {
        let page = FlagsPage { frame, ..flags() };
        Ok(if viewer.tenant == "empty" { FlagsPage { document: None, flags: vec![], ..page } } else { page })
    }

    async fn stops(&self, viewer: &Viewer) -> Result<Vec<StopStatus>, Trouble> {
        Ok(if viewer.tenant == "empty" { Vec::new() } else { self.state().stops.clone() })
    }

    async fn serving_page(
        &self,
        _: &Viewer,
        frame: Frame,
        stops: bool,
        model: Option<String>,
    ) -> Result<ServingPage, Trouble> {
        Ok(ServingPage { frame, ..operate::serving(stops, model) })
    }

    async fn serve(
        &self,
        _: &Viewer,
        action: serving::Action,
        model: Option<&str>,
        press: &Press,
    ) -> Result<(), Trouble> {
        let mut state = self.state();
        state.revision += 1;
        match action {
            serving::Action::Stop => {
                state.stops.push(StopStatus { reason: press.reason.clone(), ..operate::stop(model) });
            }
            serving::Action::Resume => state.stops.clear(),
        }
        Ok(())
    }

    async fn alerts(&self, _: &Viewer, frame: Frame, _: Option<i64>) -> Result<AlertsPage, Trouble> {
        Ok(AlertsPage { frame, ..alerts() })
    }

    async fn acknowledge_news(&self, _: &Viewer) -> Result<(), Trouble> {
        self.state().revision += 1;
        Ok(())
    }

    async fn flag(&self, _: &Viewer, frame: Frame, key: Option<&str>) -> Result<FlagPage, Trouble> {
        let page = operate::flag(if key.is_some() { operate::form() } else { FlagForm::default() });
        Ok(FlagPage { frame, exists: key.is_some(), after: None, before: None, saves: None, ..page })
    }

    async fn preview_flag(&self, _: &Viewer, frame: Frame, form: FlagForm) -> Result<FlagPage, Trouble> {
        Ok(FlagPage { frame, ..operate::flag(form) })
    }

    async fn save_flag(&self, _: &Viewer, form: &FlagForm) -> Result<bool, Trouble> {
        Ok(!form.previewed.is_empty())
    }

    async fn switch_page(&self, _: &Viewer, frame: Frame, key: &str) -> Result<SwitchPage, Trouble> {
        Ok(SwitchPage { frame, key: key.to_owned(), killed: false, off: "off".to_owned() })
    }

    async fn switch_flag(&self, _: &Viewer, _: &str, _: bool) -> Result<(), Trouble> {
        self.state().revision += 1;
        Ok(())
    }

    async fn audit(&self, _: &Viewer, frame: Frame, filter: &AuditFilter) -> Result<AuditPage, Trouble> {
        let mut page = AuditPage { frame, actor: filter.actor.clone(), ..audit() };
        for (i, (verb, reason)) in self.state().log.iter().enumerate() {
            let entry = page.entries.first().cloned();
            let n = 9000 + i as i64;
            page.entries.extend(entry.map(|e| Entry {
                n,
                action: format!("rollout.{verb}"),
                detail: reason.clone(),
                ..e
            }));
        }
        Ok(page)
    }
}
