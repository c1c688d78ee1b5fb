//! A report in a few numbers.

use dunlin_telemetry::Report;
use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::window::Counter;

/// What a report counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Inferences, also those that failed.
    pub(crate) inferences: u64,
    /// Those of them that failed.
    pub(crate) errors: u64,
    /// Those of them that took longer than their deadline.
    pub(crate) deadline_misses: u64,
    /// The device started after a fault.
    pub(crate) restarted: bool,
    /// Inferences by bucket of latency, and the number of the first bucket.
    pub(crate) latency: Vec<u32>,
    pub(crate) latency_first: usize,
}

impl Summary {
    /// The summary of a report; nothing when its layout is not known.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        // 20 KB, so not on the stack of a task.
        let report = Box::new(AnyReport::decode(bytes).ok()?);
        let Report::Known(_, window) = &*report else { return None };
        let counters = window.counters();
        Some(Self {
            inferences: counters.inferences().into(),
            errors: counters.errors().into(),
            deadline_misses: counters.get(Counter::DeadlineMisses).into(),
            restarted: counters.get(Counter::Resets) > 0,
            latency: window.latency().to_vec(),
            latency_first: usize::from(window.latency_first()),
        })
    }
}
