//! Drift: what devices counted against their package's reference, by the verdicts of `dunlin-telemetry`.
//!
//! Devices are told apart by the package they run and by the cohort that their reports name. A window is a day of UTC. When
//! it is over it is judged once, by whichever replica comes first: what calls for an alarm in two windows one after the
//! other makes one alert with the playbook's next step; a window that is steady again clears it, and says so. A window
//! of too few devices or inferences does neither.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_package::Package;
use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::analysis::{Alarm, Baseline, Criteria, Fleet, Level, Tally, Verdict};
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::{Reference, Report};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::decide::STEPS;
use crate::error::{ApiError, ApiResult};
use crate::hex::unhex_array;
use crate::server::Inner;
use crate::store::drift::{self as table, Cohort, Standing};
use crate::store::{alerts, audit, packages, reports, rollouts, signed};

/// Hours of a window.
pub(crate) const HOURS: i64 = 24;
/// Reports that are read for one window; where there are more, devices are drawn by their ids, which are hashes.
const MOST: i64 = 100_000;
/// Fewest devices of which anything is said: of fewer it would tell what somebody's device sees.
pub(crate) const FEWEST: usize = 10;
/// Seconds for which numbers are kept, for they take a while.
const KEPT: i64 = 60;
/// Seconds after a window's end before it is judged: what the replicas' clocks may differ by.
const SETTLE: i64 = 120;
/// Windows that are judged late, after the server was away.
const LATE: i64 = 3;
/// The cohort of all devices that run a package.
pub(crate) const ALL: &str = "all";

/// What the devices of a cohort counted, and what follows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) fleet: Fleet,
    pub(crate) devices: usize,
    /// In the order of [`Fleet::verdicts`]; none of fewer than [`FEWEST`] devices, or without a reference.
    pub(crate) verdicts: Vec<Verdict>,
}

impl Measured {
    fn new(devices: &BTreeMap<&str, Aggregate>, baseline: Option<&Baseline>) -> Self {
        let count = devices.len();
        if count < FEWEST {
            return Self { devices: count, ..Self::default() };
        }
        let mut fleet = Fleet::default();
        devices.values().zip(0..).for_each(|(sums, i)| fleet.add(i, &Tally::from(sums)));
        let verdicts = baseline.map(|b| fleet.verdicts(b, &Criteria::default())).unwrap_or_default();
        Self { fleet, devices: count, verdicts }
    }

    /// The gravest level of any verdict.
    pub(crate) fn level(&self) -> Level {
        self.verdicts.iter().map(|v| v.level).max().unwrap_or(Level::NotEnoughData)
    }
}

/// A package's devices in some window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) baseline: Option<Baseline>,
    /// By cohort: [`ALL`], and what reports say they are of where they say different things.
    pub(crate) cohorts: BTreeMap<String, Measured>,
}

impl Numbers {
    /// Adds reports up by cohort and device, and works everything out.
    pub(crate) fn of(found: &[(String, i64, String, Vec<u8>)], baseline: Option<Baseline>) -> Self {
        let mut by: BTreeMap<&str, BTreeMap<&str, Aggregate>> = BTreeMap::new();
        for (device, _, arm, bytes) in found {
            // 20 KB each, so not on the stack.
            let Ok(report) = AnyReport::decode(bytes).map(Box::new) else { continue };
            if let Report::Known(_, window) = &*report {
                by.entry(arm).or_default().entry(device).or_default().add(window);
            }
        }
        let mut all: BTreeMap<&str, Aggregate> = BTreeMap::new();
        for (device, sums) in by.values().flatten() {
            all.entry(device).or_default().merge(sums);
        }
        let measured = |devices| Measured::new(devices, baseline.as_ref());
        let mut cohorts = BTreeMap::from([(ALL.to_owned(), measured(&all))]);
        if by.len() > 1 {
            cohorts.extend(by.iter().map(|(arm, devices)| ((*arm).to_owned(), measured(devices))));
        }
        Self { baseline, cohorts }
    }

    /// All devices.
    pub(crate) fn all(&self) -> Option<&Measured> {
        self.cohorts.get(ALL)
    }
}

/// The reference that a package brings.
async fn baseline(app: &Inner, tenant: &str, digest: &str) -> ApiResult<Option<Baseline>> {
    let found = packages::get(&mut *app.store.read().await?, tenant, digest).await?;
    let Some(package) = found else { return Ok(None) };
    let broken = |what: String| ApiError::unavailable(format!("the package {digest}: {what}"));
    let hash = unhex_array(&package.hash).ok_or_else(|| broken("its hash is none".into()))?;
    let bytes = app.artifacts.range(&hash, 0..package.len.unsigned_abs()).await?;
    let package = Package::open(&bytes).map_err(|e| broken(e.to_string()))?;
    let Some(section) = package.drift() else { return Ok(None) };
    Ok(Reference::read(section).ok().map(|reference| Baseline::from(&reference)))
}

/// What a package's devices counted in the reports that came from `from` on and before `to`.
pub(crate) async fn measure(app: &Inner, tenant: &str, digest: &str, (from, to): (i64, i64)) -> ApiResult<Numbers> {
    let baseline = baseline(app, tenant, digest).await?;
    let mut connection = app.store.read().await?;
    let total = reports::count(&mut connection, tenant, digest, (from, to)).await?;
    // Ids are hashes: those below a bound are an even draw of devices, and each comes with all its reports.
    let bound = (total > MOST).then(|| {
        let part = u64::try_from((i128::from(MOST) << 32) / i128::from(total)).unwrap_or(0);
        format!("{part:08x}")
    });
    let found = reports::in_window(&mut connection, tenant, digest, (from, to), bound.as_deref()).await?;
    drop(connection);
    tokio::task::spawn_blocking(move || Numbers::of(&found, baseline))
        .await
        .map_err(|e| ApiError::unavailable(e.to_string()))
}

type Keys = (String, String, i64);

/// Numbers that were worked out lately, by tenant, digest and hours.
#[derive(Debug, Default)]
pub(crate) struct Lately(Mutex<HashMap<Keys, (i64, Arc<Numbers>)>>);

/// What a package's devices counted in the last hours.
pub(crate) async fn lately(app: &Inner, tenant: &str, digest: &str, hours: i64) -> ApiResult<Arc<Numbers>> {
    let now = signed(app.clock.seconds());
    let key = (tenant.to_owned(), digest.to_owned(), hours);
    let fresh = |at: i64| (0..KEPT).contains(&(now - at));
    let known = app.drift.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some((_, numbers)) = known.filter(|(at, _)| fresh(*at)) {
        return Ok(numbers);
    }
    let numbers = Arc::new(measure(app, tenant, digest, (now - hours * 3600, i64::MAX)).await?);
    let mut all = app.drift.0.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, (at, _)| fresh(*at));
    all.insert(key, (now, numbers.clone()));
    Ok(numbers)
}

/// A verdict as operators get it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Finding {
    /// What was judged: `class`, `confidence`, `distance`, a watched value's name, `embedding`, `accuracy`, `inputs`.
    pub(crate) subject: String,
    /// `psi`, `jensen_shannon`, `kolmogorov_smirnov`, `wasserstein`, `mean_shift`, `accuracy_drop`, `rate_rise`.
    pub(crate) statistic: String,
    /// `not_enough_data`, `steady`, `warn` or `act`.
    pub(crate) level: String,
    /// The statistic's value.
    pub(crate) value: Option<f64>,
    /// Ends of its interval.
    pub(crate) low: Option<f64>,
    /// Ends of its interval.
    pub(crate) high: Option<f64>,
    /// What the interval was drawn by: `device`, or `inference` where there are too few devices.
    pub(crate) unit: Option<String>,
    /// Inferences now.
    pub(crate) n: u64,
    /// Inferences of the reference.
    pub(crate) m: u64,
    /// Devices that counted anything.
    pub(crate) devices: u64,
    /// From which value on to warn.
    pub(crate) warn: f64,
    /// From which value on to act.
    pub(crate) act: f64,
    /// The probability of such a value if inferences were independent; decides nothing.
    pub(crate) p: Option<f64>,
    /// Why, in words.
    pub(crate) reason: String,
}

impl From<&Verdict> for Finding {
    fn from(of: &Verdict) -> Self {
        Self {
            subject: of.subject.clone(),
            statistic: of.statistic.name().into(),
            level: of.level.name().into(),
            value: of.value,
            low: of.interval.map(|i| i.low),
            high: of.interval.map(|i| i.high),
            unit: of.interval.map(|i| i.unit.name().into()),
            n: of.n,
            m: of.m,
            devices: of.devices,
            warn: of.warn,
            act: of.act,
            p: of.p,
            reason: of.reason.clone(),
        }
    }
}

/// The level of a name.
fn level(name: &str) -> Level {
    let all = [Level::Steady, Level::Warn, Level::Act];
    all.into_iter().find(|l| l.name() == name).unwrap_or(Level::NotEnoughData)
}

/// Judges the windows that are over. What fails is logged, and tried again the next time.
pub(crate) async fn tick(app: &Inner) {
    let all = async {
        for tenant in audit::tenants(&app.store).await? {
            catch_up(app, &tenant).await?;
        }
        Ok::<_, ApiError>(())
    };
    if let Err(error) = all.await {
        tracing::error!(error = error.problem.error, "drift is not judged");
    }
}

async fn catch_up(app: &Inner, tenant: &str) -> ApiResult<()> {
    let now = signed(app.clock.seconds());
    let end = (now - SETTLE) / (HOURS * 3600);
    let known = table::last(&mut *app.store.read().await?, tenant).await?;
    let first = known.map_or(end - 1, |last| (last + 1).max(end - LATE));
    for window in first..end {
        let (from, to) = (window * HOURS * 3600, (window + 1) * HOURS * 3600);
        let digests = reports::packages(&mut *app.store.read().await?, tenant, (from, to), i64::MAX).await?;
        for digest in digests {
            let numbers = measure(app, tenant, &digest, (from, to)).await?;
            judge(app, tenant, &digest, window, &numbers, now).await?;
        }
        let mut tx = app.store.write().await?;
        table::close(&mut tx, tenant, window).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Keeps what a window says, and raises and clears alerts; all in one transaction, and nothing when another replica was
/// first.
async fn judge(app: &Inner, tenant: &str, digest: &str, window: i64, numbers: &Numbers, now: i64) -> ApiResult<()> {
    let mut tx = app.store.write().await?;
    // What all devices show is not said again of their parts.
    let mut said: Vec<String> = Vec::new();
    let order = |name: &str| (name != ALL, name.to_owned());
    let mut cohorts: Vec<_> = numbers.cohorts.iter().collect();
    cohorts.sort_by_key(|(name, _)| order(name));
    for (name, measured) in cohorts {
        let findings: Vec<Finding> = measured.verdicts.iter().map(Finding::from).collect();
        let mut cohort = table::cohort(&mut tx, tenant, digest, name).await?;
        let row = table::Window {
            window,
            from: window * HOURS * 3600,
            to: (window + 1) * HOURS * 3600,
            devices: i64::try_from(measured.devices).unwrap_or(i64::MAX),
            level: measured.level().name().into(),
            verdicts: findings.clone(),
        };
        if !table::add(&mut tx, tenant, digest, name, &row).await? {
            return Ok(());
        }
        let news = step(&mut cohort, &findings, &said, now);
        if name == ALL {
            said = cohort.standing.keys().cloned().collect();
        }
        let place = Place { tenant, digest, cohort: name, row: &row };
        announce(app, &mut tx, &place, &mut cohort, &news, now).await?;
        table::put_cohort(&mut tx, tenant, digest, name, window, &cohort).await?;
    }
    Ok(tx.commit().await?)
}

/// What a window changes.
#[derive(Debug, Default, PartialEq)]
struct News {
    /// Subjects that nobody was told of, or not as grave as they are.
    raised: Vec<String>,
    /// Subjects that somebody was told of, and that are steady again.
    cleared: Vec<String>,
}

/// Moves a cohort's alarms on by a window. `said` are subjects that need not be said of it.
fn step(cohort: &mut Cohort, findings: &[Finding], said: &[String], now: i64) -> News {
    let mut news = News::default();
    let mut subjects: Vec<&str> = findings.iter().map(|f| f.subject.as_str()).collect();
    subjects.dedup();
    for subject in subjects {
        let mut gravest = Level::NotEnoughData;
        for finding in findings.iter().filter(|f| f.subject == subject) {
            let key = format!("{subject}/{}", finding.statistic);
            let mut alarm = Alarm::default();
            if let Some(before) = cohort.before.get(&key) {
                alarm.push(level(before));
            }
            let this = level(&finding.level);
            gravest = gravest.max(alarm.push(this));
            if this != Level::NotEnoughData {
                cohort.before.insert(key, this.name().into());
            }
        }
        match gravest {
            Level::NotEnoughData => {}
            Level::Steady => {
                let stood = cohort.standing.remove(subject);
                if stood.is_some_and(|s| s.alert.is_some()) {
                    news.cleared.push(subject.to_owned());
                }
            }
            Level::Warn | Level::Act => {
                let standing = cohort.standing.entry(subject.to_owned()).or_insert_with(|| Standing {
                    level: gravest.name().into(),
                    since: now,
                    told: None,
                    alert: None,
                });
                standing.level = gravest.name().into();
                let told = standing.told.as_deref().map_or(Level::Steady, level);
                if gravest > told && !said.iter().any(|s| s == subject) {
                    standing.told = Some(gravest.name().into());
                    news.raised.push(subject.to_owned());
                }
            }
        }
    }
    news
}

/// What a window is of.
struct Place<'a> {
    tenant: &'a str,
    digest: &'a str,
    cohort: &'a str,
    row: &'a table::Window,
}

async fn announce(
    app: &Inner,
    tx: &mut crate::store::Connection,
    place: &Place<'_>,
    cohort: &mut Cohort,
    news: &News,
    now: i64,
) -> ApiResult<()> {
    let Place { tenant, digest, row, .. } = *place;
    if news.raised.is_empty() && news.cleared.is_empty() {
        return Ok(());
    }
    let package = packages::get(tx, tenant, digest).await?;
    let model = package.map_or_else(|| digest.to_owned(), |p| format!("{} {}", p.name, p.version));
    let rollout = rollouts::of_candidate(tx, tenant, digest).await?;
    // What a rollout still brings to more devices is halted first.
    let (next, step) = match &rollout {
        Some(id) => ("pause", format!("pause the rollout {id}, then capture inputs on affected devices")),
        None => {
            ("capture", "capture inputs on affected devices, label them, retrain, try in the shadow, canary".into())
        }
    };
    for (kind, subjects) in [("drift", &news.raised), ("drift_cleared", &news.cleared)] {
        if subjects.is_empty() {
            continue;
        }
        let of = |f: &&Finding| subjects.contains(&f.subject);
        let verdicts: Vec<&Finding> = row.verdicts.iter().filter(of).collect();
        let names = subjects.join(", ");
        let mut detail = json!({
            "digest": digest, "model": model, "cohort": place.cohort, "subjects": subjects, "devices": row.devices,
            "window": { "from": row.from, "to": row.to }, "verdicts": verdicts,
        });
        let text = if kind == "drift" {
            detail["playbook"] = json!({ "steps": STEPS, "next": next, "do": step });
            format!("{model}: {names} drifted in two windows, cohort {}; next: {step}", place.cohort)
        } else {
            format!("{model}: {names} steady again, cohort {}", place.cohort)
        };
        let n = alerts::raise(tx, tenant, now, rollout.as_deref().unwrap_or(""), kind, &text, &detail).await?;
        for subject in subjects {
            if let Some(standing) = cohort.standing.get_mut(subject) {
                standing.alert = Some(n);
            }
        }
        app.metrics.alerts.add(1);
        let short = json!({ "cohort": place.cohort, "subjects": subjects, "window": row.from, "alert": n });
        audit::append(tx, tenant, now, "server", kind.replace('_', ".").as_str(), digest, &short).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
