//! The server's own numbers, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bounds of the latency histogram's buckets, microseconds.
const BOUNDS: [u64; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How long something takes.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    micros: Counter,
    count: Counter,
}

impl Histogram {
    pub(crate) fn add(&self, micros: u64) {
        if let Some(bucket) = BOUNDS.iter().zip(&self.buckets).find(|(bound, _)| micros <= **bound).map(|(_, b)| b) {
            bucket.add(1);
        }
        self.micros.add(micros);
        self.count.add(1);
    }

    /// Counts by bucket, the last of them what is beyond all bounds.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let mut counts: Vec<u64> = self.buckets.iter().map(Counter::get).collect();
        counts.push(self.count.get().saturating_sub(counts.iter().sum()));
        counts
    }

    /// The upper bound, in microseconds, of the bucket in which a quantile of such counts lies; nothing without counts.
    pub(crate) fn quantile(counts: &[u64], part: f64) -> Option<u64> {
        let all: u64 = counts.iter().sum();
        let rank = (all as f64 * part).ceil().max(1.0);
        let mut sum = 0;
        let place = counts.iter().position(|n| {
            sum += n;
            sum as f64 >= rank
        })?;
        Some(BOUNDS.get(place).copied().unwrap_or(10 * BOUNDS[BOUNDS.len() - 1]))
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.get();
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {sum}", *bound as f64 / 1e6);
        }
        let count = self.count.get();
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}", self.micros.get() as f64 / 1e6);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) polls: Counter,
    pub(crate) reports: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) unknown: Counter,
    pub(crate) offers: Counter,
    pub(crate) refused: Counter,
    pub(crate) decisions: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) alerts: Counter,
    pub(crate) bytes: Counter,
    statuses: [Counter; 6],
    request_seconds: Histogram,
    pub(crate) poll_seconds: Histogram,
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn request(&self, status: u16, micros: u64) {
        if let Some(counter) = self.statuses.get(usize::from(status / 100)) {
            counter.add(1);
        }
        self.request_seconds.add(micros);
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let counters = [
            ("polls", "Polls that were taken", &self.polls),
            ("reports", "Reports that were stored", &self.reports),
            ("reports_duplicate", "Reports that had come before", &self.duplicates),
            ("reports_unknown", "Reports that this version cannot read, stored as they came", &self.unknown),
            ("offers", "Offers made to devices", &self.offers),
            ("rate_limited", "Requests refused because there were too many", &self.refused),
            ("decisions", "Verdicts that changed a rollout", &self.decisions),
            ("decision_conflicts", "Decisions given up because another replica was first", &self.conflicts),
            ("alerts", "Alerts raised", &self.alerts),
            ("artifact_bytes", "Bytes of artifacts sent", &self.bytes),
        ];
        for (name, help, counter) in counters {
            let _ = writeln!(out, "# HELP dunlin_fleet_{name}_total {help}.\n# TYPE dunlin_fleet_{name}_total counter");
            let _ = writeln!(out, "dunlin_fleet_{name}_total {}", counter.get());
        }
        let _ =
            writeln!(out, "# HELP dunlin_fleet_responses_total Answers.\n# TYPE dunlin_fleet_responses_total counter");
        for (class, counter) in self.statuses.iter().enumerate().skip(1) {
            let _ = writeln!(out, "dunlin_fleet_responses_total{{class=\"{class}xx\"}} {}", counter.get());
        }
        self.request_seconds.write(&mut out, "dunlin_fleet_request_seconds", "Time to answer");
        self.poll_seconds.write(&mut out, "dunlin_fleet_poll_seconds", "Time to answer a poll");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let histogram = Histogram::default();
        assert_eq!(Histogram::quantile(&histogram.counts(), 0.95), None);
        (0..95).for_each(|_| histogram.add(400));
        (0..5).for_each(|_| histogram.add(9_000_000));
        let counts = histogram.counts();
        assert_eq!((counts.iter().sum::<u64>(), counts.last()), (100, Some(&5)));
        assert_eq!(Histogram::quantile(&counts, 0.95), Some(500));
        assert!(Histogram::quantile(&counts, 0.96) > Some(5_000_000));
    }
}
