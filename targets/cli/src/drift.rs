//! `dunlin drift`: what the reports of a fleet say about its model, against the model's reference.

pub mod reports;
mod svg;
pub mod terminal;

use dunlin::Package;
use dunlin_telemetry::aggregate::Aggregate;
use dunlin_telemetry::analysis::{Alarm, Baseline, Bootstrap, Criteria, Fleet, Level, Verdict, feature_name};
use dunlin_telemetry::export::{Context, Snapshot, otlp, prometheus, senml};
use dunlin_telemetry::reference::{Port, Statistic};
use dunlin_telemetry::{Counter, DISTANCES, Reference};
use serde_json::{Value, json};

use crate::failure::{Code, Failure, Outcome};
use crate::model;
use crate::table::grouped;
use reports::{Reports, Window};
use terminal::Style;

/// Compares reports of devices with a package's drift reference.
///
/// An alarm needs an effect that matters and an interval, drawn by device, that excludes 0; with --window also two such
/// windows one after the other. Fewer than 500 inferences are not judged, which is no pass.
#[derive(clap::Args, Clone, Debug)]
pub struct Command {
    /// Report archives, or files with one report named after its device
    #[arg(required = true, value_name = "REPORTS")]
    pub reports: Vec<String>,
    /// Package that the devices run, with its reference
    #[arg(long, value_name = "PACKAGE")]
    pub reference: Option<String>,
    /// Draw the histograms
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<String>,
    /// Split the reports into windows; two in a row raise an alarm
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub window: Option<u64>,
    /// Export counts and verdicts; repeatable
    ///
    /// Formats: otlp, prometheus, prometheus-native, senml, json.
    #[arg(long, value_name = "FORMAT=FILE", value_parser = export)]
    pub export: Vec<(Format, String)>,
    /// Exit with code 1 on an alarm of this level
    #[arg(long, value_name = "LEVEL", value_parser = clap::builder::PossibleValuesParser::new(["warn", "act"]))]
    pub fail_on: Option<String>,
    /// Bootstrap resamples for each interval
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub resamples: usize,
}

/// Formats of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenTelemetry protobuf.
    Otlp,
    /// Prometheus text.
    Prometheus,
    /// Prometheus protobuf with native histograms.
    PrometheusNative,
    /// SenML in CBOR.
    Senml,
    /// JSON.
    Json,
}

fn export(text: &str) -> Result<(Format, String), String> {
    let (format, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or("write it as FORMAT=FILE")?;
    let format = match format {
        "otlp" => Format::Otlp,
        "prometheus" => Format::Prometheus,
        "prometheus-native" => Format::PrometheusNative,
        "senml" => Format::Senml,
        "json" => Format::Json,
        other => return Err(format!("no format '{other}': otlp, prometheus, prometheus-native, senml, json")),
    };
    Ok((format, path.to_owned()))
}

/// What a watched value is called.
#[must_use]
pub fn watched(port: Port, statistic: Statistic) -> String {
    feature_name(port, statistic)
}

/// The reference of a package, and what it names.
struct Against {
    section: Vec<u8>,
    model: u16,
    name: String,
    classes: Vec<String>,
}

impl Against {
    fn read(path: &str) -> Outcome<Self> {
        let bytes = model::read(path)?;
        let package = Package::open(&bytes).map_err(|e| Failure::damaged(path, e))?;
        let section = package.drift().ok_or_else(|| {
            Failure::damaged(path, "the package has no reference\n  hint: 'dunlin calibrate' writes one")
        })?;
        Reference::read(section).map_err(|e| Failure::damaged(path, e))?;
        let [first, second, ..] = package.digest();
        let manifest = package.manifest();
        let output = Reference::read(section).ok().and_then(|r| r.class_output()).unwrap_or(0);
        let labels = manifest.output(output.into()).map(|p| p.labels().map(str::to_owned).collect());
        Ok(Self {
            section: section.to_vec(),
            model: u16::from_be_bytes([first, second]),
            name: format!("{} {}", manifest.name, manifest.version),
            classes: labels.unwrap_or_default(),
        })
    }
}

/// The alarms of windows one after the other: for each verdict of the last window the level that two in a row had.
fn alarms(windows: &[Vec<Verdict>]) -> Vec<Level> {
    let count = windows.last().map_or(0, Vec::len);
    (0..count)
        .map(|i| {
            let mut alarm = Alarm::default();
            windows.iter().filter_map(|w| w.get(i)).map(|v| alarm.push(v.level)).last().unwrap_or(Level::NotEnoughData)
        })
        .collect()
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Names the file; with --fail-on also when there is an alarm.
    pub fn run(&self, as_json: bool) -> Outcome<()> {
        let against = self.reference.as_deref().map(Against::read).transpose()?;
        let reference = against.as_ref().and_then(|a| Reference::read(&a.section).ok()).unwrap_or(Reference::NONE);
        let reports = Reports::read(&self.reports, against.as_ref().map(|a| a.model), self.window)?;
        let baseline = Baseline::from(&reference);
        let bootstrap = Bootstrap { resamples: self.resamples, ..Bootstrap::default() };
        let criteria = Criteria { bootstrap, ..Criteria::default() };
        let judged: Vec<Vec<Verdict>> =
            reports.windows.iter().map(|w| w.fleet().verdicts(&baseline, &criteria)).collect();
        let alarms = if self.window.is_some() {
            alarms(&judged)
        } else {
            judged.last().map(|w| w.iter().map(|v| v.level).collect()).unwrap_or_default()
        };
        let (Some(last), Some(verdicts)) = (reports.windows.last(), judged.last()) else {
            return Err(Failure::damaged(&self.reports.join(", "), "holds no reports"));
        };
        let classes = against.as_ref().map(|a| a.classes.clone()).unwrap_or_default();
        let distances = reference.embedding().map(|e| Panel::distances(e.distance_first())).unwrap_or_default();
        let shown = Drift {
            title: against.as_ref().map_or_else(|| format!("model {:04x}", reports.model), |a| a.name.clone()),
            subtitle: reports.subtitle(last),
            panels: Panel::all(&last.fleet(), &baseline, &classes, &distances),
            verdicts: verdicts.clone(),
        };
        if let Some(path) = &self.svg {
            model::write(path, svg::draw(&shown).as_bytes())?;
        }
        for (format, path) in &self.export {
            self.write(*format, path, last, &reference, &classes, verdicts, reports.model)?;
        }
        if as_json {
            println!("{}", json_of(&reports, &judged, &alarms, &shown));
        } else {
            print!("{}", self.text(&reports, last, &shown, &alarms, against.is_some()));
        }
        let limit = match self.fail_on.as_deref() {
            Some("warn") => Level::Warn,
            Some(_) => Level::Act,
            None => return Ok(()),
        };
        let raised = alarms.iter().filter(|a| **a >= limit).count();
        if raised > 0 {
            return Err(Failure::new(Code::Differs, format!("{raised} alarms of level '{limit}' or above")));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "all of one thing")]
    fn write(
        &self,
        format: Format,
        path: &str,
        window: &Window,
        reference: &Reference<'_>,
        classes: &[String],
        verdicts: &[Verdict],
        model: u16,
    ) -> Outcome<()> {
        let (hex, devices) = (format!("{model:04x}"), window.devices.len().to_string());
        let context = Context {
            resource: &[("dunlin.model", &hex), ("dunlin.devices", &devices)],
            start_ns: window.start.saturating_mul(1_000_000_000),
            end_ns: window.end.saturating_mul(1_000_000_000),
            reference,
            classes,
        };
        let mut snapshot = Snapshot::of_windows(&window.total(), &context);
        snapshot.add_verdicts(verdicts);
        let bytes = match format {
            Format::Otlp => otlp::request(&snapshot),
            Format::Prometheus => prometheus::text(&snapshot).into_bytes(),
            Format::PrometheusNative => prometheus::native(&snapshot),
            Format::Senml => senml::pack(&snapshot),
            Format::Json => format!("{}\n", snapshot.json()).into_bytes(),
        };
        model::write(path, &bytes)
    }

    fn text(&self, reports: &Reports, last: &Window, shown: &Drift, alarms: &[Level], judged: bool) -> String {
        let style = Style::of_stdout();
        let mut out = format!("{}\n{}\n", style.bold(&shown.title), terminal::wrap(&shown.subtitle, style.width, ""));
        for note in reports.notes() {
            out.push_str(&format!("{}\n", terminal::wrap(&format!("note: {note}"), style.width, "  ")));
        }
        out.push_str(&format!("{}\n", counters(&last.total())));
        for panel in &shown.panels {
            out.push_str(&format!("\n{}", terminal::histogram(panel, style)));
            let of: Vec<&Verdict> = shown.verdicts.iter().filter(|v| v.subject == panel.subject).collect();
            of.iter().for_each(|v| out.push_str(&terminal::verdict(v, style)));
        }
        let rest: Vec<&Verdict> =
            shown.verdicts.iter().filter(|v| shown.panels.iter().all(|p| p.subject != v.subject)).collect();
        for verdict in rest {
            out.push_str(&format!("\n{}\n{}", style.bold(&verdict.subject), terminal::verdict(verdict, style)));
        }
        if !judged {
            out.push_str("\nnothing is judged without --reference\n");
            return out;
        }
        let count = |level: Level| alarms.iter().filter(|a| **a == level).count();
        let summary = [Level::Act, Level::Warn, Level::Steady, Level::NotEnoughData].map(|l| (l, count(l)));
        let summary: Vec<String> =
            summary.iter().filter(|(_, n)| *n > 0).map(|(l, n)| style.level(*l, &format!("{n} {l}"))).collect();
        let what = match self.window {
            Some(_) => format!("alarms after {} windows: ", reports.windows.len()),
            None => String::new(),
        };
        out.push_str(&format!("\n{what}{}\n", summary.join(", ")));
        out
    }
}

/// The counters that are not 0, in a line.
fn counters(total: &Aggregate) -> String {
    let shown = Counter::ALL.into_iter().filter(|c| total.counter(*c) > 0);
    let words: Vec<String> =
        shown.map(|c| format!("{} {}", grouped(total.counter(c)), c.name().replace('_', " "))).collect();
    words.join(", ")
}

fn json_of(reports: &Reports, judged: &[Vec<Verdict>], alarms: &[Level], shown: &Drift) -> Value {
    let windows: Vec<Value> = reports
        .windows
        .iter()
        .zip(judged)
        .map(|(w, verdicts)| {
            let total = w.total();
            let counters: serde_json::Map<String, Value> =
                Counter::ALL.iter().map(|c| (c.name().to_owned(), total.counter(*c).into())).collect();
            json!({"start": w.start, "end": w.end, "devices": w.devices.len(), "reports": w.reports,
                "counters": counters, "verdicts": verdicts.iter().map(Verdict::json).collect::<Vec<_>>()})
        })
        .collect();
    let panels: Vec<Value> = shown
        .panels
        .iter()
        .map(|p| {
            let bins: Vec<Value> =
                p.bins.iter().map(|b| json!({"bin": b.label, "now": b.now, "reference": b.reference})).collect();
            json!({"subject": p.subject, "n": p.n, "m": p.m, "bins": bins})
        })
        .collect();
    json!({"model": format!("{:04x}", reports.model), "reports": reports.reports, "duplicates": reports.duplicates,
        "overlaps": reports.overlaps, "unknown": reports.unknown, "of_other_models": reports.others,
        "missing_windows": reports.missing, "histograms": panels, "windows": windows,
        "alarms": alarms.iter().map(|a| a.name()).collect::<Vec<_>>()})
}

/// One histogram: shares now and in the reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What its verdicts are about.
    pub subject: String,
    /// What is counted.
    pub title: String,
    /// Inferences now.
    pub n: u64,
    /// Inferences of the reference.
    pub m: u64,
    /// The bins.
    pub bins: Vec<Bin>,
}

/// A bin of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Bin {
    /// What is in it.
    pub label: String,
    /// Its share now.
    pub now: f64,
    /// Its share in the reference.
    pub reference: f64,
}

/// All there is to show.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Model.
    pub title: String,
    /// Devices, reports, inferences.
    pub subtitle: String,
    /// Histograms.
    pub panels: Vec<Panel>,
    /// Verdicts on them.
    pub verdicts: Vec<Verdict>,
}

impl Panel {
    /// Of counts; bins without a name are numbered.
    #[must_use]
    pub fn new(title: &str, now: &[u64], reference: &[u64], labels: &[String]) -> Self {
        let (n, m) = (now.iter().sum::<u64>(), reference.iter().sum::<u64>());
        let share = |counts: &[u64], all: u64, i: usize| match (counts.get(i), all) {
            (Some(&count), 1..) => count as f64 / all as f64,
            _ => 0.0,
        };
        let bins = (0..now.len().max(reference.len()))
            .map(|i| Bin {
                label: labels.get(i).cloned().unwrap_or_else(|| i.to_string()),
                now: share(now, n, i),
                reference: share(reference, m, i),
            })
            .collect();
        Self { subject: title.to_owned(), title: title.to_owned(), n, m, bins }
    }

    /// Names of the bins of squared distances, of which the first ends at this power of two.
    #[must_use]
    pub fn distances(first: i8) -> Vec<String> {
        let bound = |b: i32| brief((f64::from(first) + f64::from(b)).exp2());
        let last = DISTANCES as i32 - 1;
        (0..=last)
            .map(|b| match b {
                0 => format!("< {}", bound(0)),
                _ if b == last => format!("≥ {}", bound(b - 1)),
                _ => format!("{}–{}", bound(b - 1), bound(b)),
            })
            .collect()
    }

    /// The histograms of a fleet beside those of its baseline, with the classes' names.
    #[must_use]
    pub fn all(fleet: &Fleet, baseline: &Baseline, classes: &[String], distances: &[String]) -> Vec<Self> {
        let total = fleet.total();
        let mut panels = Vec::new();
        let any = |counts: &[u64]| counts.iter().any(|&c| c > 0);
        if !baseline.class.is_empty() || any(&total.class) {
            panels.push(Self::new("class", &total.class, &baseline.class, classes));
        }
        if !baseline.confidence.is_empty() || any(&total.confidence) {
            let bins = baseline.confidence.len().max(total.confidence.len());
            let labels: Vec<String> =
                (0..bins).map(|b| between(b as f64 / bins as f64, (b + 1) as f64 / bins as f64)).collect();
            let reference: Vec<u64> = baseline.confidence.iter().map(|b| b.0).collect();
            panels.push(Self::new("confidence", &total.confidence, &reference, &labels));
        }
        if !baseline.distance.is_empty() {
            let panel = Self::new("distance", &total.distance, &baseline.distance, distances);
            panels.push(Self { title: "squared distance from the reference".to_owned(), ..panel });
        }
        for (i, feature) in baseline.features.iter().enumerate() {
            let last = feature.counts.len().saturating_sub(1);
            let label = |b: usize, edge: &[f64]| match edge {
                [_, high] if b == 0 => format!("< {}", brief(*high)),
                [low, _] if b == last => format!("≥ {}", brief(*low)),
                [low, high] => between(*low, *high),
                _ => b.to_string(),
            };
            let labels: Vec<String> = feature.edges.windows(2).enumerate().map(|(b, e)| label(b, e)).collect();
            let now = total.features.get(i).map_or(&[][..], Vec::as_slice);
            panels.push(Self::new(&feature.name, now, &feature.counts, &labels));
        }
        panels
    }
}

/// A number in at most about five characters.
fn brief(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    match magnitude {
        -2..=3 => {
            let digits = usize::try_from(2 - magnitude).unwrap_or(0).min(3);
            let text = format!("{value:.digits$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        _ if value == 0.0 => "0".to_owned(),
        _ => format!("{value:.1e}"),
    }
}

fn between(low: f64, high: f64) -> String {
    format!("{}–{}", brief(low), brief(high))
}
