//! Tells pages that something has changed; they ask for themselves anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::Dashboard;
use super::session;
use super::source::{Source, Trouble};

/// How often the store is asked, for all who look at a tenant together.
const LOOK: Duration = Duration::from_secs(1);
/// How often a session is looked at again.
const STILL_SIGNED_IN: Duration = Duration::from_secs(30);

/// The last revision of each tenant that is looked at, and when it was asked for.
pub(super) type Revisions = Arc<Mutex<HashMap<String, (Instant, String)>>>;

async fn revision<S: Source>(dashboard: &Dashboard<S>, tenant: &str) -> Result<String, Trouble> {
    let mut revisions = dashboard.revisions.lock().await;
    if let Some((when, revision)) = revisions.get(tenant)
        && when.elapsed() < LOOK
    {
        return Ok(revision.clone());
    }
    let revision = dashboard.source.revision(tenant).await?;
    revisions.insert(tenant.to_owned(), (Instant::now(), revision.clone()));
    Ok(revision)
}

/// A stream of `change` events, until the session or the server ends.
pub(super) async fn live<S: Source>(State(dashboard): State<Dashboard<S>>, headers: HeaderMap) -> Response {
    let Some(secret) = session::secret(&headers).map(str::to_owned) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let viewer = match dashboard.source.viewer(&secret).await {
        Ok(Some(viewer)) => viewer,
        Ok(None) => return StatusCode::UNAUTHORIZED.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let (events, mut heard) = mpsc::channel::<Result<Event, Infallible>>(4);
    tokio::spawn(async move {
        let source = dashboard.source.clone();
        let watch = async {
            let mut known = None;
            let mut asked = Instant::now();
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                ticks.tick().await;
                if asked.elapsed() >= STILL_SIGNED_IN {
                    asked = Instant::now();
                    if let Ok(None) = dashboard.source.viewer(&secret).await {
                        return;
                    }
                }
                // A store that does not answer now may later; the page says how old it is.
                let Ok(revision) = revision(&dashboard, &viewer.tenant).await else { continue };
                let changed = known.as_ref().is_some_and(|k| *k != revision);
                if changed && events.send(Ok(Event::default().event("change").data(&revision))).await.is_err() {
                    return;
                }
                known = Some(revision);
            }
        };
        tokio::select! {
            () = watch => {}
            () = events.closed() => {}
            () = source.closing() => {}
        }
    });
    Sse::new(stream::poll_fn(move |context| heard.poll_recv(context)))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
        .into_response()
}
