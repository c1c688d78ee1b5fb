//! The kill switch: inference is stopped and resumed, on the whole fleet or for one model.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::api::input::Input;
use crate::auth::{By, OPERATOR, VIEWER};
use crate::error::{ApiError, ApiResult, Problem};
use crate::flags::serving::{self, Action, Status};
use crate::server::App;

/// Characters of a reason.
pub(crate) const MAX_REASON: usize = 200;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(stop)).routes(routes!(resume))
}

/// What is stopped or resumed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Wanted {
    /// One model; the whole fleet when absent.
    model: Option<String>,
    /// Why, for the audit log and whoever reads the alert; at most 200 characters.
    reason: String,
}

impl Wanted {
    fn check(&self) -> ApiResult<()> {
        let len = self.reason.chars().count();
        if len > MAX_REASON {
            let text = format!("the reason has {len} characters");
            return Err(ApiError::bad(text, format!("give at most {MAX_REASON}")));
        }
        match self.model.as_deref() {
            Some("") => Err(ApiError::bad("the model is empty", "leave it out for the whole fleet")),
            _ => Ok(()),
        }
    }
}

/// Where inference is stopped, since when, by whom and why, and how many devices obey.
#[utoipa::path(get, path = "/v1/serving", tag = "flags", extensions(("x-role" = json!("viewer"))),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn get(State(app): State<App>, By(who): By<VIEWER>) -> ApiResult<Json<Status>> {
    serving::now(&app, &who.tenant.id).await.map(Json)
}

/// Stops all inference, or that of one model: devices obey with their next poll, and run nothing until it is resumed.
#[utoipa::path(post, path = "/v1/serving/stop", tag = "flags", request_body = Wanted,
    extensions(("x-role" = json!("operator"))),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn stop(State(app): State<App>, By(who): By<OPERATOR>, Input(wanted): Input<Wanted>) -> ApiResult<Json<Status>> {
    wanted.check()?;
    serving::act(&app, &who, Action::Stop, wanted.model.as_deref(), &wanted.reason).await?;
    serving::now(&app, &who.tenant.id).await.map(Json)
}

/// Resumes inference of one model, or ends all stops.
#[utoipa::path(post, path = "/v1/serving/resume", tag = "flags", request_body = Wanted,
    extensions(("x-role" = json!("operator"))),
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn resume(
    State(app): State<App>,
    By(who): By<OPERATOR>,
    Input(wanted): Input<Wanted>,
) -> ApiResult<Json<Status>> {
    wanted.check()?;
    serving::act(&app, &who, Action::Resume, wanted.model.as_deref(), &wanted.reason).await?;
    serving::now(&app, &who.tenant.id).await.map(Json)
}
