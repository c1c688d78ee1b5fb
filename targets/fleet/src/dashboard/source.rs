//! Where pages come from and actions go to.

use std::future::Future;

use super::view::{
    AuditPage, ConfirmPage, DeviceFilter, DevicePage, DevicesPage, DriftPage, FlagsPage, Frame, HealthPage,
    RolloutFilter, RolloutPage, RolloutsPage,
};

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
    fn audit(
        &self,
        viewer: &Viewer,
        frame: Frame,
        filter: &AuditFilter,
    ) -> impl Future<Output = Result<AuditPage, Trouble>> + Send;
}
