//! Devices and their history.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::serving::is_candidates;
use super::{Models, heard_since, role};
use crate::auth::Role;
use crate::dashboard::figure;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{
    Badge, DeviceFilter, DeviceLine, DevicePage, DevicesPage, Event, Exposure, Frame, Model, Rate, Tone,
};
use crate::hex;
use crate::store::{self, Connection, devices::Device, exposures::Beside, rollouts::Stored};
use crate::summary::Summary;

/// Devices on a page.
const PAGE: i64 = 50;

/// How a device is, from when it was last heard of.
fn state(seen: i64, since: i64) -> Badge {
    match seen {
        0 => Badge::new(Tone::Quiet, "never heard of"),
        s if s >= since => Badge::new(Tone::Good, "online"),
        _ => Badge::new(Tone::Bad, "silent"),
    }
}

fn line(device: &Device, models: &Models, since: i64) -> DeviceLine {
    DeviceLine {
        id: device.id.clone(),
        ring: device.ring.map_or_else(String::new, |ring| format!("ring {ring}")),
        state: state(device.seen, since),
        seen: (device.seen > 0).then_some(device.seen),
        running: device.running.as_deref().map(|digest| models.of(&device.model, digest)),
        phase: device.phase.to_lowercase(),
    }
}

/// What people type, as a pattern for LIKE in which it means itself.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.to_lowercase().chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// The condition of a filter; its parameters are tenant, pattern, ring, running, state, since.
const MATCHES: &str =
    "tenant = $1 AND ($2 = '%%' OR LOWER(id) LIKE $2 ESCAPE '!' OR LOWER(attributes) LIKE $2 ESCAPE '!')
    AND ($3 < 0 OR ring = $3) AND ($4 = '' OR running = $4) AND ($5 = '' OR ($5 = 'never' AND seen = 0)
    OR ($5 = 'online' AND seen > 0 AND seen >= $6) OR ($5 = 'silent' AND seen > 0 AND seen < $6))";

pub(in crate::dashboard) async fn list(
    connection: &mut Connection,
    viewer: &Viewer,
    frame: Frame,
    filter: DeviceFilter,
) -> Result<DevicesPage, Trouble> {
    let since = heard_since(connection, viewer, frame.now).await?;
    let models = Models::load(connection, &viewer.tenant).await?;
    let ring: i64 = filter.ring.strip_prefix("ring ").unwrap_or(&filter.ring).parse().unwrap_or(-1);
    let search = pattern(filter.q.trim());
    let count = format!("SELECT COUNT(*) FROM devices WHERE {MATCHES}");
    let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
        .bind(&viewer.tenant)
        .bind(&search)
        .bind(ring)
        .bind(&filter.running)
        .bind(&filter.state)
        .bind(since)
        .fetch_one(&mut *connection)
        .await?;
    let page = i64::from(filter.page);
    let select = format!("SELECT id FROM devices WHERE {MATCHES} ORDER BY id LIMIT $7 OFFSET $8");
    let ids: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(select))
        .bind(&viewer.tenant)
        .bind(&search)
        .bind(ring)
        .bind(&filter.running)
        .bind(&filter.state)
        .bind(since)
        .bind(PAGE)
        .bind(page * PAGE)
        .fetch_all(&mut *connection)
        .await?;
    let mut devices = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(device) = store::devices::get(connection, &viewer.tenant, &id).await? {
            devices.push(line(&device, &models, since));
        }
    }
    let rings: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT ring FROM devices WHERE tenant = $1 AND ring IS NOT NULL ORDER BY ring LIMIT 100",
    )
    .bind(&viewer.tenant)
    .fetch_all(&mut *connection)
    .await?;
    let running = sqlx::query(
        "SELECT DISTINCT model, running FROM devices WHERE tenant = $1 AND running IS NOT NULL
         ORDER BY model, running LIMIT 100",
    )
    .bind(&viewer.tenant)
    .fetch_all(&mut *connection)
    .await?;
    let model = |row: &AnyRow| {
        let (name, digest): (String, String) = (row.try_get("model")?, row.try_get("running")?);
        Ok::<_, sqlx::Error>(models.of(&name, &digest))
    };
    let running: Vec<Model> = running.iter().map(model).collect::<Result<_, _>>()?;
    let address = |page: i64| {
        let mut query = format!("/devices?page={page}");
        for (name, value) in
            [("q", &filter.q), ("state", &filter.state), ("running", &filter.running), ("ring", &filter.ring)]
        {
            if !value.is_empty() {
                query.push_str(&format!("&{name}={}", crate::dashboard::page::escape(value)));
            }
        }
        query
    };
    Ok(DevicesPage {
        frame,
        models: running,
        rings: rings.iter().map(|ring| format!("ring {ring}")).collect(),
        found: found.unsigned_abs(),
        next: ((page + 1) * PAGE < found).then(|| address(page + 1)),
        previous: (page > 0).then(|| address(page - 1)),
        devices,
        filter,
    })
}

/// Reports in a device's history.
const REPORTS: i64 = 60;

pub(in crate::dashboard) async fn one(
    connection: &mut Connection,
    viewer: &Viewer,
    mut frame: Frame,
    id: &str,
) -> Result<DevicePage, Trouble> {
    let found = store::devices::get(connection, &viewer.tenant, id).await?;
    let device = found.ok_or(Trouble::Missing("device"))?;
    frame.title = format!("Device {}", figure::short(id));
    let since = heard_since(connection, viewer, frame.now).await?;
    let models = Models::load(connection, &viewer.tenant).await?;
    let attributes: BTreeMap<String, String> = serde_json::from_str(&device.attributes).unwrap_or_default();
    let mut attributes: Vec<(String, String)> = attributes.into_iter().collect();
    attributes.insert(0, ("target".to_owned(), device.target.clone()));

    let rows = sqlx::query(
        "SELECT exposures.rollout AS rollout, arm, assigned, offered, activated, runs, beside, outcome,
         rollouts.name AS name
         FROM exposures JOIN rollouts ON rollouts.tenant = exposures.tenant AND rollouts.id = exposures.rollout
         WHERE exposures.tenant = $1 AND exposures.device = $2 ORDER BY assigned DESC LIMIT 20",
    )
    .bind(&viewer.tenant)
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let mut exposures = Vec::new();
    let mut history = Vec::new();
    for row in &rows {
        let arm: i64 = row.try_get("arm")?;
        let (rollout, name): (String, String) = (row.try_get("rollout")?, row.try_get("name")?);
        let (offered, activated): (Option<i64>, Option<i64>) = (row.try_get("offered")?, row.try_get("activated")?);
        let runs: i64 = row.try_get("runs")?;
        let beside: i64 = row.try_get("beside")?;
        let outcome: Option<String> = row.try_get("outcome")?;
        let turns = match Beside::of(beside) {
            Beside::Hourly => store::rollouts::get(&mut *connection, &viewer.tenant, &rollout).await?,
            _ => None,
        };
        let hourly = turns.as_ref().is_some_and(Stored::takes_turns);
        let outcome = match (&outcome, runs != 0) {
            (_, true) if Beside::of(beside) == Beside::Shadow => Badge::new(Tone::Good, "runs it in the shadow"),
            (_, true) if Beside::of(beside) == Beside::Hourly => {
                let salt = turns.map(|of| of.rollout.salt());
                let candidate = salt.zip(device.identity()).map(|(s, i)| is_candidates(s, &i, frame.now));
                let who = candidate.map(|c| if c { ", now the candidate" } else { ", now the base" });
                Badge::new(Tone::Good, format!("takes turns by the hour{}", who.unwrap_or_default()))
            }
            (_, true) => Badge::new(Tone::Good, "runs the candidate"),
            (Some(outcome), false) if outcome.starts_with("Reverted") => Badge::new(Tone::Bad, outcome.to_lowercase()),
            // Since then it has got something else.
            (Some(outcome), false) if outcome == "Confirmed" => Badge::new(Tone::Quiet, "ran it, and went on"),
            (Some(outcome), false) => Badge::new(Tone::Watch, outcome.to_lowercase()),
            (None, false) if activated.is_some() && super::rollout::is_candidate(arm) => {
                Badge::new(Tone::Watch, "ran it, and went back")
            }
            (None, false) if offered.is_some() => Badge::new(Tone::Busy, "was offered it"),
            (None, false) => Badge::new(Tone::Quiet, "keeps what it has"),
        };
        let arm = super::rollout::arm_name(arm, hourly).to_owned();
        for (time, what) in [(offered, "offered"), (activated, "activated")] {
            if let Some(time) = time {
                history.push(Event { time, what: Badge::new(Tone::Busy, what), detail: format!("{name}, {rollout}") });
            }
        }
        exposures.push(Exposure { candidate: format!("{name}, {rollout}"), rollout, arm, outcome, offered, activated });
    }

    let (mut errors, mut deadline_misses) = (Rate::default(), Rate::default());
    let reports = store::reports::of_device(connection, &viewer.tenant, id, REPORTS).await?;
    let day = frame.now - 86_400;
    let mut after: Option<(i64, i64)> = None;
    for (boot, seq, arrived, _, payload) in reports {
        if let Some((later_boot, later_seq)) = after.filter(|(b, s)| *b == boot && *s > seq + 1) {
            let lost = later_seq - seq - 1;
            let detail = format!("{lost} missing before {later_seq}, boot {later_boot}");
            history.push(Event { time: arrived, what: Badge::new(Tone::Watch, "gap"), detail });
        }
        after = Some((boot, seq));
        let (what, detail) = match Summary::of(&payload) {
            Some(seen) => {
                if arrived >= day {
                    errors = Rate::new(errors.bad + seen.errors, errors.of + seen.inferences);
                    deadline_misses =
                        Rate::new(deadline_misses.bad + seen.deadline_misses, deadline_misses.of + seen.inferences);
                }
                let mut detail = format!("{} inferences", figure::count(seen.inferences));
                for (n, words) in [(seen.errors, "failed"), (seen.deadline_misses, "late")] {
                    if n > 0 {
                        detail.push_str(&format!(", {} {words}", figure::count(n)));
                    }
                }
                if seen.restarted {
                    detail.push_str(", started more than once");
                }
                let bad = seen.errors > 0 || seen.deadline_misses > 0 || seen.restarted;
                (Badge::new(if bad { Tone::Watch } else { Tone::Good }, format!("report {seq}")), detail)
            }
            None => (
                Badge::new(Tone::Quiet, format!("report {seq}")),
                format!("{} bytes of a schema that this server does not know; kept", payload.len()),
            ),
        };
        history.push(Event { time: arrived, what, detail: format!("boot {boot}: {detail}") });
    }
    history.push(Event { time: device.enrolled, what: Badge::new(Tone::Quiet, "enrolled"), detail: String::new() });
    history.sort_by_key(|event| std::cmp::Reverse(event.time));

    let reported = device.boot > 0 || device.seq > 0;
    let outcome = device.last_outcome.as_ref().map(|outcome| {
        let of = device.last_digest.as_deref().map_or("", figure::short);
        format!("{} {of}", outcome.to_lowercase())
    });
    Ok(DevicePage {
        may_revoke: role(viewer) >= Role::Operator,
        frame,
        line: line(&device, &models, since),
        enrolled: device.enrolled,
        boot: reported.then(|| device.boot.unsigned_abs()),
        sequence: reported.then(|| device.seq.unsigned_abs()),
        outcome,
        attributes,
        key: hex(&device.key),
        exposures,
        errors,
        deadline_misses,
        missing: reported.then(|| device.missed.unsigned_abs()),
        history,
    })
}

#[cfg(test)]
mod tests {
    use super::pattern;

    #[test]
    fn what_is_typed_means_itself() {
        assert_eq!(pattern(""), "%%");
        assert_eq!(pattern("a_b%c!D"), "%a!_b!%c!!d%");
    }
}
