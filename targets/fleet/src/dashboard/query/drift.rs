//! Drift: what devices counted lately against their package's reference, by the verdicts of `dunlin-telemetry`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_package::Package;
use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::analysis::{Baseline, Criteria, Fleet, Level, Tally, Verdict};
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::{Reference, Report};
use sqlx::Row as _;

use super::Models;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{Badge, DriftPage, Frame, Model, Statistic, Subject, Tone};
use crate::hex::unhex_array;
use crate::server::App;
use crate::store::{Connection, packages, reports};

/// Hours that are looked at.
const HOURS: i64 = 24;
/// Reports that are read for one page; of more the oldest.
const MOST: i64 = 100_000;
/// Fewest devices of which anything is shown: of fewer it would say what somebody's device sees.
const FEWEST: usize = 10;
/// Seconds for which a page's numbers are kept, for they take a while.
const KEPT: i64 = 60;

/// Numbers that were worked out lately, by tenant and digest.
pub(crate) type Lately = Arc<Mutex<HashMap<(String, String), (i64, Arc<Numbers>)>>>;

/// What there is to show of a package.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    subjects: Vec<Subject>,
    devices: usize,
    has_reference: bool,
}

/// Packages that reports came from, those of most reports first.
async fn reporting(connection: &mut Connection, tenant: &str, from: i64) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT digest, COUNT(*) AS n FROM reports WHERE tenant = $1 AND arrived >= $2 AND known = 1
         AND digest IS NOT NULL GROUP BY digest ORDER BY COUNT(*) DESC, digest LIMIT 12",
    )
    .bind(tenant)
    .bind(from)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.try_get("digest")).collect()
}

/// The reference that a package brings.
async fn baseline(app: &App, tenant: &str, digest: &str) -> Result<Option<Baseline>, Trouble> {
    let found = packages::get(&mut *app.store.read().await?, tenant, digest).await?;
    let Some(package) = found else { return Ok(None) };
    let broken = |what: &str| Trouble::Broken(format!("the package {digest}: {what}"));
    let hash = unhex_array(&package.hash).ok_or_else(|| broken("its hash is none"))?;
    let bytes = app.artifacts.range(&hash, 0..package.len.unsigned_abs()).await;
    let bytes = bytes.map_err(|e| broken(&e.to_string()))?;
    let package = Package::open(&bytes).map_err(|e| broken(&e.to_string()))?;
    let Some(section) = package.drift() else { return Ok(None) };
    Ok(Reference::read(section).ok().map(|reference| Baseline::from(&reference)))
}

fn level(verdict: &Verdict) -> Badge {
    match verdict.level {
        Level::NotEnoughData => Badge::new(Tone::Quiet, "not enough data"),
        Level::Steady => Badge::new(Tone::Good, "steady"),
        Level::Warn => Badge::new(Tone::Watch, "warn"),
        Level::Act => Badge::new(Tone::Bad, "act"),
    }
}

fn statistic(verdict: &Verdict) -> Statistic {
    Statistic {
        name: verdict.statistic.name().replace('_', " "),
        level: level(verdict),
        value: verdict.value,
        interval: verdict.interval.map(|i| (i.low, i.high)),
        warn: verdict.warn,
        act: verdict.act,
        n: verdict.n,
        devices: verdict.devices,
        reason: verdict.reason.clone(),
    }
}

/// Lower edges of the bins of a confidence.
fn tenths() -> Vec<String> {
    (0..10).map(|i| format!("{:.1}", f64::from(i) / 10.0)).collect()
}

/// Everything that was counted, beside the reference, with its verdicts.
fn subjects(fleet: &Fleet, baseline: Option<&Baseline>) -> Vec<Subject> {
    let now = fleet.total();
    let none = Baseline::default();
    let reference = baseline.unwrap_or(&none);
    let verdicts = fleet.verdicts(reference, &Criteria::default());
    let of = |subject: &str| verdicts.iter().filter(|v| v.subject == subject).map(statistic).collect::<Vec<_>>();
    let numbered = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let mut list = Vec::new();
    let mut subject = |name: &str, meaning: &str, bins, now: Vec<u64>, reference: Vec<u64>| {
        if now.iter().chain(&reference).any(|n| *n > 0) {
            let verdicts = of(name);
            list.push(Subject { name: name.to_owned(), meaning: meaning.to_owned(), bins, now, reference, verdicts });
        }
    };
    let classes = now.class.len().max(reference.class.len());
    subject("class", "Inferences by class", numbered(classes), now.class, reference.class.clone());
    let confidence = reference.confidence.iter().map(|b| b.0).collect();
    subject("confidence", "Inferences by confidence", tenths(), now.confidence, confidence);
    let distances = now.distance.len().max(reference.distance.len());
    let meaning = "Embeddings by squared distance from the reference's mean";
    subject("distance", meaning, numbered(distances), now.distance, reference.distance.clone());
    for (i, feature) in reference.features.iter().enumerate() {
        let counts = now.features.get(i).cloned().unwrap_or_default();
        let bins = match feature.edges.split_last() {
            Some((_, lower)) => lower.iter().map(|e| crate::dashboard::figure::number(*e)).collect(),
            None => numbered(feature.counts.len()),
        };
        subject(&feature.name, "Inferences by value", bins, counts, feature.counts.clone());
    }
    for (name, meaning) in
        [("accuracy", "Accuracy without labels, from the confidences"), ("embedding", "The mean of embeddings")]
    {
        let verdicts = of(name);
        if !verdicts.is_empty() {
            let (bins, now, reference) = Default::default();
            list.push(Subject { name: name.to_owned(), meaning: meaning.to_owned(), bins, now, reference, verdicts });
        }
    }
    list
}

/// Adds reports up by device and works everything out.
fn numbers(found: &[(String, i64, String, Vec<u8>)], baseline: Option<Baseline>) -> Numbers {
    let mut by: BTreeMap<&str, Aggregate> = BTreeMap::new();
    for (device, _, _, bytes) in found {
        if let Ok(Report::Known(_, window)) = AnyReport::decode(bytes) {
            by.entry(device).or_default().add(&window);
        }
    }
    let devices = by.len();
    let has_reference = baseline.is_some();
    if devices < FEWEST {
        return Numbers { devices, has_reference, subjects: Vec::new() };
    }
    let mut fleet = Fleet::default();
    for (i, sums) in by.values().enumerate() {
        fleet.add(i as u64, &Tally::from(sums));
    }
    Numbers { devices, has_reference, subjects: subjects(&fleet, baseline.as_ref()) }
}

async fn lately(app: &App, kept: &Lately, tenant: &str, digest: &str, now: i64) -> Result<Arc<Numbers>, Trouble> {
    let key = (tenant.to_owned(), digest.to_owned());
    let known = kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some((_, numbers)) = known.filter(|(at, _)| (0..KEPT).contains(&(now - at))) {
        return Ok(numbers);
    }
    let baseline = baseline(app, tenant, digest).await?;
    let from = now - HOURS * 3600;
    let found = reports::of_package(&mut *app.store.read().await?, tenant, digest, from, MOST).await?;
    let worked = tokio::task::spawn_blocking(move || numbers(&found, baseline)).await;
    let numbers = Arc::new(worked.map_err(|e| Trouble::Broken(e.to_string()))?);
    let mut all = kept.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, (at, _)| (0..KEPT).contains(&(now - *at)));
    all.insert(key, (now, numbers.clone()));
    Ok(numbers)
}

/// The gravest of all, and of what.
fn summary(numbers: &Numbers) -> Badge {
    if numbers.devices < FEWEST {
        let text = format!("{} devices reported; of fewer than {FEWEST} nothing is shown", numbers.devices);
        return Badge::new(Tone::Quiet, text);
    }
    if !numbers.has_reference {
        return Badge::new(Tone::Quiet, "The package brings no reference: there is nothing to compare with");
    }
    let of = |tone: Tone| {
        let names = numbers.subjects.iter().filter(|s| s.tone() == tone).map(|s| s.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let (bad, watch, good) = (of(Tone::Bad), of(Tone::Watch), of(Tone::Good));
    match (bad.is_empty(), watch.is_empty(), good.is_empty()) {
        (false, ..) => Badge::new(Tone::Bad, format!("act on {bad}")),
        (true, false, _) => Badge::new(Tone::Watch, format!("look at {watch}")),
        (true, true, false) => Badge::new(Tone::Good, "steady"),
        (true, true, true) => Badge::new(Tone::Quiet, "not enough data"),
    }
}

pub(in crate::dashboard) async fn drift(
    app: &App,
    kept: &Lately,
    viewer: &Viewer,
    frame: Frame,
    wanted: Option<&str>,
) -> Result<DriftPage, Trouble> {
    let mut connection = app.store.read().await?;
    let models = Models::load(&mut connection, &viewer.tenant).await?;
    let digests = reporting(&mut connection, &viewer.tenant, frame.now - HOURS * 3600).await?;
    drop(connection);
    let chosen = digests.iter().find(|d| Some(d.as_str()) == wanted).or(digests.first()).cloned();
    let hours = HOURS.unsigned_abs() as u32;
    let Some(chosen) = chosen else {
        return Ok(DriftPage { frame, models: Vec::new(), hours, subjects: Vec::new(), summary: None });
    };
    let numbers = lately(app, kept, &viewer.tenant, &chosen, frame.now).await?;
    let model = |digest: &String| -> (Model, bool) { (models.of("", digest), *digest == chosen) };
    Ok(DriftPage {
        frame,
        models: digests.iter().map(model).collect(),
        hours,
        subjects: numbers.subjects.clone(),
        summary: Some(summary(&numbers)),
    })
}

#[cfg(test)]
mod tests {
    use dunlin_telemetry::{Observation, Profile, Recorder, Sample};

    use super::*;

    /// The report of a device that saw these classes.
    fn report(device: usize, classes: [u32; 2]) -> (String, i64, String, Vec<u8>) {
        let mut recorder = Recorder::<2, 0>::new(1, 0xBEEF);
        for (class, n) in classes.into_iter().enumerate() {
            let seen = Observation { class: Some(class as u16), confidence: Some(0.9), ..Observation::default() };
            (0..n).for_each(|_| {
                recorder.add(&Sample::of(&Reference::NONE, &seen));
            });
        }
        let mut bytes = [0; 512];
        let len = recorder.take(3600).encode(Profile::Full, &mut bytes).expect("room");
        (format!("d{device}"), 0, String::new(), bytes[..len].to_vec())
    }

    #[test]
    fn a_few_devices_are_not_shown() {
        let few: Vec<_> = (0..9).map(|i| report(i, [60, 60])).collect();
        let numbers = numbers(&few, None);
        assert!(numbers.subjects.is_empty());
        assert_eq!(summary(&numbers).tone, Tone::Quiet);
    }

    #[test]
    fn what_moved_is_acted_on_and_what_did_not_is_steady() {
        let baseline = || Some(Baseline { class: vec![5000, 5000], ..Baseline::default() });
        let fleet = |classes: [u32; 2]| (0..40).map(|i| report(i, classes)).collect::<Vec<_>>();
        let steady = numbers(&fleet([50, 50]), baseline());
        assert_eq!(summary(&steady).tone, Tone::Good);
        let moved = numbers(&fleet([90, 10]), baseline());
        assert_eq!(summary(&moved), Badge::new(Tone::Bad, "act on class"));
        assert_eq!(moved.subjects[0].now, [3600, 400]);
    }
}
