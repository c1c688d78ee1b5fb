//! Alerts about the fleet as a whole: silence, errors, deadline misses, restarts, enrolments and the server's own lag.
//!
//! Once a minute each rule is evaluated for each model of each tenant. A rule about a share has a limit that holds on any
//! fleet, and a baseline from the fleet's own days: what was usual at the same time of day on the last [`baseline::DAYS`]
//! days. Too little data is neither good nor bad: it opens no alert and resolves none.

mod baseline;
mod lag;
mod rule;
mod window;

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use baseline::Baseline;
use rule::{Measured, Outcome, Rule, Wording};
use window::{Sums, Window};

use crate::error::ApiError;
use crate::flags::serving;
use crate::server::App;
use crate::store::alerts::{self, Change, Condition, Severity};
use crate::store::census::{self, Group};
use crate::store::samples::{self, Evaluation, Key, Status};
use crate::store::tenants::{self, Tenant};
use crate::store::{Connection, packages, signed};

pub(crate) use crate::store::devices::SILENT_POLLS;
pub(crate) use lag::decisions as decision_lag;
pub(crate) use rule::SILENT;

/// Seconds between evaluations.
pub(crate) const EVERY: i64 = 60;
/// Seconds without an evaluation after which the server was not watching, as when it was stopped or suspended: silence is
/// evaluated again when devices have had the time to poll.
const GAP: i64 = 600;
/// Seconds after which an evaluation that was not repeated is deleted: its model or replica is gone.
const STALE: i64 = 900;
/// Models of a tenant that are evaluated, those with the most devices.
const MODELS: usize = 50;
/// Enrolments of an hour below which no number is unusual.
const MIN_ENROLMENTS: i64 = 50;
/// Times the usual number of enrolments that is an alert at least.
const ENROLMENTS_FACTOR: f64 = 4.0;
/// Part of the quota of devices from which on there is an alert.
const QUOTA: f64 = 0.9;

/// What evaluations remember from one to the next, on this replica.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    last: i64,
    watching_since: i64,
    windows: HashMap<String, Window>,
    /// The hour that was last sampled, by tenant.
    sampled: HashMap<String, i64>,
    lag: lag::Memory,
}

/// Evaluates all rules if a minute has passed. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &App) {
    let mut memory = app.alerting.lock().await;
    let now = signed(app.clock.seconds());
    if (0..EVERY).contains(&(now - memory.last)) {
        return;
    }
    if !(0..GAP).contains(&(now - memory.last)) {
        memory.watching_since = now;
    }
    memory.last = now;
    let requests = memory.lag.requests(app);
    let list = async { tenants::list(&mut *app.store.read().await?).await };
    let all = match list.await {
        Ok(all) => all,
        Err(error) => {
            tracing::error!(%error, "alert rules are not evaluated");
            return;
        }
    };
    for tenant in &all {
        if let Err(error) = of_tenant(app, &mut memory, tenant, &requests, now).await {
            tracing::error!(error = error.problem.error, tenant = tenant.id, "alert rules are not evaluated");
        }
    }
}

/// A model's devices and what they reported.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    devices: i64,
    silent: i64,
    sums: Sums,
}

fn by_model(groups: &[Group], sums: &HashMap<&str, Sums>, names: &BTreeMap<String, String>) -> BTreeMap<String, Seen> {
    let mut models: BTreeMap<String, Seen> = BTreeMap::new();
    let mut of_digest: BTreeMap<&str, &str> = names.iter().map(|(d, n)| (d.as_str(), n.as_str())).collect();
    for group in groups {
        let seen = models.entry(group.model.clone()).or_default();
        seen.devices += group.devices;
        seen.silent += group.silent + group.overdue;
        if let Some(running) = &group.running {
            of_digest.entry(running).or_insert(&group.model);
        }
    }
    for (digest, more) in sums {
        if let Some(seen) = of_digest.get(digest).and_then(|model| models.get_mut(*model)) {
            seen.sums.add(more);
        }
    }
    let mut most: Vec<(i64, String)> = models.iter().map(|(model, seen)| (seen.devices, model.clone())).collect();
    most.sort();
    for (_, model) in most.iter().rev().skip(MODELS) {
        models.remove(model);
    }
    models
}

/// What each rule about a share measures of a model.
fn measured(seen: &Seen, watches_silence: bool) -> [(Rule, Measured); 4] {
    let Seen { devices, silent, sums } = *seen;
    let of = |bad: i64, total: i64, independent: i64| Measured { bad, total, independent };
    let silence = if watches_silence { devices } else { 0 };
    [
        (rule::SILENT, of(silent, devices, silence)),
        (rule::ERRORS, of(sums.errors, sums.inferences, sums.reports)),
        (rule::MISSES, of(sums.deadline_misses, sums.inferences, sums.reports)),
        (rule::RESETS, of(sums.resets, sums.reports, sums.reports)),
    ]
}

async fn of_tenant(
    app: &App,
    memory: &mut Memory,
    tenant: &Tenant,
    requests: &lag::Requests,
    now: i64,
) -> Result<(), ApiError> {
    let id = tenant.id.as_str();
    let silence = SILENT_POLLS * i64::from(tenant.settings.poll_seconds);
    let mut connection = app.store.read().await?;
    let groups = census::groups(&mut connection, id, now - silence).await?;
    let window = memory.windows.entry(id.to_owned()).or_default();
    window.update(&mut connection, id, now).await?;
    let names = packages::models(&mut connection, id).await?;
    let models = by_model(&groups, &window.sums(), &names);
    let before = samples::evaluations(&mut connection, id).await?;
    let watches_silence = now - memory.watching_since >= silence;
    let hour = now / 3600;
    let is_new_hour = memory.sampled.get(id).is_none_or(|sampled| *sampled < hour);
    let mut outcomes = Vec::new();
    let mut sampled = Vec::new();
    for (model, seen) in &models {
        for (rule, found) in measured(seen, watches_silence) {
            let rule = rule.with_limit(tenant.settings.alert_limits);
            let usual = baseline(&mut connection, Key { tenant: id, rule: rule.name, model }, hour).await?;
            let known = before.iter().find(|e| e.rule == rule.name && e.model == *model);
            let outcome = rule.evaluate(model, found, usual, known, now);
            // What is beyond the limit never becomes usual.
            let share = outcome.evaluation.share().filter(|_| found.independent >= rule.min);
            if is_new_hour && share.is_some_and(|share| share <= rule.limit) {
                sampled.push((rule.name, model.as_str(), found.bad, found.total));
            }
            outcomes.push(outcome);
        }
    }
    let devices: i64 = groups.iter().map(|g| g.devices).sum();
    let (enrolments, enrolled) = enrolments(&mut connection, id, hour, now).await?;
    if is_new_hour && devices > 0 {
        sampled.push((ENROLMENTS, "", enrolled, 1));
    }
    outcomes.push(enrolments);
    outcomes.push(quota(devices, tenant.settings.max_devices, now));
    outcomes.extend(lag::outcomes(&mut connection, id, requests, &before, now).await?);
    drop(connection);

    let mut tx = app.store.write().await?;
    // The tenant's row first, as whoever writes audit entries and then alerts.
    sqlx::query("UPDATE tenants SET alerted = alerted WHERE id = $1").bind(id).execute(&mut *tx).await?;
    for (rule, model, bad, total) in sampled {
        samples::insert(&mut tx, Key { tenant: id, rule, model }, hour, bad, total).await?;
    }
    if is_new_hour {
        samples::prune(&mut tx, id, hour - 24 * (baseline::DAYS + 1)).await?;
    }
    for outcome in &outcomes {
        store(app, &mut tx, id, outcome, now).await?;
    }
    forget_stale(&mut tx, id, &before, &outcomes, now).await?;
    serving::reconcile(app, &mut tx, id, now).await?;
    tx.commit().await?;
    memory.sampled.insert(id.to_owned(), hour);
    Ok(())
}

async fn baseline(connection: &mut Connection, key: Key<'_>, hour: i64) -> Result<Option<Baseline>, sqlx::Error> {
    let found = samples::at_time_of_day(connection, key, hour - 24 * baseline::DAYS - 1, hour).await?;
    let shares = found.into_iter().filter(|(_, _, total)| *total > 0);
    Ok(Baseline::of(shares.map(|(hour, bad, total)| (hour, bad as f64 / total as f64)), hour))
}

fn alert_key(of: &Evaluation) -> String {
    if of.model.is_empty() { of.rule.clone() } else { format!("{}/{}", of.rule, of.model) }
}

async fn store(app: &App, tx: &mut Connection, tenant: &str, outcome: &Outcome, now: i64) -> Result<(), sqlx::Error> {
    samples::put(tx, tenant, &outcome.evaluation).await?;
    let key = alert_key(&outcome.evaluation);
    if let Some(alert) = &outcome.alert {
        let condition = Condition {
            key: &key,
            rule: &outcome.evaluation.rule,
            severity: alert.severity,
            rollout: "",
            text: &alert.text,
            detail: &alert.detail,
        };
        if let Change::Opened(_) = alerts::set(tx, tenant, now, &condition).await? {
            app.metrics.alerts.add(1);
        }
    } else if outcome.resolves {
        alerts::clear(tx, tenant, now, &key).await?;
    }
    Ok(())
}

/// Deletes evaluations of models that no device has any more and of replicas that are gone, and resolves their alerts.
async fn forget_stale(
    tx: &mut Connection,
    tenant: &str,
    before: &[Evaluation],
    outcomes: &[Outcome],
    now: i64,
) -> Result<(), sqlx::Error> {
    let is_fresh =
        |old: &Evaluation| outcomes.iter().any(|o| o.evaluation.rule == old.rule && o.evaluation.model == old.model);
    for old in before.iter().filter(|old| now - old.evaluated >= STALE && !is_fresh(old)) {
        samples::delete(tx, Key { tenant, rule: &old.rule, model: &old.model }).await?;
        alerts::clear(tx, tenant, now, &alert_key(old)).await?;
    }
    Ok(())
}

const ENROLMENTS: &str = "enrolments";

/// The rule about enrolments of the last hour, and their number. Only a baseline says how many are too many.
async fn enrolments(
    connection: &mut Connection,
    tenant: &str,
    hour: i64,
    now: i64,
) -> Result<(Outcome, i64), sqlx::Error> {
    let by_model = census::enrolled_since(connection, tenant, now - 3600).await?;
    let found: i64 = by_model.iter().map(|(_, n)| n).sum();
    let usual = baseline(connection, Key { tenant, rule: ENROLMENTS, model: "" }, hour).await?;
    let most = usual.map(|b| b.upper.max(ENROLMENTS_FACTOR * b.median).max(MIN_ENROLMENTS as f64));
    let status = match most {
        None => Status::NoData,
        Some(most) if found as f64 > most => Status::Firing,
        Some(_) => Status::Ok,
    };
    let evaluation = Evaluation {
        rule: ENROLMENTS.to_owned(),
        model: String::new(),
        evaluated: now,
        status,
        bad: found,
        total: 1,
        threshold: most.unwrap_or(MIN_ENROLMENTS as f64),
        baseline: usual.map(|b| b.median),
        samples: usual.map_or(0, |b| i64::try_from(b.samples).unwrap_or(i64::MAX)),
        quiet_since: 0,
    };
    let alert = (status == Status::Firing).then(|| Wording {
        severity: Severity::Warning,
        text: format!(
            "{found} devices enrolled in the last hour; usual at this time of day: {:.0}",
            usual.map_or(0.0, |b| b.median)
        ),
        detail: json!({
            "rule": ENROLMENTS, "enrolled": found, "threshold": most, "baseline": usual.map(|b| b.median),
            "next": "see whether these devices are yours; if not, revoke the enrolment token and the devices",
        }),
    });
    Ok((Outcome { evaluation, alert, resolves: status == Status::Ok }, found))
}

/// The rule about the quota of devices: enrolments are about to be refused.
fn quota(devices: i64, most: i64, now: i64) -> Outcome {
    let fires = most > 0 && devices as f64 > QUOTA * most as f64;
    let evaluation = Evaluation {
        rule: "device_quota".to_owned(),
        model: String::new(),
        evaluated: now,
        status: if fires { Status::Firing } else { Status::Ok },
        bad: devices,
        total: most,
        threshold: QUOTA,
        baseline: None,
        samples: 0,
        quiet_since: 0,
    };
    let alert = fires.then(|| Wording {
        severity: Severity::Warning,
        text: format!("{devices} of {most} devices are enrolled: more will soon be refused"),
        detail: json!({
            "rule": "device_quota", "devices": devices, "quota": most,
            "next": "revoke devices that are gone, or have the installation raise max_devices",
        }),
    });
    Outcome { evaluation, alert, resolves: !fires }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_count_for_the_model_of_their_package() {
        let group = |model: &str, running: Option<&str>, devices: i64, silent: i64| Group {
            model: model.to_owned(),
            running: running.map(str::to_owned),
            devices,
            never: 0,
            silent,
            overdue: 1,
        };
        let groups = [group("a", Some("d1"), 10, 2), group("a", None, 5, 0), group("b", Some("d3"), 1, 0)];
        let names = [("d1", "a"), ("d2", "a")].map(|(d, n)| (d.to_owned(), n.to_owned())).into();
        let sums = |errors: i64| Sums { errors, inferences: 100, reports: 1, ..Sums::default() };
        // d2 is published and runs nowhere any more, d3 was never published here, d4 is nobody's.
        let found =
            by_model(&groups, &[("d1", sums(1)), ("d2", sums(2)), ("d3", sums(4)), ("d4", sums(8))].into(), &names);
        assert_eq!((found["a"].devices, found["a"].silent, found["a"].sums.errors), (15, 4, 3));
        assert_eq!((found["b"].sums.errors, found.len()), (4, 2));
    }

    #[test]
    fn a_quota_that_is_nearly_used_up_is_an_alert() {
        assert!(quota(90, 100, 0).alert.is_none());
        assert!(quota(91, 100, 0).alert.is_some());
    }
}
