//! Reports from files, each counted once.

use std::collections::BTreeMap;
use std::path::Path;

use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::analysis::{Fleet, Tally};
use dunlin_telemetry::archive::{self, MAGIC, Record};
use dunlin_telemetry::ledger::{Arrival, Ledger};
use dunlin_telemetry::report::{AnyReport, Report};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::table::grouped;

/// Reports of a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// When the first came, seconds since 1970; 0 if that is not known.
    pub start: u64,
    /// When the last came.
    pub end: u64,
    /// Reports.
    pub reports: u64,
    /// Counts by device.
    pub devices: BTreeMap<String, Aggregate>,
}

impl Window {
    /// All devices together.
    #[must_use]
    pub fn total(&self) -> Aggregate {
        let mut total = Aggregate::new();
        self.devices.values().for_each(|d| total.merge(d));
        total
    }

    /// Ready for analysis.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::default();
        for (i, counts) in self.devices.values().enumerate() {
            fleet.add(i as u64, &Tally::from(counts));
        }
        fleet
    }
}

/// What files hold.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Windows with reports, in order of time; without a length, one.
    pub windows: Vec<Window>,
    /// The model that all counted reports are of.
    pub model: u16,
    /// Reports counted.
    pub reports: u64,
    /// Reports that were there already.
    pub duplicates: u64,
    /// Reports of which a part was there already: not counted.
    pub overlaps: u64,
    /// Reports of a layout that this version does not know.
    pub unknown: u64,
    /// Reports of other models.
    pub others: u64,
    /// Windows that devices sent nothing of, between others that they did.
    pub missing: u64,
}

/// A file's bytes, with the name that a single report has.
struct Source {
    path: String,
    bytes: Vec<u8>,
    stem: String,
}

impl Source {
    fn records(&self) -> Outcome<Vec<Record<'_>>> {
        if self.bytes.starts_with(&MAGIC) {
            let records = archive::records(&self.bytes).and_then(Iterator::collect);
            return records.map_err(|e| Failure::damaged(&self.path, e));
        }
        Ok(vec![Record { device: &self.stem, received: 0, report: &self.bytes }])
    }
}

impl Reports {
    /// Reads archives and single reports; of this model, or else of the one that most of them are of.
    ///
    /// # Errors
    /// Names the file and the report.
    pub fn read(paths: &[String], model: Option<u16>, window: Option<u64>) -> Outcome<Self> {
        let mut sources = Vec::new();
        for path in paths {
            let stem = Path::new(path).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            sources.push(Source { path: path.clone(), bytes: model::read(path)?, stem });
        }
        let mut all = Self::default();
        let mut decoded = Vec::new();
        let mut models: BTreeMap<u16, u64> = BTreeMap::new();
        for source in &sources {
            for (k, record) in source.records()?.into_iter().enumerate() {
                match AnyReport::decode(record.report) {
                    Ok(Report::Known(profile, window)) => {
                        *models.entry(window.head().model).or_default() += 1;
                        // A window has room for a thousand classes; what it counts takes less.
                        let mut counts = Aggregate::new();
                        counts.add(&window);
                        decoded.push((record, profile, *window.head(), counts));
                    }
                    Ok(Report::Unknown { .. }) if source.bytes.starts_with(&MAGIC) => all.unknown += 1,
                    Ok(Report::Unknown { .. }) => {
                        let why = "neither an archive of reports nor a report that this version knows";
                        return Err(Failure::damaged(&source.path, why));
                    }
                    Err(e) => return Err(Failure::damaged(&source.path, format!("report {k}: {e}"))),
                }
            }
        }
        let commonest = models.iter().max_by_key(|(_, n)| **n).map_or(0, |(m, _)| *m);
        all.model = model.unwrap_or(commonest);
        if !models.is_empty() && !models.contains_key(&all.model) {
            let seen: Vec<String> = models.iter().map(|(m, n)| format!("{m:04x} ({n} reports)")).collect();
            return Err(Failure::new(
                Code::Damaged,
                format!(
                    "no report is of the model {:04x}, whose package was given\n  hint: they are of {}; calibrating a package changes its digest, so devices must run the calibrated one",
                    all.model,
                    seen.join(", ")
                ),
            ));
        }
        let mut ledgers: BTreeMap<&str, Ledger> = BTreeMap::new();
        let mut windows: BTreeMap<u64, Window> = BTreeMap::new();
        for (record, profile, head, counts) in &decoded {
            if head.model != all.model {
                all.others += 1;
                continue;
            }
            let ledger = ledgers.entry(record.device).or_default();
            match ledger.enter(ledger.boot(*profile, head.boot), head) {
                Arrival::New => {}
                Arrival::Duplicate => {
                    all.duplicates += 1;
                    continue;
                }
                Arrival::Overlap => {
                    all.overlaps += 1;
                    continue;
                }
            }
            if window.is_some() && record.received == 0 {
                let why = format!(
                    "a report of '{}' does not say when it came, and --window parts reports by that",
                    record.device
                );
                return Err(Failure::new(Code::Usage, why));
            }
            let key = window.map_or(0, |seconds| record.received / seconds);
            let into = windows.entry(key).or_default();
            into.start = if into.reports == 0 { record.received } else { into.start.min(record.received) };
            into.end = into.end.max(record.received);
            into.reports += 1;
            into.devices.entry(record.device.to_owned()).or_default().merge(counts);
            all.reports += 1;
        }
        all.missing = ledgers
            .values()
            .flat_map(|l| l.gaps().map(|(_, gap)| u64::from(gap.end - gap.start)).collect::<Vec<_>>())
            .sum();
        all.windows = windows.into_values().collect();
        Ok(all)
    }

    /// What is to be known of the last window.
    #[must_use]
    pub fn subtitle(&self, last: &Window) -> String {
        let total = last.total();
        let hours = total.seconds() as f64 / 3600.0;
        let which =
            if self.windows.len() > 1 { format!("last of {} windows: ", self.windows.len()) } else { String::new() };
        let plural = |n: u64, word: &str| format!("{} {word}{}", grouped(n), if n == 1 { "" } else { "s" });
        format!(
            "{which}{} from {}, {} over {hours:.1} device-hours",
            plural(last.reports, "report"),
            plural(last.devices.len() as u64, "device"),
            plural(total.counter(dunlin_telemetry::Counter::Inferences), "inference"),
        )
    }

    /// What should not be overlooked.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let rounded: u64 = self.windows.iter().map(|w| w.total().rounded()).sum();
        let incomplete: u64 = self.windows.iter().map(|w| w.total().incomplete()).sum();
        let all = [
            (self.duplicates, "reports came twice and count once"),
            (self.overlaps, "reports overlap others in part and are not counted"),
            (self.unknown, "reports have a layout that this version does not know and are not counted"),
            (self.others, "reports are of other models and are not counted"),
            (self.missing, "windows of devices are missing"),
            (rounded, "windows came rounded"),
            (incomplete, "windows are incomplete"),
        ];
        all.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))).collect()
    }
}
