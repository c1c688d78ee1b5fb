//! The audit log.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::dashboard::figure;
use crate::dashboard::source::{AuditFilter, Trouble, Viewer};
use crate::dashboard::view::{AuditPage, Badge, Entry, Frame, Tone};
use crate::store::{Connection, audit};

/// Entries on a page.
const PAGE: i64 = 100;

fn entry(row: &AnyRow) -> Result<audit::Entry, sqlx::Error> {
    Ok(audit::Entry {
        n: row.try_get("n")?,
        time: row.try_get("time")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        detail: row.try_get("detail")?,
        previous: row.try_get("previous")?,
        hash: row.try_get("hash")?,
    })
}

/// Whether these entries, newest first, are as they were written, and follow one another where their numbers do.
fn chain(tenant: &str, entries: &[audit::Entry]) -> Badge {
    let broken = entries.iter().find(|e| !e.is_as_written(tenant)).or_else(|| {
        let follows = |pair: &&[audit::Entry]| match pair {
            [later, earlier] => later.n != earlier.n + 1 || later.previous == earlier.hash,
            _ => true,
        };
        entries.windows(2).find(|pair| !follows(pair)).and_then(<[audit::Entry]>::first)
    });
    match broken {
        Some(entry) => Badge::new(Tone::Bad, format!("Entry {} was changed, or the one before it", entry.n)),
        None if entries.is_empty() => Badge::new(Tone::Quiet, "Nothing to verify"),
        None => Badge::new(
            Tone::Good,
            format!(
                "The hashes of the {} entries below are whole; dunlin-fleet audit verify checks all",
                entries.len()
            ),
        ),
    }
}

/// Where what was acted on is shown.
fn link(action: &str, object: &str) -> Option<String> {
    let id = crate::dashboard::page::escape(object);
    match action.split('.').next()? {
        "rollout" => Some(format!("/rollouts/{id}")),
        // One that was revoked has no page any more.
        "device" if action != "device.revoke" => Some(format!("/devices/{id}")),
        "flags" => Some("/flags".to_owned()),
        "drift" => Some(format!("/drift?model={id}")),
        _ => None,
    }
}

/// A JSON object as `name: value`, one after another; anything else as it is.
fn detail(json: &str) -> String {
    let Ok(serde_json::Value::Object(map)) = serde_json::from_str(json) else { return json.to_owned() };
    let plain = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) if text.len() == 64 => figure::short(text).to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown = map.iter().filter(|(_, value)| !value.is_null());
    shown.map(|(name, value)| format!("{name}: {}", plain(value))).collect::<Vec<_>>().join(", ")
}

pub(in crate::dashboard) async fn audit(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    filter: &AuditFilter,
) -> Result<AuditPage, Trouble> {
    let actor = filter.actor.trim();
    let before = filter.before.unwrap_or(i64::MAX);
    let rows = sqlx::query(
        "SELECT * FROM audit WHERE tenant = $1 AND n < $2 AND ($3 = '' OR actor = $3) ORDER BY n DESC LIMIT $4",
    )
    .bind(&viewer.tenant)
    .bind(before)
    .bind(actor)
    .bind(PAGE)
    .fetch_all(&mut *connection)
    .await?;
    let entries: Vec<audit::Entry> = rows.iter().map(entry).collect::<Result<_, _>>()?;
    let address = |before: Option<i64>| {
        let before = before.map_or_else(String::new, |n| format!("&before={n}"));
        format!("/audit?actor={}{before}", crate::dashboard::page::escape(actor))
    };
    let full = i64::try_from(entries.len()).is_ok_and(|n| n == PAGE);
    let older = entries.last().filter(|last| full && last.n > 1).map(|last| address(Some(last.n)));
    let newer = filter.before.map(|_| address(None));
    let chain = chain(&viewer.tenant, &entries);
    let line = |e: audit::Entry| Entry {
        n: e.n,
        time: e.time,
        link: link(&e.action, &e.object),
        detail: detail(&e.detail),
        actor: e.actor,
        action: e.action,
        object: if e.object.len() == 64 { figure::short(&e.object).to_owned() } else { e.object },
        hash: e.hash,
    };
    let entries = entries.into_iter().map(line).collect();
    Ok(AuditPage { frame, entries, chain, actor: actor.to_owned(), older, newer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_read_as_pairs() {
        assert_eq!(detail(r#"{"reason":"dark frames","n":3,"none":null}"#), "n: 3, reason: dark frames");
        assert_eq!(detail("[1]"), "[1]");
        assert_eq!(link("rollout.start", "r 7").as_deref(), Some("/rollouts/r%207"));
        assert_eq!(link("token.create", "mira"), None);
    }
}
