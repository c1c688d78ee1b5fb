//! Rollouts: drafted, started, watched, and stopped.

use axum::Json;
use axum::extract::{Path, State};
use dunlin_rollout::gate::Design;
use dunlin_rollout::rollout::Exposure;
use dunlin_rollout::{Rollout, Salt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::plan::{Wanted, WantedGate};
use crate::api::input::{Ask, Input, Page, digest, name};
use crate::approval;
use crate::auth::{APPROVER, By, OPERATOR, Principal, VIEWER};
use crate::decide::{self, Action};
use crate::error::{ApiError, ApiResult, Problem};
use crate::outlook;
use crate::server::App;
use crate::status::{Drafted, StageOutlook, Status};
use crate::store::rollouts::{self, Stored, Verdict};
use crate::store::{audit, devices, packages, signed};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put))
        .routes(routes!(verdicts))
        .routes(routes!(start))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(approve))
        .routes(routes!(advance))
        .routes(routes!(waive))
        .routes(routes!(retry))
}

/// A rollout to be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Draft {
    /// Digests of the candidates: published packages of one model.
    candidates: Vec<String>,
    /// The digest that devices run that take part, and go back to; left out: whatever they run, and there is no way back.
    #[serde(default)]
    base: Option<String>,
    /// That devices which confirmed the candidate cannot go back to the base, whose security counter is lower. It has to be
    /// said where it is so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    irreversible: bool,
    /// How the candidate comes to the fleet.
    strategy: Wanted,
    /// The rule by which stages are left.
    #[serde(default)]
    gate: WantedGate,
}

/// Whether only to look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Dry {
    /// Nothing is stored.
    #[serde(default)]
    dry_run: bool,
}

async fn status(app: &App, stored: &Stored) -> ApiResult<Status> {
    let now = signed(app.clock.seconds());
    Ok(outlook::status(&mut *app.store.read().await?, stored, now).await?)
}

/// Rollouts, in order of their ids.
#[utoipa::path(get, path = "/v1/rollouts", tag = "rollouts", params(Page), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Status>), (status = "default", body = Problem)))]
async fn list(State(app): State<App>, By(who): By<VIEWER>, Ask(page): Ask<Page>) -> ApiResult<Json<Vec<Status>>> {
    let all = rollouts::list(&mut *app.store.read().await?, &who.tenant.id, &page.after, page.limit()).await?;
    let mut list = Vec::with_capacity(all.len());
    for stored in &all {
        list.push(status(&app, stored).await?);
    }
    Ok(Json(list))
}

async fn find(app: &App, who: &Principal, id: &str) -> ApiResult<Stored> {
    let stored = rollouts::get(&mut *app.store.read().await?, &who.tenant.id, id).await?;
    stored.ok_or_else(|| ApiError::missing("rollout", id))
}

/// One rollout: canary against control, and what would be decided now.
#[utoipa::path(get, path = "/v1/rollouts/{rollout}", tag = "rollouts", extensions(("x-role" = json!("viewer"))),
    params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>, Path(id): Path<String>) -> ApiResult<Json<Status>> {
    status(&app, &find(&app, &who, &id).await?).await.map(Json)
}

/// Drafts a rollout under an id of one's own choice. With `dry_run` it only says what its stages would be able to see.
#[utoipa::path(put, path = "/v1/rollouts/{rollout}", tag = "rollouts", request_body = Draft, params(Dry,
    ("rollout" = String, Path, description = "Its id")), extensions(("x-role" = json!("operator"))),
    responses((status = 200, body = Drafted), (status = "default", body = Problem)))]
async fn put(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Ask(dry): Ask<Dry>,
    Input(draft): Input<Draft>,
) -> ApiResult<Json<Drafted>> {
    name("rollout", &id)?;
    let tenant = who.tenant.id.as_str();
    let count = u8::try_from(draft.candidates.len()).ok().filter(|n| (1..=7).contains(n));
    let count = count.ok_or_else(|| ApiError::unacceptable("a rollout has 1 to 7 candidates", "give their digests"))?;
    let plan = draft.strategy.plan(count)?;
    let gate = draft.gate.gate()?;
    let takes_turns = plan.stages().any(|s| matches!(s.exposure, Exposure::Crossover { .. }));
    if takes_turns && draft.base.is_none() {
        return Err(ApiError::unacceptable(
            "in a crossover the candidate takes turns with a base, and there is none",
            "give the digest that devices run as `base`",
        ));
    }
    let mut connection = app.store.read().await?;
    let mut published = Vec::new();
    for id in draft.candidates.iter().chain(&draft.base) {
        digest(id)?;
        let package = packages::get(&mut connection, tenant, id).await?;
        published.push(package.ok_or_else(|| ApiError::missing("package", id))?);
    }
    let first = published.first().ok_or_else(|| ApiError::unacceptable("no candidate", "give one"))?;
    if let Some(other) = published.iter().find(|p| p.name != first.name) {
        return Err(ApiError::unacceptable(
            format!("{:?} and {:?} are different models", first.name, other.name),
            "candidates and base are packages of one model",
        ));
    }
    if let Some(other) = published.iter().find(|p| p.target != first.target) {
        return Err(ApiError::unacceptable(
            format!("the packages are for different targets, {:?} and {:?}", first.target, other.target),
            "candidates and base are packages for one target; draft a rollout for each target",
        ));
    }
    let base = draft.base.as_ref().and_then(|b| published.iter().find(|p| p.digest == *b));
    let above = base.and_then(|base| published.iter().find(|p| p.counter > base.counter).map(|p| (p, base)));
    if let Some((candidate, base)) = above.filter(|_| !draft.irreversible) {
        return Err(ApiError::unacceptable(
            format!(
                "devices that confirm the candidate cannot go back: its security counter is {}, the base's {}",
                candidate.counter, base.counter
            ),
            "say \"irreversible\": true if that is meant; or publish the base anew with that counter, and roll that out first",
        ));
    }
    if draft.irreversible && above.is_none() {
        return Err(ApiError::unacceptable(
            "devices can go back: no candidate's security counter is above the base's",
            "leave irreversible out",
        ));
    }
    if draft.base.as_ref().is_some_and(|b| draft.candidates.contains(b)) {
        return Err(ApiError::unacceptable("the base is a candidate too", "there would be nothing to compare"));
    }
    let (model, target) = (first.name.clone(), first.target.clone());
    let eligible = devices::count(&mut connection, tenant, &model, &target, draft.base.as_deref()).await?;
    drop(connection);
    let numbers = u32::try_from(eligible).unwrap_or(u32::MAX);
    // Each candidate has its part of the error that is allowed.
    let alpha = gate.alpha / f64::from(plan.candidates());
    let approved = match who.tenant.settings.two_person {
        true => plan.with_approval(approval::of_two(&plan)),
        false => plan,
    };
    let stages = tokio::task::spawn_blocking(move || outlooks(&approved, numbers, alpha));
    let stages = stages.await.map_err(|_| ApiError::unavailable("the outlook was not computed"))?;
    if dry.dry_run {
        return Ok(Json(Drafted { id, stored: false, eligible, stages }));
    }
    let request =
        serde_json::to_string(&draft).map_err(|_| ApiError::bad("the draft does not encode", "see /openapi.json"))?;
    // The salt is the installation's secret's, so that nobody chooses an identity for a cohort.
    let salt = Salt::new(app.seal.mark(&["salt", tenant, &id]).as_bytes());
    let rollout =
        Rollout::new(plan, gate, salt).map_err(|e| ApiError::unacceptable(e.to_string(), "change the gate"))?;
    let now = signed(app.clock.seconds());
    let stored = Stored {
        tenant: tenant.into(),
        id: id.clone(),
        name: model,
        target,
        candidates: draft.candidates.clone(),
        base: draft.base.clone(),
        request,
        rollout,
        evidence: decide::fresh_evidence(&rollout),
        live: false,
        day_base: 0,
        days: 0,
        started: 0,
        entered: 0,
        epoch_began: 0,
        epoch_day: 0,
        started_by: String::new(),
        created: now,
        sequence: 0,
        signed: 0,
        expires: 0,
        takes_back: false,
        verdicts: 0,
        version: 1,
    };
    let mut tx = app.store.write().await?;
    if rollouts::insert(&mut tx, &stored).await? {
        let detail = json!({ "candidates": stored.candidates, "base": stored.base });
        audit::append(&mut tx, tenant, now, &who.name, "rollout.draft", &id, &detail).await?;
        tx.commit().await?;
    } else {
        drop(tx);
        let known = find(&app, &who, &id).await?;
        if known.request != stored.request {
            return Err(ApiError::conflict(format!("there is another rollout {id:?}"), "choose another id"));
        }
    }
    Ok(Json(Drafted { id, stored: true, eligible, stages }))
}

/// What each stage would be able to see with so many devices.
fn outlooks(plan: &dunlin_rollout::Plan, devices: u32, alpha: f64) -> Vec<StageOutlook> {
    let part = |share: dunlin_rollout::Share| ((u64::from(devices) * share.bound()) >> 32) as u32;
    let size = |exposure: &Exposure| match *exposure {
        Exposure::Share { canary, control } | Exposure::Shadow { canary, control, .. } => (part(canary), part(control)),
        Exposure::Variants { share, candidates } => {
            let each = part(share) / (u32::from(candidates) + 1);
            (each, each)
        }
        // Each device is in both arms.
        Exposure::Crossover { share } => (part(share), part(share)),
        Exposure::Ring { .. } => (0, 0),
    };
    let outlook = |(stage, of): (usize, &dunlin_rollout::Stage)| {
        let (canary, control) = size(&of.exposure);
        // Half of a device's day is in either arm, and half as often bad.
        let days = if matches!(of.exposure, Exposure::Crossover { .. }) { 2 } else { 1 };
        let design = Design { alpha, ..Design::new(canary / days, control / days, 0.01) };
        let ratio = (design.canary > 0 && design.control > 0).then(|| design.minimum_ratio(0.8)).flatten();
        let (name, reaches) = outlook::exposure(&of.exposure);
        StageOutlook {
            stage,
            number: stage + 1,
            name,
            reaches,
            canary,
            control,
            minimum_detectable_ratio: ratio,
            approval: of.approval,
        }
    };
    plan.stages().enumerate().map(outlook).collect()
}

/// The verdicts on a rollout with everything they are based on, in order.
#[utoipa::path(get, path = "/v1/rollouts/{rollout}/verdicts", tag = "rollouts", params(Page,
    ("rollout" = String, Path, description = "Its id")), extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Vec<Verdict>), (status = "default", body = Problem)))]
async fn verdicts(
    State(app): State<App>,
    By(who): By<VIEWER>,
    Path(id): Path<String>,
    Ask(page): Ask<Page>,
) -> ApiResult<Json<Vec<Verdict>>> {
    find(&app, &who, &id).await?;
    let mut connection = app.store.read().await?;
    Ok(Json(rollouts::verdicts(&mut connection, &who.tenant.id, &id, page.number()?, page.limit()).await?))
}

/// Why a person acts.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Because {
    /// For the audit log and everyone who looks at the rollout: at most 200 characters.
    reason: Option<String>,
}

/// The stage that the caller has seen, and why they act.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Seen {
    /// The stage, from 0. Nothing is done when the rollout has left it; so the same request twice does it once.
    stage: Option<u8>,
    /// For the audit log and everyone who looks at the rollout: at most 200 characters.
    reason: Option<String>,
}

async fn act(app: &App, who: &Principal, id: &str, action: Action, seen: Seen) -> ApiResult<Json<Status>> {
    let reason = decide::reason(seen.reason.as_deref().unwrap_or_default())?;
    let acted = decide::act(app, who, id, action, seen.stage, &reason).await?;
    status(app, &acted.stored).await.map(Json)
}

fn of_any_stage(because: Because) -> Seen {
    Seen { stage: None, reason: because.reason }
}

/// Begins the first stage.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/start", tag = "rollouts", request_body = Because, extensions(("x-role" = json!("operator"))),
    params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn start(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(because): Input<Because>,
) -> ApiResult<Json<Status>> {
    act(&app, &who, &id, Action::Start, of_any_stage(because)).await
}

/// Offers the candidate to nobody else until somebody resumes.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/pause", tag = "rollouts", request_body = Because, extensions(("x-role" = json!("operator"))),
    params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn pause(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(because): Input<Because>,
) -> ApiResult<Json<Status>> {
    act(&app, &who, &id, Action::Pause, of_any_stage(because)).await
}

/// Goes on; the failures so far are acknowledged by it, and only new ones count.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/resume", tag = "rollouts", request_body = Because,
    extensions(("x-role" = json!("operator"))), params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn resume(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(because): Input<Because>,
) -> ApiResult<Json<Status>> {
    act(&app, &who, &id, Action::Resume, of_any_stage(because)).await
}

/// What becomes of devices that have the candidate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Abort {
    /// `revert`: they get the base back. `keep`: they keep it.
    devices: Fate,
    /// For the audit log and everyone who looks at the rollout: at most 200 characters.
    #[serde(default)]
    reason: Option<String>,
}

/// What becomes of devices that have the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Fate {
    /// They get the base back.
    Revert,
    /// They keep it.
    Keep,
}

/// Ends a rollout. What becomes of devices that have the candidate has to be said.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/abort", tag = "rollouts", request_body = Abort,
    extensions(("x-role" = json!("operator"))), params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn abort(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(wanted): Input<Abort>,
) -> ApiResult<Json<Status>> {
    let seen = Seen { stage: None, reason: wanted.reason };
    act(&app, &who, &id, Action::Abort { revert: wanted.devices == Fate::Revert }, seen).await
}

/// What is approved.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Approval {
    /// The stage, from 0. Nothing is done when the rollout has left it; so the same request twice does it once.
    stage: Option<u8>,
    /// Which candidate everybody gets, counted from 0; needed where there are several.
    candidate: Option<u8>,
    /// For the audit log and everyone who looks at the rollout: at most 200 characters.
    reason: Option<String>,
}

/// Lets the next stage begin that waits for approval, or a draft start that needs it, or after a comparison of candidates gives everybody one of them.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/approve", tag = "rollouts", request_body = Approval,
    extensions(("x-role" = json!("approver"))), params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn approve(
    State(app): State<App>,
    By(who): By<APPROVER>,
    Path(id): Path<String>,
    Input(wanted): Input<Approval>,
) -> ApiResult<Json<Status>> {
    let seen = Seen { stage: wanted.stage, reason: wanted.reason };
    act(&app, &who, &id, Action::Approve { candidate: wanted.candidate }, seen).await
}

/// Begins the next stage although this one is not passed. The stage has to be named.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/advance", tag = "rollouts", request_body = Seen,
    extensions(("x-role" = json!("approver"))), params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn advance(
    State(app): State<App>,
    By(who): By<APPROVER>,
    Path(id): Path<String>,
    Input(seen): Input<Seen>,
) -> ApiResult<Json<Status>> {
    if seen.stage.is_none() {
        return Err(ApiError::bad(
            "the stage is missing",
            "name the stage that is to be left, so that a request sent twice leaves one",
        ));
    }
    act(&app, &who, &id, Action::Advance, seen).await
}

/// Lets this stage be left without its margins being kept for certain.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/waive", tag = "rollouts", request_body = Seen,
    extensions(("x-role" = json!("approver"))), params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn waive(
    State(app): State<App>,
    By(who): By<APPROVER>,
    Path(id): Path<String>,
    Input(seen): Input<Seen>,
) -> ApiResult<Json<Status>> {
    act(&app, &who, &id, Action::Waive, seen).await
}

/// Makes a rollout that was rolled back a draft again: with another salt, so that other devices go first, and with new
/// evidence.
#[utoipa::path(post, path = "/v1/rollouts/{rollout}/retry", tag = "rollouts", request_body = Because, extensions(("x-role" = json!("operator"))),
    params(("rollout" = String, Path, description = "Its id")),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn retry(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Path(id): Path<String>,
    Input(because): Input<Because>,
) -> ApiResult<Json<Status>> {
    act(&app, &who, &id, Action::Retry, of_any_stage(because)).await
}
