//! Where pages come from and actions go to.

use std::future::Future;

use super::view::{
    AlertsPage, AuditPage, ConfirmPage, DeviceFilter, DevicePage, DevicesPage, DriftPage, FlagForm, FlagPage,
    FlagsPage, Frame, HealthPage, RolloutFilter, RolloutPage, RolloutsPage, ServingPage, SwitchPage,
};
use crate::flags::serving::{Action, StopStatus};

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Viewer {
    pub(crate) tenant: String,
    pub(crate) actor: String,
    pub(crate) role: String,
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no such thing, or it is another tenant's.
    Missing(&'static str),
    /// It may not be done, by this person or now: what, and what to do about it.
    Refused { error: String, hint: String },
    /// The store does not answer. The text is for the log, not for the page.
    Broken(String),
}

/// A press of a button.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Press {
    /// Goes with the form; see [`super::session`].
    pub(crate) csrf: String,
    /// `keep` or `revert`: what becomes of devices that have the candidate.
    pub(crate) devices: String,
    pub(crate) reason: String,
    /// The stage, from 0, that the page showed.
    pub(crate) stage: Option<u8>,
    /// What was typed to confirm.
    pub(crate) typed: String,
    /// A model; empty: the whole fleet.
    pub(crate) model: String,
    /// A flag's key.
    pub(crate) key: String,
    /// `kill` or `revive`.
    pub(crate) verb: String,
}

/// A place in the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct AuditFilter {
    pub(crate) actor: String,
    /// Entries before this one.
    pub(crate) before: Option<i64>,
}

/// What the pages are made of. Everything is of the viewer's tenant alone.
pub(crate) trait Source: Clone + Send + Sync + 'static {
    /// Seconds since 1970.
    fn now(&self) -> i64;
    /// A new session's secret for a token of the API; nothing when the token is not known.
    fn sign_in(&self, token: &str) -> impl Future<Output = Result<Option<String>, Trouble>> + Send;
    /// Whose session it is, if it is one and its token still holds.
    fn viewer(&self, secret: &str) -> impl Future<Output = Result<Option<Viewer>, Trouble>> + Send;
    /// Ends a session.
    fn sign_out(&self, secret: &str) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Something that differs whenever a page would.
    fn revision(&self, tenant: &str) -> impl Future<Output = Result<String, Trouble>> + Send;
    /// Comes back when the server goes down.
    fn closing(&self) -> impl Future<Output = ()> + Send;

    fn health(&self, viewer: &Viewer, frame: Frame) -> impl Future<Output = Result<HealthPage, Trouble>> + Send;
    fn rollouts(
        &self,
        viewer: &Viewer,
        frame: Frame,
        filter: RolloutFilter,
    ) -> impl Future<Output = Result<RolloutsPage, Trouble>> + Send;
    fn rollout(
        &self,
        viewer: &Viewer,
        frame: Frame,
        id: &str,
    ) -> impl Future<Output = Result<RolloutPage, Trouble>> + Send;
    fn confirm(
        &self,
        viewer: &Viewer,
        frame: Frame,
        id: &str,
        verb: &str,
    ) -> impl Future<Output = Result<ConfirmPage, Trouble>> + Send;
    /// Does it, and says what was done.
    fn act(
        &self,
        viewer: &Viewer,
        id: &str,
        verb: &str,
        press: &Press,
    ) -> impl Future<Output = Result<&'static str, Trouble>> + Send;
    /// Notes that the viewer looks after an alert.
    fn acknowledge(&self, viewer: &Viewer, alert: &str) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Believes a device no more.
    fn revoke(&self, viewer: &Viewer, device: &str, press: &Press) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn drift(
        &self,
        viewer: &Viewer,
        frame: Frame,
        model: Option<&str>,
    ) -> impl Future<Output = Result<DriftPage, Trouble>> + Send;
    fn devices(
        &self,
        viewer: &Viewer,
        frame: Frame,
        filter: DeviceFilter,
    ) -> impl Future<Output = Result<DevicesPage, Trouble>> + Send;
    fn device(
        &self,
        viewer: &Viewer,
        frame: Frame,
        id: &str,
    ) -> impl Future<Output = Result<DevicePage, Trouble>> + Send;
    fn flags(&self, viewer: &Viewer, frame: Frame) -> impl Future<Output = Result<FlagsPage, Trouble>> + Send;
    /// Where inference is stopped.
    fn stops(&self, viewer: &Viewer) -> impl Future<Output = Result<Vec<StopStatus>, Trouble>> + Send;
    /// Asks before inference is stopped or resumed.
    fn serving_page(
        &self,
        viewer: &Viewer,
        frame: Frame,
        stops: bool,
        model: Option<String>,
    ) -> impl Future<Output = Result<ServingPage, Trouble>> + Send;
    /// Stops or resumes inference.
    fn serve(
        &self,
        viewer: &Viewer,
        action: Action,
        model: Option<&str>,
        press: &Press,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn alerts(
        &self,
        viewer: &Viewer,
        frame: Frame,
        before: Option<i64>,
    ) -> impl Future<Output = Result<AlertsPage, Trouble>> + Send;
    /// Acknowledges all news.
    fn acknowledge_news(&self, viewer: &Viewer) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn flag(
        &self,
        viewer: &Viewer,
        frame: Frame,
        key: Option<&str>,
    ) -> impl Future<Output = Result<FlagPage, Trouble>> + Send;
    fn preview_flag(
        &self,
        viewer: &Viewer,
        frame: Frame,
        form: FlagForm,
    ) -> impl Future<Output = Result<FlagPage, Trouble>> + Send;
    /// Saves a flag, if it is what was previewed; `false`: it is not.
    fn save_flag(&self, viewer: &Viewer, form: &FlagForm) -> impl Future<Output = Result<bool, Trouble>> + Send;
    fn switch_page(
        &self,
        viewer: &Viewer,
        frame: Frame,
        key: &str,
    ) -> impl Future<Output = Result<SwitchPage, Trouble>> + Send;
    /// Kills or revives a flag.
    fn switch_flag(&self, viewer: &Viewer, key: &str, killed: bool)
    -> impl Future<Output = Result<(), Trouble>> + Send;
    fn audit(
        &self,
        viewer: &Viewer,
        frame: Frame,
        filter: &AuditFilter,
    ) -> impl Future<Output = Result<AuditPage, Trouble>> + Send;
}
