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
}

/// Bounds of the latency histogram's buckets, microseconds.
const BOUNDS: [u64; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

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
    buckets: [Counter; 12],
    micros: Counter,
    requests: Counter,
}

impl Metrics {
    /// Counts an answered request.
    pub(crate) fn request(&self, status: u16, micros: u64) {
        if let Some(counter) = self.statuses.get(usize::from(status / 100)) {
            counter.add(1);
        }
        if let Some(bucket) = BOUNDS.iter().zip(&self.buckets).find(|(bound, _)| micros <= **bound).map(|(_, b)| b) {
            bucket.add(1);
        }
        self.micros.add(micros);
        self.requests.add(1);
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let get = |c: &Counter| c.0.load(Ordering::Relaxed);
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
            let _ = writeln!(out, "dunlin_fleet_{name}_total {}", get(counter));
        }
        let _ =
            writeln!(out, "# HELP dunlin_fleet_responses_total Answers.\n# TYPE dunlin_fleet_responses_total counter");
        for (class, counter) in self.statuses.iter().enumerate().skip(1) {
            let _ = writeln!(out, "dunlin_fleet_responses_total{{class=\"{class}xx\"}} {}", get(counter));
        }
        let name = "dunlin_fleet_request_seconds";
        let _ = writeln!(out, "# HELP {name} Time to answer.\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += get(bucket);
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {sum}", *bound as f64 / 1e6);
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", get(&self.requests));
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", get(&self.micros) as f64 / 1e6, get(&self.requests));
        out
    }
}
