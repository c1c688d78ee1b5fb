//! `POST /d/v1/poll`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use dunlin_update::trust::{Document, Role, RootKeys};

use super::{authenticated, postcard, read, text};
use crate::api::input::Body;
use crate::api::operator::flags;
use crate::artifacts::hash_of;
use crate::auth::Certified;
use crate::documents::Terms;
use crate::error::{ApiError, ApiResult};
use crate::hex::{hex, unhex_array};
use crate::ingest::{Job, Taken};
use crate::server::App;
use crate::store::devices::Device;
use crate::store::{packages, tenants};
use crate::telemetry;
use crate::wire::{self, Answer, Poll};

/// Microseconds between a device's polls, when it polls as fast as it may.
const GAP: u64 = 1_000_000;
/// Polls that a device may send at once: after a start, and while it updates.
const BURST: u64 = 20 * GAP;
/// Seconds that an artifact's address is good for. Longer than the slowest link needs.
const URL_LIFE: u64 = 7 * 86_400;

pub(super) async fn poll(
    State(app): State<App>,
    certified: Certified,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    let (device, nonce) = authenticated(&app, &headers, "POST", "/d/v1/poll", &body, certified).await?;
    let now = app.clock.micros();
    let refused = |seconds| {
        app.metrics.refused.add(1);
        ApiError::too_many("this device", seconds)
    };
    app.limits.spaced(&device.id, GAP, BURST, now).map_err(refused)?;
    let tenant = tenants::get(&mut *app.store.read().await?, &device.tenant).await?;
    let tenant = tenant.ok_or_else(|| ApiError::missing("tenant", &device.tenant))?;
    app.limits.take(&format!("d/{}", tenant.id), tenant.settings.device_rate, now).map_err(refused)?;
    let poll: Poll = read(&body)?;
    text("model", &poll.model, 64)?;
    if poll.reports.len() > wire::MAX_REPORTS || poll.reports.iter().any(|r| r.bytes.len() > wire::MAX_REPORT) {
        return Err(ApiError::bad(
            format!("a poll carries {} reports of {} bytes each at most", wire::MAX_REPORTS, wire::MAX_REPORT),
            "send the oldest first and the rest with the next poll",
        ));
    }
    let readings = poll.reports.iter().map(|r| telemetry::read(&r.bytes)).collect();
    let acknowledged = poll.reports.iter().map(|r| (r.boot, r.seq)).collect();
    let known = (poll.root, poll.flags, poll.running, poll.whole);
    let taken = app.ingest.take(Job { device: device.clone(), nonce, poll, readings }).await?;
    let Taken::Stored(terms) = taken else {
        return Err(ApiError::conflict("this request came before", "sign each request with a newer nonce"));
    };
    app.metrics.polls.add(1);
    let mut answer = Answer {
        time: now / 1_000_000,
        next: jittered(tenant.settings.poll_seconds)?,
        acknowledged,
        nonce: app.seal.nonce(&device.id, app.clock.micros()),
        offer: None,
        flags: None,
    };
    let (root, flag_sequence, running, whole) = known;
    if let Some(terms) = terms {
        answer.offer = offer(&app, &device, &terms, root, running, whole).await?;
    }
    answer.flags = flags::for_device(&app, &device.tenant, flag_sequence).await?;
    // The same news again need not be sent again: only what changes is in the tag.
    let news = (answer.offer.as_ref().map(|o| (&o.rollout, o.id)), &answer.flags);
    let news = hash_of(&::postcard::to_allocvec(&news).unwrap_or_default());
    let tag = format!("\"{}\"", hex(news.get(..8).unwrap_or_default()));
    let matches = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes());
    let next = answer.next.to_string();
    let mut response = if matches && answer.acknowledged.is_empty() {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        postcard(&answer)?
    };
    let values = [
        (header::ETAG, tag),
        (header::HeaderName::from_static(wire::NEXT), next),
        (header::HeaderName::from_static(wire::NONCE), answer.nonce),
    ];
    for (name, value) in values {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Full jitter: from half to one and a half times the interval, so that devices that were woken together spread.
fn jittered(seconds: u32) -> ApiResult<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|_| ApiError::unavailable("no randomness"))?;
    let random = u64::from(u32::from_le_bytes(bytes));
    let seconds = u64::from(seconds.max(1));
    let spread = (random * (seconds + 1)) >> 32;
    Ok(u32::try_from(seconds / 2 + spread).unwrap_or(u32::MAX).max(1))
}

async fn offer(
    app: &App,
    device: &Device,
    terms: &Terms,
    root: u32,
    running: Option<[u8; 32]>,
    whole: Option<[u8; 16]>,
) -> ApiResult<Option<wire::Offer>> {
    let digest = hex(&terms.digest);
    let mut connection = app.store.read().await?;
    let Some(package) = packages::get(&mut connection, &device.tenant, &digest).await? else { return Ok(None) };
    // A device for which a difference did not work gets the whole.
    let wants_whole = whole.is_some_and(|w| terms.digest.starts_with(&w));
    let delta = match running.filter(|_| !wants_whole) {
        Some(base) => packages::delta(&mut connection, &device.tenant, &hex(&base), &digest).await?,
        None => None,
    };
    let roots = tenants::roots(&mut connection, &device.tenant).await?;
    drop(connection);
    let newer = |bytes: &Vec<u8>| {
        let document = Document::read(bytes, Role::Root).and_then(|d| d.decode::<RootKeys>());
        document.is_ok_and(|keys| keys.version > root)
    };
    let (hash, len, is_delta) = match delta {
        Some((hash, len)) => (hash, len, true),
        None => (package.hash, package.len, false),
    };
    let Some(id) = unhex_array::<32>(&hash).and_then(|h| h.first_chunk::<8>().copied()) else { return Ok(None) };
    let document = app.documents.rollout(&device.tenant, terms).map_err(ApiError::unavailable)?;
    // In whole days, so that the address stays the same for caches.
    let until = (app.clock.seconds() / 86_400 + 1) * 86_400 + URL_LIFE;
    let mark = app.seal.mark(&["artifact", &device.tenant, &hash, &until.to_string()]);
    Ok(Some(wire::Offer {
        roots: roots.into_iter().filter(newer).collect(),
        rollout: document,
        release: package.document,
        id,
        len: u32::try_from(len).map_err(|_| ApiError::unavailable("the package is too long"))?,
        delta: is_delta,
        url: format!("/d/v1/artifact/{hash}?t={}&until={until}&m={mark}", device.tenant),
    }))
}
