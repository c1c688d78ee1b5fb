//! The server's store as the source of pages, and what people press as the API's own actions.

use std::sync::Arc;

use dunlin_rollout::Phase;

use super::judgement::Sensitivity;
use super::query;
use super::source::{AuditFilter, Press, Source, Trouble, Viewer};
use super::view::{
    AlertsPage, AuditPage, ConfirmPage, DeviceFilter, DevicePage, DevicesPage, DriftPage, FlagForm, FlagPage,
    FlagsPage, Frame, HealthPage, RolloutFilter, RolloutPage, RolloutsPage, ServingPage, SwitchPage,
};
use crate::auth::{Principal, Role};
use crate::decide::{self, Acted, Action};
use crate::error::ApiError;
use crate::flags::serving::{self, StopStatus};
use crate::hex;
use crate::server::App;
use crate::store::{self, hours, signed};

/// Seconds for which a rollout that ended is shown among those under way.
const RECENT: i64 = 2 * 86_400;

/// Characters of a reason that are kept.
const MAX_REASON: usize = 200;

/// Pages of a running server.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    app: App,
    seen: Arc<Sensitivity>,
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Self {
        let problem = *error.problem;
        match error.status {
            axum::http::StatusCode::NOT_FOUND => Self::Missing("rollout"),
            status if status.is_server_error() => Self::Broken(problem.error),
            _ => Self::Refused { error: problem.error, hint: problem.hint },
        }
    }
}

impl Pages {
    pub(super) fn new(app: App) -> Self {
        Self { app, seen: Arc::default() }
    }

    /// Who presses, as the API knows them.
    async fn principal(&self, viewer: &Viewer) -> Result<Principal, Trouble> {
        let tenant = store::tenants::get(&mut *self.app.store.read().await?, &viewer.tenant).await?;
        let tenant = tenant.ok_or(Trouble::Missing("tenant"))?;
        let role = Role::from_name(&viewer.role).ok_or(Trouble::Missing("role"))?;
        Ok(Principal { tenant, name: viewer.actor.clone(), role })
    }
}

/// What the last part of an address does, and what it takes.
fn action(verb: &str, devices: &str) -> Option<(Action, Role)> {
    Some(match verb {
        "start" => (Action::Start, Role::Operator),
        "pause" => (Action::Pause, Role::Operator),
        "resume" => (Action::Resume, Role::Operator),
        "retry" => (Action::Retry, Role::Operator),
        "approve" => (Action::Approve { candidate: None }, Role::Approver),
        "advance" => (Action::Advance, Role::Approver),
        "waive" => (Action::Waive, Role::Approver),
        // What becomes of the devices has to be said.
        "rollback" if matches!(devices, "keep" | "revert") => {
            (Action::Abort { revert: devices == "revert" }, Role::Operator)
        }
        chosen => {
            let n = query::rollout::CHOICES.iter().position(|(verb, _)| *verb == chosen)?;
            (Action::Approve { candidate: u8::try_from(n).ok() }, Role::Approver)
        }
    })
}

/// The word for what a rollout is after somebody acted: by what it is now, not by what was wanted.
fn outcome(action: Action, acted: &Acted) -> &'static str {
    match (action, acted.stored.rollout.phase()) {
        (Action::Approve { .. } | Action::Advance | Action::Waive, _) if !acted.changed => "left",
        (_, Phase::Paused) => "paused",
        (_, Phase::RolledBack) if acted.stored.takes_back => "reverted",
        (_, Phase::RolledBack) => "stopped",
        (Action::Approve { .. }, Phase::Draft) => "approved",
        (_, Phase::Draft) => "retried",
        (_, Phase::Completed) => "completed",
        (Action::Approve { .. }, _) => "approved",
        (Action::Waive, _) => "waived",
        (Action::Advance, Phase::Awaiting) => "asked",
        (Action::Advance, _) => "advanced",
        (Action::Start, _) => "started",
        _ => "resumed",
    }
}

impl Source for Pages {
    fn now(&self) -> i64 {
        signed(self.app.clock.seconds())
    }

    async fn sign_in(&self, token: &str) -> Result<Option<String>, Trouble> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| Trouble::Broken(e.to_string()))?;
        let secret = hex(&bytes);
        let now = self.now();
        let mut tx = self.app.store.write().await?;
        let Some(viewer) = query::session::open(&mut tx, token, &secret, now).await? else { return Ok(None) };
        let nothing = serde_json::Value::Null;
        store::audit::append(&mut tx, &viewer.tenant, now, &viewer.actor, "session.open", "dashboard", &nothing)
            .await?;
        tx.commit().await?;
        Ok(Some(secret))
    }

    async fn viewer(&self, secret: &str) -> Result<Option<Viewer>, Trouble> {
        Ok(query::session::viewer(&mut *self.app.store.read().await?, secret, self.now()).await?)
    }

    async fn sign_out(&self, secret: &str) -> Result<(), Trouble> {
        let mut tx = self.app.store.write().await?;
        query::session::close(&mut tx, secret).await?;
        Ok(tx.commit().await?)
    }

    async fn revision(&self, tenant: &str) -> Result<String, Trouble> {
        Ok(query::revision(&mut *self.app.store.read().await?, tenant, self.now()).await?)
    }

    async fn closing(&self) {
        let mut stopping = self.app.stopping.subscribe();
        // Its sender is the server's; when it is gone, so is the server.
        drop(stopping.wait_for(|s| *s).await);
    }

    async fn health(&self, viewer: &Viewer, frame: Frame) -> Result<HealthPage, Trouble> {
        hours::catch_up(&self.app.store, &viewer.tenant, frame.now).await?;
        let mut connection = self.app.store.read().await?;
        let rollouts = query::rollout::lines(&mut connection, viewer, frame.now - RECENT, frame.now).await?;
        query::health::health(&mut connection, viewer, frame, rollouts).await
    }

    async fn rollouts(&self, viewer: &Viewer, frame: Frame, filter: RolloutFilter) -> Result<RolloutsPage, Trouble> {
        query::rollout::list(&mut *self.app.store.read().await?, viewer, frame, filter).await
    }

    async fn rollout(&self, viewer: &Viewer, frame: Frame, id: &str) -> Result<RolloutPage, Trouble> {
        hours::catch_up(&self.app.store, &viewer.tenant, frame.now).await?;
        query::rollout::one(&mut *self.app.store.read().await?, viewer, frame, id, &self.seen).await
    }

    async fn confirm(&self, viewer: &Viewer, frame: Frame, id: &str, verb: &str) -> Result<ConfirmPage, Trouble> {
        let page = self.rollout(viewer, frame, id).await?;
        let action = page.actions.into_iter().find(|a| a.verb == verb && a.refused.is_none());
        let action = action.ok_or_else(|| Trouble::Refused {
            error: "This cannot be done now".to_owned(),
            hint: "The rollout is in another state, or your role does not allow it. Go back and look.".to_owned(),
        })?;
        Ok(ConfirmPage { frame: page.frame, id: page.id, stage: page.stage, action })
    }

    async fn act(&self, viewer: &Viewer, id: &str, verb: &str, press: &Press) -> Result<&'static str, Trouble> {
        let (action, role) = action(verb, &press.devices).ok_or(Trouble::Missing("action"))?;
        let principal = self.principal(viewer).await?;
        principal.at_least(role)?;
        let reason = decide::reason(&press.reason)?;
        let acted = decide::act(&self.app, &principal, id, action, press.stage, &reason).await?;
        Ok(outcome(action, &acted))
    }

    async fn acknowledge(&self, viewer: &Viewer, alert: &str) -> Result<(), Trouble> {
        self.principal(viewer).await?.at_least(Role::Operator)?;
        let n: i64 = alert.parse().map_err(|_| Trouble::Missing("alert"))?;
        let now = self.now();
        let mut tx = self.app.store.write().await?;
        if !store::alerts::acknowledge(&mut tx, &viewer.tenant, n, &viewer.actor, now).await? {
            return Err(Trouble::Missing("alert"));
        }
        let detail = serde_json::json!({});
        store::audit::append(&mut tx, &viewer.tenant, now, &viewer.actor, "alert.acknowledge", alert, &detail).await?;
        Ok(tx.commit().await?)
    }

    async fn revoke(&self, viewer: &Viewer, device: &str, press: &Press) -> Result<(), Trouble> {
        let principal = self.principal(viewer).await?;
        principal.at_least(Role::Operator)?;
        let reason: String = press.reason.trim().chars().take(200).collect();
        let revoked = decide::revoke(&self.app, &principal, device, &reason).await;
        revoked.map(drop).map_err(|error| match error.status {
            axum::http::StatusCode::NOT_FOUND => Trouble::Missing("device"),
            _ => error.into(),
        })
    }

    async fn drift(&self, viewer: &Viewer, frame: Frame, model: Option<&str>) -> Result<DriftPage, Trouble> {
        query::drift::drift(&self.app, viewer, frame, model).await
    }

    async fn devices(&self, viewer: &Viewer, frame: Frame, filter: DeviceFilter) -> Result<DevicesPage, Trouble> {
        query::device::list(&mut *self.app.store.read().await?, viewer, frame, filter).await
    }

    async fn device(&self, viewer: &Viewer, frame: Frame, id: &str) -> Result<DevicePage, Trouble> {
        query::device::one(&mut *self.app.store.read().await?, viewer, frame, id).await
    }

    async fn flags(&self, viewer: &Viewer, frame: Frame) -> Result<FlagsPage, Trouble> {
        query::flags::flags(&mut *self.app.store.read().await?, viewer, frame).await
    }

    async fn stops(&self, viewer: &Viewer) -> Result<Vec<StopStatus>, Trouble> {
        let mut connection = self.app.store.read().await?;
        Ok(serving::stopped(&mut connection, &viewer.tenant, self.now()).await?)
    }

    async fn serving_page(
        &self,
        viewer: &Viewer,
        frame: Frame,
        stops: bool,
        model: Option<String>,
    ) -> Result<ServingPage, Trouble> {
        self.principal(viewer).await?.at_least(Role::Operator)?;
        query::operate::serving_page(&mut *self.app.store.read().await?, viewer, frame, stops, model).await
    }

    async fn serve(
        &self,
        viewer: &Viewer,
        action: serving::Action,
        model: Option<&str>,
        press: &Press,
    ) -> Result<(), Trouble> {
        let principal = self.principal(viewer).await?;
        principal.at_least(Role::Operator)?;
        let reason: String = press.reason.trim().chars().take(MAX_REASON).collect();
        serving::act(&self.app, &principal, action, model, &reason).await.map(drop).map_err(|error| {
            match error.status {
                axum::http::StatusCode::NOT_FOUND => Trouble::Missing("model"),
                _ => error.into(),
            }
        })
    }

    async fn alerts(&self, viewer: &Viewer, frame: Frame, before: Option<i64>) -> Result<AlertsPage, Trouble> {
        query::operate::alerts_page(&mut *self.app.store.read().await?, viewer, frame, before).await
    }

    async fn acknowledge_news(&self, viewer: &Viewer) -> Result<(), Trouble> {
        self.principal(viewer).await?.at_least(Role::Operator)?;
        let now = self.now();
        let mut tx = self.app.store.write().await?;
        let n = query::operate::acknowledge_news(&mut tx, viewer, now).await?;
        if n > 0 {
            let detail = serde_json::json!({ "alerts": n });
            store::audit::append(&mut tx, &viewer.tenant, now, &viewer.actor, "alert.acknowledge", "news", &detail)
                .await?;
        }
        Ok(tx.commit().await?)
    }

    async fn flag(&self, viewer: &Viewer, frame: Frame, key: Option<&str>) -> Result<FlagPage, Trouble> {
        query::operate::flag_page(&self.app, viewer, frame, key).await
    }

    async fn preview_flag(&self, viewer: &Viewer, frame: Frame, form: FlagForm) -> Result<FlagPage, Trouble> {
        query::operate::flag_preview(&self.app, viewer, frame, form).await
    }

    async fn save_flag(&self, viewer: &Viewer, form: &FlagForm) -> Result<bool, Trouble> {
        let principal = self.principal(viewer).await?;
        principal.at_least(Role::Operator)?;
        query::operate::flag_save(&self.app, &principal, form).await
    }

    async fn switch_page(&self, viewer: &Viewer, frame: Frame, key: &str) -> Result<SwitchPage, Trouble> {
        query::operate::switch_page(&self.app, viewer, frame, key).await
    }

    async fn switch_flag(&self, viewer: &Viewer, key: &str, killed: bool) -> Result<(), Trouble> {
        let principal = self.principal(viewer).await?;
        principal.at_least(Role::Operator)?;
        query::operate::switch(&self.app, &principal, key, killed).await
    }

    async fn audit(&self, viewer: &Viewer, frame: Frame, filter: &AuditFilter) -> Result<AuditPage, Trouble> {
        query::log::audit(&mut *self.app.store.read().await?, viewer, frame, filter).await
    }
}
