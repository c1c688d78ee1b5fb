//! Requests for pages, and presses of buttons.

mod operate;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::Dashboard;
use super::session;
use super::source::{AuditFilter, Press, Source, Trouble, Viewer};
use super::view::{Banner, DeviceFilter, FailurePage, Frame, LoginPage, RolloutFilter, Section};
use crate::auth::Role;

pub(super) use operate::{
    acknowledge_news, alerts, ask_resume, ask_stop, ask_switch, flag, preview_flag, resume, save_flag, stop, switch,
};

/// A page, or why there is none.
pub(super) type Answer = Result<Response, Failure>;

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Failure {
    /// Sign in first, and come back here; `bool`: a script asks.
    SignIn(String, bool),
    Trouble(Trouble),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error, hint) = match self {
            Self::SignIn(next, script) => {
                let address = format!("/login?next={}", escape(&next));
                return if script {
                    let to = HeaderValue::from_str(&address).unwrap_or(HeaderValue::from_static("/login"));
                    (StatusCode::UNAUTHORIZED, [("hx-redirect", to)]).into_response()
                } else {
                    Redirect::to(&address).into_response()
                };
            }
            Self::Trouble(Trouble::Missing(what)) => {
                let hint = "It may have been removed, or belong to another tenant.";
                (StatusCode::NOT_FOUND, format!("There is no such {what}"), hint.to_owned())
            }
            Self::Trouble(Trouble::Refused { error, hint }) => (StatusCode::CONFLICT, error, hint),
            Self::Trouble(Trouble::Broken(why)) => {
                tracing::error!(%why, "a page could not be made");
                let hint = "The store does not answer. The server's log says why; try again in a minute.";
                (StatusCode::SERVICE_UNAVAILABLE, "The page could not be made".to_owned(), hint.to_owned())
            }
        };
        let page = FailurePage { error, hint };
        (status, page.render().map(Html).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)).into_response()
    }
}

/// For a value in an address.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            safe.push(byte.into());
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    safe
}

fn draw(page: &impl Template) -> Answer {
    let text = page.render().map_err(|e| Trouble::Broken(e.to_string()))?;
    Ok(Html(text).into_response())
}

/// Who asks, and the frame of the answer.
async fn frame<S: Source>(
    dashboard: &Dashboard<S>,
    headers: &HeaderMap,
    uri: &Uri,
    section: Section,
    title: &str,
) -> Result<(Viewer, Frame), Failure> {
    let address = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let sign_in = || Failure::SignIn(address.clone(), headers.contains_key("hx-request"));
    let secret = session::secret(headers).ok_or_else(sign_in)?;
    let viewer = dashboard.source.viewer(secret).await?.ok_or_else(sign_in)?;
    // Only this session's own answers say so: a link from elsewhere does not.
    let done = |key: &str| uri.query().is_some_and(|q| q.split('&').any(|pair| pair == told(secret, uri.path(), key)));
    let stops = dashboard.source.stops(&viewer).await?.into_iter().map(Banner::from).collect();
    let may_operate = Role::from_name(&viewer.role).is_some_and(|role| role >= Role::Operator);
    let frame = Frame {
        title: title.to_owned(),
        section,
        tenant: viewer.tenant.clone(),
        actor: viewer.actor.clone(),
        role: viewer.role.clone(),
        csrf: session::csrf(secret),
        now: dashboard.source.now(),
        stops,
        may_operate,
        notice: NOTICES.iter().find(|(key, _)| done(key)).map(|(_, text)| (*text).to_owned()),
    };
    Ok((viewer, frame))
}

/// What an action did, by the word in the address that a browser comes back to.
pub(crate) const NOTICES: [(&str, &str); 19] = [
    ("acknowledged", "Acknowledged: others see that you look after it."),
    ("halted", "Inference is stopped. Devices obey at their next poll; the banner counts them."),
    ("serving", "Inference is resumed. Devices run again from their next poll on."),
    ("saved", "Saved. Devices get the flags with their next poll."),
    ("killed", "Killed: no rule is looked at from the devices' next poll on."),
    ("revived", "Revived: the flag's rules decide again from the devices' next poll on."),
    ("started", "Started."),
    ("paused", "Paused. No other device gets the candidate; devices that have it keep it."),
    ("resumed", "Resumed. Only new evidence counts from now on."),
    ("approved", "Your approval is recorded."),
    ("advanced", "The next stage has begun."),
    ("asked", "The stage is left. The next one waits for approval."),
    ("waived", "Waived: this stage may be left without its margins being kept for certain."),
    ("completed", "Completed: every device gets the candidate."),
    ("left", "Nothing was done: the rollout had already left the stage that you saw."),
    ("revoked", "Revoked. Its requests are refused from now on."),
    ("retried", "Reset to a draft: other devices go first. Start it when it should begin."),
    ("reverted", "Rolled back. Devices are told to go back when they next ask the server."),
    ("stopped", "Stopped. Devices that have the candidate keep it; no other device gets it."),
];

pub(super) async fn health<S: Source>(State(d): State<Dashboard<S>>, headers: HeaderMap, uri: Uri) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Health, "Fleet health").await?;
    draw(&d.source.health(&viewer, frame).await?)
}

pub(super) async fn rollouts<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(filter): Query<RolloutFilter>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Rollouts, "Rollouts").await?;
    draw(&d.source.rollouts(&viewer, frame, filter).await?)
}

pub(super) async fn rollout<S: Source>(
    State(d): State<Dashboard<S>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Rollouts, "Rollout").await?;
    draw(&d.source.rollout(&viewer, frame, &id).await?)
}

pub(super) async fn confirm<S: Source>(
    State(d): State<Dashboard<S>>,
    Path((id, verb)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Rollouts, "Are you sure?").await?;
    draw(&d.source.confirm(&viewer, frame, &id, &verb).await?)
}

pub(super) async fn act<S: Source>(
    State(d): State<Dashboard<S>>,
    Path((id, verb)): Path<(String, String)>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let back = format!("/rollouts/{}", escape(&id));
    let viewer = presser(&d, &headers, &press.csrf, &back).await?;
    let done = d.source.act(&viewer, &id, &verb, &press).await?;
    Ok(Redirect::to(&answer(&headers, &back, done)).into_response())
}

pub(super) async fn acknowledge<S: Source>(
    State(d): State<Dashboard<S>>,
    Path(alert): Path<String>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/").await?;
    d.source.acknowledge(&viewer, &alert).await?;
    Ok(Redirect::to(&answer(&headers, "/", "acknowledged")).into_response())
}

pub(super) async fn revoke<S: Source>(
    State(d): State<Dashboard<S>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/devices").await?;
    d.source.revoke(&viewer, &id, &press).await?;
    Ok(Redirect::to(&answer(&headers, "/devices", "revoked")).into_response())
}

/// The part of an address that says what was done, with the session's own mark.
fn told(secret: &str, path: &str, done: &str) -> String {
    format!("done={done}.{}", session::mark(secret, path, done))
}

/// Where a browser goes after something was done, and is told so.
fn answer(headers: &HeaderMap, path: &str, done: &str) -> String {
    match session::secret(headers) {
        Some(secret) => format!("{path}?{}", told(secret, path, done)),
        None => path.to_owned(),
    }
}

/// Who presses a button, when it is them.
async fn presser<S: Source>(
    dashboard: &Dashboard<S>,
    headers: &HeaderMap,
    csrf: &str,
    back: &str,
) -> Result<Viewer, Failure> {
    let sign_in = || Failure::SignIn(back.to_owned(), false);
    let secret = session::secret(headers).ok_or_else(sign_in)?;
    let viewer = dashboard.source.viewer(secret).await?.ok_or_else(sign_in)?;
    if !session::is_own_origin(headers) || !session::is_own_form(secret, csrf) {
        return Err(foreign().into());
    }
    Ok(viewer)
}

fn foreign() -> Trouble {
    Trouble::Refused {
        error: "Nothing was done: the form is not this session's".to_owned(),
        hint: "Go back, reload the page and try again.".to_owned(),
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct DriftQuery {
    model: Option<String>,
}

pub(super) async fn drift<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(query): Query<DriftQuery>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Drift, "Drift").await?;
    draw(&d.source.drift(&viewer, frame, query.model.as_deref()).await?)
}

pub(super) async fn devices<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(filter): Query<DeviceFilter>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Devices, "Devices").await?;
    draw(&d.source.devices(&viewer, frame, filter).await?)
}

pub(super) async fn device<S: Source>(
    State(d): State<Dashboard<S>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Devices, &format!("Device {id}")).await?;
    draw(&d.source.device(&viewer, frame, &id).await?)
}

pub(super) async fn flags<S: Source>(State(d): State<Dashboard<S>>, headers: HeaderMap, uri: Uri) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Flags, "Flags").await?;
    draw(&d.source.flags(&viewer, frame).await?)
}

pub(super) async fn audit<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(filter): Query<AuditFilter>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Audit, "Audit log").await?;
    draw(&d.source.audit(&viewer, frame, &filter).await?)
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Credentials {
    token: String,
    next: String,
}

pub(super) async fn sign_in_form(Query(given): Query<Credentials>) -> Answer {
    draw(&LoginPage { error: None, next: session::own_address(&given.next).to_owned() })
}

pub(super) async fn sign_in<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(given): Form<Credentials>,
) -> Answer {
    if !session::is_own_origin(&headers) {
        return Err(foreign().into());
    }
    let next = session::own_address(&given.next).to_owned();
    let secret = d.source.sign_in(given.token.trim()).await?;
    let Some(cookie) = secret.as_deref().and_then(|s| session::cookie(s, session::is_encrypted(&headers))) else {
        let error = Some("This token is not known, or was revoked.".to_owned());
        let page = draw(&LoginPage { error, next })?;
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    };
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
}

pub(super) async fn sign_out<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    if let Some(secret) = session::secret(&headers) {
        if !session::is_own_origin(&headers) || !session::is_own_form(secret, &press.csrf) {
            return Err(foreign().into());
        }
        d.source.sign_out(secret).await?;
    }
    Ok(([(header::SET_COOKIE, session::no_cookie())], Redirect::to("/login")).into_response())
}
