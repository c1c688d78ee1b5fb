//! The rules: what each watches, and from where on it is an alert.

use serde_json::json;

use super::baseline::{Baseline, lower_bound};
use crate::dashboard::percent;
use crate::store::alerts::Severity;
use crate::store::samples::{Evaluation, Status};
use crate::store::tenants::AlertLimits;

/// A rule about a share, by model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Its name in alerts, metrics and the API.
    pub(crate) name: &'static str,
    /// What is counted, for people.
    what: &'static str,
    /// What it is a share of.
    unit: &'static str,
    /// The share that is an alert on any fleet, with or without history, unless the tenant set another. Critical.
    pub(crate) limit: f64,
    /// Below this share nothing is an alert, however unusual it is.
    pub(crate) least: f64,
    /// Devices or reports from which on a share says anything.
    pub(crate) min: i64,
    next: &'static str,
}

/// Devices that were not heard of for three poll intervals.
pub(crate) const SILENT: Rule = Rule {
    name: "silent",
    what: "devices are silent",
    unit: "devices",
    limit: 0.5,
    least: 0.05,
    min: 2,
    next: "see which devices are silent, and whether their network, power or the server's address changed",
};
/// Inferences that failed.
pub(crate) const ERRORS: Rule = Rule {
    name: "inference_errors",
    what: "inferences failed in the last hour",
    unit: "inferences",
    limit: 0.2,
    least: 0.01,
    min: 3,
    next: "compare the versions on the health page; pause the rollout that brings the failing one, or stop the model",
};
/// Inferences that took longer than their deadline.
pub(crate) const MISSES: Rule = Rule {
    name: "deadline_misses",
    what: "inferences missed their deadline in the last hour",
    unit: "inferences",
    limit: 0.25,
    least: 0.02,
    min: 3,
    next: "compare the versions on the health page; look for load or heat on the devices that are slow",
};
/// Reports of devices that started after a fault.
pub(crate) const RESETS: Rule = Rule {
    name: "resets",
    what: "reports of the last hour are of devices that restarted after a fault",
    unit: "reports",
    limit: 0.2,
    least: 0.02,
    min: 10,
    next: "see which devices and versions restart; pause the rollout that brings the failing one",
};

/// Part of the threshold below which a share has to fall for its alert to resolve.
const CALM: f64 = 0.8;
/// Seconds for which it has to stay there.
pub(super) const QUIET: i64 = 600;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) bad: i64,
    pub(super) total: i64,
    /// What is independent in it: devices or reports. A report's inferences fail together.
    pub(super) independent: i64,
}

/// What follows from an evaluation.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) evaluation: Evaluation,
    /// The alert, while it is to be open.
    pub(super) alert: Option<Wording>,
    /// Whether an open alert is to be resolved: only data resolves.
    pub(super) resolves: bool,
}

/// An alert's words and numbers.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    pub(super) severity: Severity,
    pub(super) text: String,
    pub(super) detail: serde_json::Value,
}

impl Rule {
    /// The rule with the limit that a tenant set.
    pub(super) fn with_limit(self, limits: AlertLimits) -> Self {
        let limit = limits.named().into_iter().find(|(name, _)| *name == self.name).map(|(_, limit)| limit);
        Self { limit: limit.unwrap_or(self.limit), ..self }
    }

    /// Evaluates the rule for a model. `before` is the evaluation before, for hysteresis.
    pub(super) fn evaluate(
        &self,
        model: &str,
        measured: Measured,
        baseline: Option<Baseline>,
        before: Option<&Evaluation>,
        now: i64,
    ) -> Outcome {
        let threshold = baseline.map_or(self.limit, |b| b.upper.max(self.least).min(self.limit));
        let mut evaluation = Evaluation {
            rule: self.name.to_owned(),
            model: model.to_owned(),
            evaluated: now,
            status: Status::NoData,
            bad: measured.bad,
            total: measured.total,
            threshold,
            baseline: baseline.map(|b| b.median),
            samples: baseline.map_or(0, |b| i64::try_from(b.samples).unwrap_or(i64::MAX)),
            quiet_since: 0,
        };
        let was_firing = before.is_some_and(|b| b.status == Status::Firing);
        let share = evaluation.share().filter(|_| measured.independent >= self.min);
        let Some(share) = share else {
            // Nothing is known: what is open stays open, and says so.
            if was_firing {
                evaluation.status = Status::Firing;
                evaluation.quiet_since = before.map_or(0, |b| b.quiet_since);
            }
            let alert = was_firing.then(|| self.wording(&evaluation));
            return Outcome { evaluation, alert, resolves: false };
        };
        let is_over_limit = share > self.limit;
        let is_unusual = baseline.is_some() && lower_bound(share, measured.independent as f64) > threshold;
        evaluation.status = if is_over_limit || is_unusual { Status::Firing } else { Status::Ok };
        if evaluation.status == Status::Ok && was_firing {
            let calm = share < CALM * threshold;
            let since = before.map(|b| b.quiet_since).filter(|since| *since > 0 && calm);
            let quiet_since = if calm { since.unwrap_or(now) } else { 0 };
            if !calm || now - quiet_since < QUIET {
                evaluation.status = Status::Firing;
                evaluation.quiet_since = quiet_since;
            }
        }
        let alert = (evaluation.status == Status::Firing).then(|| self.wording(&evaluation));
        let resolves = evaluation.status == Status::Ok;
        Outcome { evaluation, alert, resolves }
    }

    fn wording(&self, of: &Evaluation) -> Wording {
        let share = of.share().unwrap_or(0.0);
        let severity = if share > self.limit { Severity::Critical } else { Severity::Warning };
        let usual = match of.baseline {
            Some(median) => format!("usual at this time of day: {}", percent(median)),
            None => format!("no history yet; alerts from {} on", percent(self.limit)),
        };
        let text = format!("{}: {} of {} {} ({}); {usual}", of.model, of.bad, of.total, self.what, percent(share));
        let detail = json!({
            "model": of.model, "rule": self.name, "bad": of.bad, "total": of.total, "unit": self.unit, "share": share,
            "threshold": of.threshold, "baseline": of.baseline, "samples": of.samples, "next": self.next,
        });
        Wording { severity, text, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bad: i64, total: i64) -> Measured {
        Measured { bad, total, independent: total }
    }

    #[test]
    fn a_new_fleet_alerts_without_history() {
        let of = |bad, total| SILENT.evaluate("m", measured(bad, total), None, None, 100);
        let alert = of(96, 100).alert.expect("an alert");
        assert_eq!(alert.severity, Severity::Critical);
        assert!(alert.text.starts_with("m: 96 of 100 devices are silent (96.0 %)"), "{}", alert.text);
        assert!(of(50, 100).resolves, "half is not more than half");
        assert!(of(2, 2).alert.is_some());
        let nothing = of(0, 0);
        assert!(nothing.evaluation.status == Status::NoData && nothing.alert.is_none() && !nothing.resolves);
        assert!(!of(0, 1).resolves, "one device says nothing");
    }

    #[test]
    fn what_is_unusual_alerts_and_what_is_usual_does_not() {
        let usual = |median: f64, upper: f64| Some(Baseline { median, upper, samples: 30 });
        let of = |bad, baseline| SILENT.evaluate("m", measured(bad, 1000), baseline, None, 100);
        let alert = of(150, usual(0.01, 0.03)).alert.expect("an alert");
        assert_eq!(alert.severity, Severity::Warning);
        assert!(of(60, usual(0.01, 0.03)).resolves, "within chance of 5 %");
        // Devices that sleep at night; the limit holds for them too, and is a setting of the tenant.
        assert!(of(150, usual(0.14, 0.3)).resolves);
        assert!(of(600, usual(0.6, 0.9)).alert.is_some());
    }

    #[test]
    fn alerts_resolve_slowly_and_only_with_data() {
        let mut last = ERRORS.evaluate("m", measured(300, 1000), None, None, 0);
        assert!(last.alert.is_some());
        let mut step = |bad, total, now| {
            last = ERRORS.evaluate("m", measured(bad, total), None, Some(&last.evaluation), now);
            last.clone()
        };
        assert!(step(0, 0, 60).alert.is_some(), "no data is no end");
        assert!(step(190, 1000, 120).alert.is_some(), "not calm");
        assert!(step(10, 1000, 180).alert.is_some(), "calm, and not for long");
        assert!(step(190, 1000, 240).alert.is_some(), "not calm any more");
        assert!(step(10, 1000, 300).alert.is_some());
        assert!(step(10, 1000, 300 + QUIET - 1).alert.is_some());
        assert!(step(10, 1000, 300 + QUIET).resolves);
        assert!(step(10, 1000, 400 + QUIET).resolves);
    }
}
