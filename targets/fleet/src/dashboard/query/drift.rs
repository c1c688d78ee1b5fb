//! Drift: what devices counted lately against their package's reference, by the verdicts of `dunlin-telemetry`.

use dunlin_telemetry::analysis::{Baseline, Level, Verdict};

use super::Models;
use crate::dashboard::source::{Trouble, Viewer};
use crate::dashboard::view::{Badge, DriftPage, Frame, Model, Statistic, Subject, Tone};
use crate::drift::{self, FEWEST, HOURS, Measured, Numbers};
use crate::server::App;
use crate::store::reports;

/// Packages that can be chosen among.
const LISTED: i64 = 12;

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
fn subjects(measured: &Measured, baseline: Option<&Baseline>) -> Vec<Subject> {
    let now = measured.fleet.total();
    let none = Baseline::default();
    let reference = baseline.unwrap_or(&none);
    let verdicts = &measured.verdicts;
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

fn shown(numbers: &Numbers) -> Vec<Subject> {
    numbers.all().map(|all| subjects(all, numbers.baseline.as_ref())).unwrap_or_default()
}

/// The gravest of all, and of what.
fn summary(numbers: &Numbers, subjects: &[Subject]) -> Badge {
    let devices = numbers.all().map_or(0, |all| all.devices);
    if devices < FEWEST {
        let text = format!("{devices} devices reported; of fewer than {FEWEST} nothing is shown");
        return Badge::new(Tone::Quiet, text);
    }
    if numbers.baseline.is_none() {
        return Badge::new(Tone::Quiet, "The package brings no reference: there is nothing to compare with");
    }
    let of = |tone: Tone| {
        let names = subjects.iter().filter(|s| s.tone() == tone).map(|s| s.name.as_str());
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
    viewer: &Viewer,
    frame: Frame,
    wanted: Option<&str>,
) -> Result<DriftPage, Trouble> {
    let mut connection = app.store.read().await?;
    let models = Models::load(&mut connection, &viewer.tenant).await?;
    let window = (frame.now - HOURS * 3600, i64::MAX);
    let digests = reports::packages(&mut connection, &viewer.tenant, window, LISTED).await?;
    drop(connection);
    let chosen = digests.iter().find(|d| Some(d.as_str()) == wanted).or(digests.first()).cloned();
    let hours = HOURS.unsigned_abs() as u32;
    let Some(chosen) = chosen else {
        return Ok(DriftPage { frame, models: Vec::new(), hours, subjects: Vec::new(), summary: None });
    };
    let numbers = drift::lately(app, &viewer.tenant, &chosen, HOURS).await?;
    let subjects = shown(&numbers);
    let model = |digest: &String| -> (Model, bool) { (models.of("", digest), *digest == chosen) };
    Ok(DriftPage {
        frame,
        models: digests.iter().map(model).collect(),
        hours,
        summary: Some(summary(&numbers, &subjects)),
        subjects,
    })
}

#[cfg(test)]
mod tests {
    use dunlin_telemetry::{Observation, Profile, Recorder, Reference, Sample};

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
        let numbers = Numbers::of(&few, None);
        assert!(shown(&numbers).is_empty());
        assert_eq!(summary(&numbers, &[]).tone, Tone::Quiet);
    }

    #[test]
    fn what_moved_is_acted_on_and_what_did_not_is_steady() {
        let baseline = || Some(Baseline { class: vec![5000, 5000], ..Baseline::default() });
        let fleet = |classes: [u32; 2]| (0..40).map(|i| report(i, classes)).collect::<Vec<_>>();
        let steady = Numbers::of(&fleet([50, 50]), baseline());
        assert_eq!(summary(&steady, &shown(&steady)).tone, Tone::Good);
        let moved = Numbers::of(&fleet([90, 10]), baseline());
        let subjects = shown(&moved);
        assert_eq!(summary(&moved, &subjects), Badge::new(Tone::Bad, "act on class"));
        assert_eq!(subjects[0].now, [3600, 400]);
    }
}
