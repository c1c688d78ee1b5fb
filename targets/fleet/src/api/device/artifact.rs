//! `GET /d/v1/artifact/{hash}`: bytes by their hash, in ranges. The address carries its own permission, so caches and
//! plain HTTP clients can fetch it.

use std::ops::Range;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;
use serde::Deserialize;

use crate::api::input::{Ask, digest};
use crate::error::{ApiError, ApiResult};
use crate::server::App;
use crate::store::{packages, tenants, unsigned};

/// Bytes in one answer; whoever wants more asks again from there.
const MOST: u64 = 4 << 20;

#[derive(Deserialize)]
pub(super) struct Permission {
    t: String,
    until: u64,
    m: String,
}

pub(super) async fn artifact(
    State(app): State<App>,
    Path(hash): Path<String>,
    Ask(permission): Ask<Permission>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let Permission { t, until, m } = permission;
    let bytes = digest(&hash)?;
    if until < app.clock.seconds() || !app.seal.is_mark(&["artifact", &t, &hash, &until.to_string()], &m) {
        return Err(ApiError::forbidden("the address is not valid any more", "poll for a new offer"));
    }
    let mut connection = app.store.read().await?;
    let tenant = tenants::get(&mut connection, &t).await?.ok_or_else(|| ApiError::missing("artifact", &hash))?;
    app.limits.take(&format!("d/{t}"), tenant.settings.device_rate, app.clock.micros()).map_err(|seconds| {
        app.metrics.refused.add(1);
        ApiError::too_many("the fleet", seconds)
    })?;
    let len = packages::artifact_len(&mut connection, &t, &hash).await?;
    drop(connection);
    let len = len.map(unsigned).ok_or_else(|| ApiError::missing("artifact", &hash))?;
    let tag = format!("\"{hash}\"");
    if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let asked = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    // A part of another artifact would be of no use: then all of this one.
    let same = headers.get(header::IF_RANGE).is_none_or(|v| v.as_bytes() == tag.as_bytes());
    let range = match asked.filter(|_| same).map(|r| parse(r, len)) {
        Some(Some(range)) => Some(range),
        Some(None) => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{len}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(response);
        }
        None => None,
    };
    let headers = [
        (header::ETAG, tag),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
    ];
    let Some(mut part) = range else {
        let parts = app.artifacts.stream(bytes, len).await?;
        let parts = parts.inspect_ok(move |part| app.metrics.bytes.add(part.len() as u64));
        let length = [(header::CONTENT_LENGTH, len.to_string())];
        return Ok((headers, length, Body::from_stream(parts)).into_response());
    };
    part.end = part.end.min(part.start + MOST);
    let body = app.artifacts.range(&bytes, part.clone()).await?;
    app.metrics.bytes.add(body.len() as u64);
    let range = [(header::CONTENT_RANGE, format!("bytes {}-{}/{len}", part.start, part.end - 1))];
    Ok((StatusCode::PARTIAL_CONTENT, headers, range, body).into_response())
}

/// One range of bytes (RFC 9110, section 14.1.2), if it is within the length. Several are not served: `None`.
fn parse(text: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        let n: u64 = last.parse().ok()?;
        len.saturating_sub(n)..len
    } else {
        let first: u64 = first.parse().ok()?;
        let end = if last.is_empty() { len } else { last.parse::<u64>().ok()?.checked_add(1)?.min(len) };
        first..end
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ranges_as_the_standard_has_them() {
        assert_eq!(parse("bytes=0-499", 1000), Some(0..500));
        assert_eq!(parse("bytes=500-", 1000), Some(500..1000));
        assert_eq!(parse("bytes=-100", 1000), Some(900..1000));
        assert_eq!(parse("bytes=990-2000", 1000), Some(990..1000));
        for bad in ["bytes=1000-", "bytes=5-4", "bytes=a-", "items=0-1", "bytes=0-1,5-6", "bytes=-0", "bytes=-"] {
            assert_eq!(parse(bad, 1000), None, "{bad}");
        }
    }
}
