//! The fleet as gauges for Prometheus: what is so now, by tenant.
//!
//! Collected when they are asked for, and then kept: for [`KEPT`] seconds at least, and for [`SHARE`] times as long as
//! collecting took, so that however large the fleet is, it takes at most a twentieth of the time. Reads go beside the
//! transactions that store polls.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use sqlx::Row as _;

use crate::alerting::{self, SILENT_POLLS};
use crate::server::App;
use crate::store::tenants::Tenant;
use crate::store::{Connection, alerts, census, packages, recalls, samples, serving, signed, tenants};

/// Seconds for which gauges are kept.
const KEPT: i64 = 15;
/// Times as long as collecting took for which they are kept at least.
const SHARE: u64 = 20;
/// Packages of a tenant with a series of their own, those that most devices run; the rest are `other`.
const PACKAGES: usize = 20;
/// Rollouts of a tenant with series of their own, the newest.
const ROLLOUTS: usize = 50;

/// One sample: labels without the tenant, and the value.
type Sample = (Vec<(&'static str, String)>, f64);

/// A tenant's samples by metric.
type Samples = BTreeMap<&'static str, Vec<Sample>>;

/// What was collected, and when.
#[derive(Debug)]
pub(crate) struct Collected {
    at: i64,
    until: i64,
    tenants: BTreeMap<String, Samples>,
}

/// The last collection.
pub(crate) type Cache = tokio::sync::Mutex<Option<Arc<Collected>>>;

/// Names and descriptions of all gauges.
const GAUGES: [(&str, &str); 15] = [
    ("devices", "Devices by model and state: online, silent (no poll for three intervals) or never (heard of)"),
    ("devices_running", "Devices by the package that they run; the packages with the fewest devices are other"),
    ("devices_rolled_back", "Devices that run a package that was rolled back"),
    ("devices_up_to_date", "Devices that had the flags in force at their last poll"),
    ("rollouts", "Rollouts by phase"),
    ("rollout_stage", "Stage of a live rollout, from 1"),
    ("rollout_stages", "Stages of a live rollout"),
    ("rollout_exposed_ratio", "Share of a model's devices that run a live rollout's candidate"),
    ("open_alerts", "Open alerts by rule and severity"),
    ("serving_stopped", "Whether inference is stopped: of the whole fleet, model=\"\", or of one model"),
    ("rule_ratio", "Share that an alert rule saw at its last evaluation"),
    ("rule_threshold_ratio", "Share above which the rule fires"),
    ("rule_firing", "Whether the rule's alert is open"),
    ("rule_evaluated_seconds", "When alert rules were last evaluated, seconds since 1970"),
    ("decision_lag_seconds", "Seconds by which the most overdue decision about a rollout is late"),
];

/// Escapes a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Collected {
    /// Prometheus' text for one tenant, or for all.
    pub(crate) fn text(&self, tenant: Option<&str>) -> String {
        let mut out = String::new();
        let of: Vec<(&String, &Samples)> =
            self.tenants.iter().filter(|(id, _)| tenant.is_none_or(|t| t == *id)).collect();
        for (name, help) in GAUGES {
            let mut lines = String::new();
            for (id, samples) in &of {
                for (labels, value) in samples.get(name).into_iter().flatten() {
                    let _ = write!(lines, "dunlin_fleet_{name}{{tenant=\"{}\"", escaped(id));
                    for (label, text) in labels {
                        let _ = write!(lines, ",{label}=\"{}\"", escaped(text));
                    }
                    let _ = writeln!(lines, "}} {value}");
                }
            }
            if !lines.is_empty() {
                let _ = writeln!(out, "# HELP dunlin_fleet_{name} {help}.\n# TYPE dunlin_fleet_{name} gauge");
                out.push_str(&lines);
            }
        }
        let name = "dunlin_fleet_gauges_collected_seconds";
        let _ =
            writeln!(out, "# HELP {name} When these gauges were collected, seconds since 1970.\n# TYPE {name} gauge");
        let _ = writeln!(out, "{name} {}", self.at);
        out
    }
}

/// Gauges of the server itself, which are no tenant's.
pub(crate) fn server(app: &App) -> String {
    let (depth, capacity) = app.ingest.depth();
    let mut out = String::new();
    for (name, help, value) in [
        ("ingest_queue_depth", "Polls that wait to be stored", depth),
        ("ingest_queue_capacity", "Polls that may wait; more are refused", capacity),
    ] {
        let _ = writeln!(out, "# HELP dunlin_fleet_{name} {help}.\n# TYPE dunlin_fleet_{name} gauge");
        let _ = writeln!(out, "dunlin_fleet_{name} {value}");
    }
    out
}

/// Returns the gauges, collected anew if they are too old. Whoever asks meanwhile waits for the same collection.
pub(crate) async fn collected(app: &App) -> Result<Arc<Collected>, sqlx::Error> {
    let mut cache = app.gauges.lock().await;
    let now = signed(app.clock.seconds());
    if let Some(known) = cache.as_ref().filter(|c| (c.at..c.until).contains(&now)) {
        return Ok(known.clone());
    }
    let began = Instant::now();
    let mut connection = app.store.read().await?;
    let mut all = BTreeMap::new();
    for tenant in tenants::list(&mut connection).await? {
        let samples = of_tenant(&mut connection, &tenant, now).await?;
        all.insert(tenant.id, samples);
    }
    let took = signed(began.elapsed().as_secs() * SHARE);
    let fresh = Arc::new(Collected { at: now, until: now + KEPT.max(took), tenants: all });
    *cache = Some(fresh.clone());
    Ok(fresh)
}

fn put(samples: &mut Samples, name: &'static str, labels: &[(&'static str, &str)], value: impl Into<f64>) {
    let labels = labels.iter().map(|(label, text)| (*label, (*text).to_owned())).collect();
    samples.entry(name).or_default().push((labels, value.into()));
}

async fn of_tenant(connection: &mut Connection, tenant: &Tenant, now: i64) -> Result<Samples, sqlx::Error> {
    let mut samples = Samples::new();
    let since = now - SILENT_POLLS * i64::from(tenant.settings.poll_seconds);
    let groups = census::groups(connection, &tenant.id, since).await?;
    devices(connection, tenant, &groups, &mut samples).await?;
    rollouts(connection, tenant, &groups, (since, &mut samples)).await?;
    for (rule, severity, n) in alerts::count_open(connection, &tenant.id).await? {
        put(&mut samples, "open_alerts", &[("rule", &rule), ("severity", severity.name())], n as f64);
    }
    let stops = serving::list(connection, &tenant.id).await?;
    let all_stopped = stops.iter().any(|s| s.model.is_empty());
    put(&mut samples, "serving_stopped", &[("model", "")], u8::from(all_stopped));
    for stop in stops.iter().filter(|s| !s.model.is_empty()) {
        put(&mut samples, "serving_stopped", &[("model", &stop.model)], 1);
    }
    let flags = crate::store::flags::get(connection, &tenant.id).await?;
    let up_to_date = serving::obeying(connection, &tenant.id, "", flags.map_or(0, |f| f.sequence), since).await?;
    put(&mut samples, "devices_up_to_date", &[], up_to_date.obeying as f64);
    let mut evaluated = None;
    for rule in samples::evaluations(connection, &tenant.id).await? {
        let labels = [("rule", rule.rule.as_str()), ("model", rule.model.as_str())];
        if let Some(share) = rule.share().filter(|_| rule.status != samples::Status::NoData) {
            put(&mut samples, "rule_ratio", &labels, share);
            put(&mut samples, "rule_threshold_ratio", &labels, rule.threshold);
        }
        put(&mut samples, "rule_firing", &labels, u8::from(rule.status == samples::Status::Firing));
        evaluated = evaluated.max(Some(rule.evaluated));
    }
    if let Some(evaluated) = evaluated {
        put(&mut samples, "rule_evaluated_seconds", &[], evaluated as f64);
    }
    let lag = alerting::decision_lag(connection, &tenant.id, now).await?;
    put(&mut samples, "decision_lag_seconds", &[], lag as f64);
    Ok(samples)
}

async fn devices(
    connection: &mut Connection,
    tenant: &Tenant,
    groups: &[census::Group],
    samples: &mut Samples,
) -> Result<(), sqlx::Error> {
    let mut states: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    for group in groups {
        let [online, silent, never] = states.entry(&group.model).or_default();
        *online += group.devices - group.silent - group.never;
        *silent += group.silent;
        *never += group.never;
    }
    for (model, counts) in states {
        for (state, n) in ["online", "silent", "never"].into_iter().zip(counts) {
            put(samples, "devices", &[("model", model), ("state", state)], n as f64);
        }
    }
    let versions = packages::versions(connection, &tenant.id).await?;
    let mut other = 0;
    let running = groups.iter().filter_map(|g| Some((g, g.running.as_deref()?)));
    for (i, (group, digest)) in running.enumerate() {
        if i >= PACKAGES {
            other += group.devices;
            continue;
        }
        let version = versions.get(digest).map_or("", String::as_str);
        let short = digest.get(..12).unwrap_or(digest);
        let labels = [("model", group.model.as_str()), ("version", version), ("digest", short)];
        put(samples, "devices_running", &labels, group.devices as f64);
    }
    if other > 0 {
        put(samples, "devices_running", &[("model", "other"), ("version", ""), ("digest", "")], other as f64);
    }
    Ok(())
}

async fn rollouts(
    connection: &mut Connection,
    tenant: &Tenant,
    groups: &[census::Group],
    (since, samples): (i64, &mut Samples),
) -> Result<(), sqlx::Error> {
    let rows =
        sqlx::query("SELECT phase, COUNT(*) AS found FROM rollouts WHERE tenant = $1 GROUP BY phase ORDER BY phase")
            .bind(&tenant.id)
            .fetch_all(&mut *connection)
            .await?;
    for row in &rows {
        put(samples, "rollouts", &[("phase", row.try_get("phase")?)], row.try_get::<i64, _>("found")? as f64);
    }
    let mut live = crate::store::rollouts::live(connection, &tenant.id).await?;
    live.sort_by_key(|r| std::cmp::Reverse(r.started));
    for stored in live.iter().filter(|r| r.rollout.phase().is_under_way()).take(ROLLOUTS) {
        let labels = [("rollout", stored.id.as_str()), ("model", stored.name.as_str())];
        let stages = stored.rollout.plan().stages().count();
        put(samples, "rollout_stage", &labels, f64::from(stored.rollout.stage()) + 1.0);
        put(samples, "rollout_stages", &labels, stages as f64);
        let of_model = groups.iter().filter(|g| g.model == stored.name);
        let all: i64 = of_model.clone().map(|g| g.devices).sum();
        let runs = |g: &&census::Group| g.running.as_ref().is_some_and(|r| stored.candidates.contains(r));
        let exposed: i64 = of_model.filter(runs).map(|g| g.devices).sum();
        if all > 0 {
            put(samples, "rollout_exposed_ratio", &labels, exposed as f64 / all as f64);
        }
    }
    let mut on_recalled = 0;
    for recall in recalls::list(connection, &tenant.id).await?.iter().filter(|r| r.open && !r.keeps) {
        on_recalled += recalls::progress(connection, &tenant.id, &recall.digest, since).await?.running;
    }
    put(samples, "devices_rolled_back", &[], on_recalled as f64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_sees_its_own_and_labels_are_escaped() {
        let mut one = Samples::new();
        put(&mut one, "devices", &[("model", "a\"b\\c\nd"), ("state", "online")], 3);
        let mut two = Samples::new();
        put(&mut two, "devices", &[("model", "m"), ("state", "online")], 4);
        let all = Collected { at: 5, until: 9, tenants: [("one".to_owned(), one), ("two".to_owned(), two)].into() };
        let text = all.text(Some("one"));
        assert!(text.contains(r#"dunlin_fleet_devices{tenant="one",model="a\"b\\c\nd",state="online"} 3"#), "{text}");
        assert!(!text.contains("two"), "{text}");
        let text = all.text(None);
        assert_eq!(text.matches("# TYPE dunlin_fleet_devices gauge").count(), 1, "{text}");
        assert!(text.contains(r#"tenant="two",model="m""#) && text.contains(r#"tenant="one""#), "{text}");
    }

    #[test]
    fn rules_and_dashboard_ask_for_series_that_there_are() {
        let own = crate::metrics::Metrics::default().text();
        let known = |name: &str| {
            GAUGES.iter().any(|(gauge, _)| *gauge == name)
                || ["ingest_queue_depth", "ingest_queue_capacity"].contains(&name)
                || own.contains(&format!("\ndunlin_fleet_{name}"))
        };
        let rules = concat!(include_str!("../prometheus/rules.yml"), include_str!("../prometheus/grafana.json"));
        let mut asked = 0;
        for rest in rules.split("dunlin_fleet_").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            assert!(known(&rest[..end]), "there is no dunlin_fleet_{}", &rest[..end]);
            asked += 1;
        }
        assert!(asked > 15, "{asked}");
    }
}
