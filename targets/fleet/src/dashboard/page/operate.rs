//! The kill switch, the form of a flag, and the alerts of the past.

use axum::Form;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Redirect};

use super::{Answer, Dashboard, answer, draw, frame, presser};
use crate::dashboard::source::{Press, Source, Trouble};
use crate::dashboard::view::{FlagForm, Section};
use crate::flags::serving::Action;

#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(in crate::dashboard) struct Which {
    model: String,
    key: String,
    before: Option<i64>,
}

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

pub(in crate::dashboard) async fn ask_stop<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Health, "Stop inference").await?;
    draw(&d.source.serving_page(&viewer, frame, true, given(&which.model)).await?)
}

pub(in crate::dashboard) async fn ask_resume<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Health, "Resume inference").await?;
    draw(&d.source.serving_page(&viewer, frame, false, given(&which.model)).await?)
}

pub(in crate::dashboard) async fn stop<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/serving/stop").await?;
    let model = given(&press.model);
    let expected = model.as_deref().unwrap_or(&viewer.tenant);
    if press.typed.trim() != expected {
        return Err(Trouble::Refused {
            error: format!("Nothing was stopped: {:?} was typed", press.typed.trim()),
            hint: format!("Go back and type {expected:?} to confirm."),
        }
        .into());
    }
    d.source.serve(&viewer, Action::Stop, model.as_deref(), &press).await?;
    Ok(Redirect::to(&answer(&headers, "/", "halted")).into_response())
}

pub(in crate::dashboard) async fn resume<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/serving/resume").await?;
    d.source.serve(&viewer, Action::Resume, given(&press.model).as_deref(), &press).await?;
    Ok(Redirect::to(&answer(&headers, "/", "serving")).into_response())
}

pub(in crate::dashboard) async fn alerts<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Health, "Alerts").await?;
    draw(&d.source.alerts(&viewer, frame, which.before).await?)
}

pub(in crate::dashboard) async fn acknowledge_news<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/").await?;
    d.source.acknowledge_news(&viewer).await?;
    Ok(Redirect::to(&answer(&headers, "/", "acknowledged")).into_response())
}

/// The form of a new flag, or of the one with a key.
pub(in crate::dashboard) async fn flag<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Flags, "Flag").await?;
    draw(&d.source.flag(&viewer, frame, given(&which.key).as_deref()).await?)
}

pub(in crate::dashboard) async fn preview_flag<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    uri: Uri,
    Form(form): Form<FlagForm>,
) -> Answer {
    presser(&d, &headers, &form.csrf, "/flags").await?;
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Flags, "Flag").await?;
    draw(&d.source.preview_flag(&viewer, frame, form).await?)
}

/// Saves what was previewed; anything else is previewed first.
pub(in crate::dashboard) async fn save_flag<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    uri: Uri,
    Form(form): Form<FlagForm>,
) -> Answer {
    let viewer = presser(&d, &headers, &form.csrf, "/flags").await?;
    if d.source.save_flag(&viewer, &form).await? {
        return Ok(Redirect::to(&answer(&headers, "/flags", "saved")).into_response());
    }
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Flags, "Flag").await?;
    draw(&d.source.preview_flag(&viewer, frame, form).await?)
}

pub(in crate::dashboard) async fn ask_switch<S: Source>(
    State(d): State<Dashboard<S>>,
    Query(which): Query<Which>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let (viewer, frame) = frame(&d, &headers, &uri, Section::Flags, "Are you sure?").await?;
    draw(&d.source.switch_page(&viewer, frame, &which.key).await?)
}

pub(in crate::dashboard) async fn switch<S: Source>(
    State(d): State<Dashboard<S>>,
    headers: HeaderMap,
    Form(press): Form<Press>,
) -> Answer {
    let viewer = presser(&d, &headers, &press.csrf, "/flags").await?;
    let killed = press.verb == "kill";
    d.source.switch_flag(&viewer, &press.key, killed).await?;
    Ok(Redirect::to(&answer(&headers, "/flags", if killed { "killed" } else { "revived" })).into_response())
}
