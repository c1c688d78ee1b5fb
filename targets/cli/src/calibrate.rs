//! `dunlin calibrate`: what a model's inputs and outputs are like, written into its package.

use std::io::IsTerminal;

use dunlin::kernels::best;
use dunlin::package::{Manifest, with_drift};
use dunlin::{DType, Package, TensorRef};
use dunlin_telemetry::calibrate::{CalibrateError, Calibrated, Calibrator, Options, Spec};
use dunlin_telemetry::recorder::SAMPLE_FEATURES;
use dunlin_telemetry::reference::{Confidence, Port, Statistic};
use dunlin_telemetry::report::MAX_CLASSES;
use dunlin_telemetry::{Observation, Values};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::arguments::Import;
use crate::dataset::Data;
use crate::drift::watched;
use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File};
use crate::range::{self, Outside};
use crate::table::{grouped, significant, table};
use crate::trust::hex;

/// Longest embedding that is whitened: the covariance has this many rows.
const MAX_EMBEDDING: usize = 1024;

/// Adds a drift reference, computed from validation data, to a package.
///
/// Devices and `dunlin drift` compare their inputs and outputs with it. Use data like that of devices in good order, 500
/// samples or more. The digest changes and signatures are dropped: calibrate before signing.
#[derive(clap::Args, Clone, Debug)]
pub struct Calibrate {
    /// Package or ONNX file
    pub model: String,
    /// Package to write [default: the model's name with .dunlin]
    #[arg(short, long, value_name = "OUT.dunlin")]
    pub output: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub data: Data,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub watch: Watch,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// Something, or 'none'. clap takes an option of an option for a flag with a value that may be missing, and panics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<T>(pub Option<T>);

/// What devices are to watch.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "What devices watch")]
pub struct Watch {
    /// Statistic that devices record, up to four, or 'none'
    ///
    /// As input:0:mean, input:0:range, or output:1:17 for one element. Default: mean and range of the first input.
    #[arg(long, value_name = "TENSOR:STATISTIC", value_parser = feature)]
    pub watch: Vec<Option<(Port, Statistic)>>,
    /// Tensor used as embedding for drift detection, or 'none'
    ///
    /// As output:1, or input:0:8 to sum every 8 elements. Default: the last output, if it is short enough.
    #[arg(long, value_name = "TENSOR[:POOL]", value_parser = embedding)]
    pub embedding: Option<Choice<(Port, u32)>>,
    /// Output whose largest element is the class, or 'none'
    ///
    /// Default: the first, if the data has labels or the model names its classes.
    #[arg(long, value_name = "N", value_parser = class_output)]
    pub class_output: Option<Choice<u8>>,
    /// Confidence: the largest output as it is, or after a softmax
    #[arg(long, value_name = "HOW", value_parser = clap::builder::PossibleValuesParser::new(["greatest", "softmax"]))]
    pub confidence: Option<String>,
    /// Latency deadline of an inference in microseconds; 0: none
    #[arg(long, default_value_t = 0, value_name = "US")]
    pub deadline: u32,
    /// Shrinkage of the embedding's covariance, 0 to 1
    #[arg(long, default_value_t = 0.05, value_name = "X")]
    pub shrinkage: f64,
}

fn tensor(text: &str) -> Option<Port> {
    let (side, index) = text.split_once(':')?;
    let index = index.parse().ok()?;
    match side {
        "input" => Some(Port::Input(index)),
        "output" => Some(Port::Output(index)),
        _ => None,
    }
}

fn feature(text: &str) -> Result<Option<(Port, Statistic)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let read = || {
        let (port, number) = text.rsplit_once(':')?;
        let statistic = match number {
            "mean" => Statistic::Mean,
            "range" => Statistic::Range,
            element => Statistic::Element(element.parse().ok()?),
        };
        Some((tensor(port)?, statistic))
    };
    read().map(Some).ok_or_else(|| "write it as input:0:mean, input:0:range or output:0:3".to_owned())
}

fn embedding(text: &str) -> Result<Choice<(Port, u32)>, String> {
    if text == "none" {
        return Ok(Choice(None));
    }
    let pooled = text.rsplit_once(':').and_then(|(port, pool)| Some((tensor(port)?, pool.parse().ok()?)));
    let found = pooled.or_else(|| Some((tensor(text)?, 1))).filter(|(_, pool)| *pool > 0);
    found.map(|f| Choice(Some(f))).ok_or_else(|| "write it as output:1 or input:0:8".to_owned())
}

fn class_output(text: &str) -> Result<Choice<u8>, String> {
    if text == "none" {
        return Ok(Choice(None));
    }
    text.parse().map(|n| Choice(Some(n))).map_err(|_| "write the output's number, or 'none'".to_owned())
}

/// A tensor's elements as telemetry reads them; `None` for types that it does not.
fn values<'t>(tensor: &'t TensorRef<'t>, scale: f32, zero_point: i32) -> Option<Values<'t>> {
    match tensor.tensor()?.dtype {
        DType::F32 => tensor.as_slice::<f32>().map(Values::F32),
        DType::I8 => tensor.as_slice::<i8>().map(|q| Values::I8 { q, scale, zero_point }),
        _ => None,
    }
}

/// An input's elements, which stand in a data set as bytes.
enum Input {
    F32(Vec<f32>),
    I8(Vec<i8>),
    Other,
}

impl Input {
    fn of(dtype: DType, bytes: &[u8]) -> Self {
        match dtype {
            DType::F32 => Self::F32(bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()),
            DType::I8 => Self::I8(bytes.iter().map(|b| b.cast_signed()).collect()),
            _ => Self::Other,
        }
    }

    fn values(&self, scale: f32, zero_point: i32) -> Values<'_> {
        match self {
            Self::F32(v) => Values::F32(v),
            Self::I8(q) => Values::I8 { q, scale, zero_point },
            Self::Other => Values::F32(&[]),
        }
    }
}

/// Whether numbers are shares that sum to 1.
fn probabilities(values: &Values<'_>) -> bool {
    let sum: f32 = (0..values.len()).filter_map(|i| values.get(i)).sum();
    (0..values.len()).filter_map(|i| values.get(i)).all(|v| (-0.01..=1.01).contains(&v)) && (sum - 1.0).abs() < 0.05
}

impl Watch {
    /// What is watched of this model.
    fn spec(&self, manifest: &Manifest<'_>, labelled: bool) -> Outcome<Spec> {
        let readable = |dtype: DType| matches!(dtype, DType::F32 | DType::I8);
        let port = |port: Port| match port {
            Port::Input(i) => manifest.input(i.into()),
            Port::Output(i) => manifest.output(i.into()),
        };
        let check = |from: Port, what: &str| {
            let found =
                port(from).ok_or_else(|| Failure::new(Code::Usage, format!("{what}: the model has no such tensor")))?;
            if readable(found.dtype) {
                return Ok(found.elements());
            }
            Err(Failure::new(Code::Usage, format!("{what}: '{}' is {}, not f32 or i8", found.name, found.dtype.name())))
        };
        let mut features: Vec<_> = self.watch.iter().flatten().copied().collect();
        if self.watch.is_empty() && manifest.input(0).is_some_and(|p| readable(p.dtype)) {
            features = vec![(Port::Input(0), Statistic::Mean), (Port::Input(0), Statistic::Range)];
        }
        if features.len() > SAMPLE_FEATURES {
            return Err(Failure::new(Code::Usage, format!("--watch: devices watch {SAMPLE_FEATURES} numbers at most")));
        }
        for &(from, statistic) in &features {
            let elements = check(from, "--watch")?;
            if let Statistic::Element(e) = statistic
                && e as usize >= elements
            {
                return Err(Failure::new(Code::Usage, format!("--watch: there is no element {e} of {elements}")));
            }
        }
        let last = manifest.outputs().len().saturating_sub(1) as u8;
        let embedding = self.embedding.map(|c| c.0).unwrap_or_else(|| {
            let short = |p: dunlin::package::Port<'_>| readable(p.dtype) && (2..=MAX_EMBEDDING).contains(&p.elements());
            manifest.output(last.into()).filter(|p| short(*p)).map(|_| (Port::Output(last), 1))
        });
        if let Some((from, pool)) = embedding {
            let values = check(from, "--embedding")? / pool as usize;
            if values > MAX_EMBEDDING {
                let text = format!(
                    "--embedding: {values} values, and {MAX_EMBEDDING} are the most\n  hint: pool elements, as in input:0:8"
                );
                return Err(Failure::new(Code::Usage, text));
            }
        }
        let class_output = self.class_output.map(|c| c.0).unwrap_or_else(|| {
            let first = manifest.output(0).filter(|p| readable(p.dtype) && p.elements() <= MAX_CLASSES);
            first.filter(|p| labelled || p.labels().next().is_some()).map(|_| 0)
        });
        if let Some(output) = class_output
            && check(Port::Output(output), "--class-output")? > MAX_CLASSES
        {
            return Err(Failure::new(Code::Usage, format!("--class-output: more than {MAX_CLASSES} elements")));
        }
        let confidence_by =
            if self.confidence.as_deref() == Some("greatest") { Confidence::Greatest } else { Confidence::Softmax };
        Ok(Spec { class_output, confidence_by, deadline_us: self.deadline, features, embedding })
    }
}

impl Calibrate {
    /// Does it.
    ///
    /// # Errors
    /// Names the file, the array or the tensor; nothing is written then.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let file = File::open(&self.model, &self.import.options())?;
        let package = Package::open(&file.bytes).map_err(|e| Failure::damaged(&self.model, e))?;
        let manifest = package.manifest();
        let data = self.data.read(manifest)?;
        if !(0.0..=1.0).contains(&self.watch.shrinkage) {
            return Err(Failure::new(Code::Usage, "--shrinkage is between 0 and 1"));
        }
        let mut spec = self.watch.spec(manifest, !data.labels.is_empty())?;
        let classes = spec.class_output.and_then(|o| manifest.output(o.into())).map_or(0, |p| p.elements());
        let options = Options { classes, shrinkage: self.watch.shrinkage, ..Options::default() };
        let mut calibrator = Calibrator::new(options);
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(data.inputs.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{msg:12} {bar:40} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message("running");
        let mut counters = Outside::of_package(&package);
        model::with(&self.model, &file.bytes, best(), |_, running| {
            for (k, sample) in data.inputs.iter().enumerate() {
                let ports: Vec<_> = manifest.inputs().collect();
                for (i, bytes) in sample.iter().enumerate() {
                    if let Some(Some(counter)) = counters.get_mut(i) {
                        counter.add(bytes);
                    }
                    running.session.input(i).into_bytes().copy_from_slice(bytes);
                }
                running.run()?;
                let kept: Vec<Input> = ports.iter().zip(sample).map(|(p, b)| Input::of(p.dtype, b)).collect();
                let inputs: Vec<Values<'_>> =
                    ports.iter().zip(&kept).map(|(p, v)| v.values(p.scale, p.zero_point)).collect();
                let tensors: Vec<_> = (0..manifest.outputs().len()).map(|i| running.session.output(i)).collect();
                let outputs: Vec<Values<'_>> = manifest
                    .outputs()
                    .zip(&tensors)
                    .map(|(p, t)| values(t, p.scale, p.zero_point).unwrap_or(Values::F32(&[])))
                    .collect();
                let class = spec.class_output.and_then(|o| outputs.get(usize::from(o)));
                if k == 0 && self.watch.confidence.is_none() && class.is_some_and(probabilities) {
                    spec.confidence_by = Confidence::Greatest;
                }
                let seen = Observation { inputs: &inputs, outputs: &outputs, ..Observation::default() };
                let label = data.labels.get(k).map(|&l| l as usize);
                calibrator.observe(&spec, &seen, label).map_err(|e| Failure::damaged(&format!("sample {k}"), e))?;
                bar.inc(1);
            }
            Ok(())
        })?;
        bar.suspend(|| range::report(&package, &counters));
        bar.set_message("computing");
        let finished = calibrator.clone().finish();
        let finished = match finished {
            // Outputs that hardly differ have no axes; everything else is still worth having.
            Err(CalibrateError::Embedding(_)) if self.watch.embedding.is_none() => {
                spec.embedding = None;
                calibrator.without_embedding().finish()
            }
            other => other,
        };
        bar.finish_and_clear();
        let calibrated = finished.map_err(|e| Failure::damaged(&self.data.data, e))?;
        let section = calibrated
            .draft(&spec)
            .write()
            .map_err(|e| Failure::new(Code::Internal, format!("{}: {e}", self.model)))?;
        let out = with_drift(&file.bytes, &section).map_err(|e| Failure::damaged(&self.model, e))?;
        let written = Package::open(&out).map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
        let path = self.output.clone().unwrap_or_else(|| {
            std::path::Path::new(&self.model).with_extension("dunlin").to_string_lossy().into_owned()
        });
        model::write(&path, &out)?;
        let dropped = package.seal().len();
        let digests = (hex(&package.digest()), hex(&written.digest()));
        if json {
            let mut record = self.json(&path, &spec, &calibrated, section.len(), &digests, dropped);
            record["outside_range"] = counters.iter().map(|c| json!(c.as_ref().map(Outside::share))).collect();
            println!("{record}");
        } else {
            self.tell(&path, &spec, &calibrated, section.len(), manifest);
            println!("  digest {} (was {})", &digests.1[..16], &digests.0[..16]);
            if dropped > 0 {
                println!("  {dropped} signatures of the old digest were dropped: sign the package again");
            }
        }
        Ok(())
    }

    fn json(
        &self,
        path: &str,
        spec: &Spec,
        c: &Calibrated,
        bytes: usize,
        digests: &(String, String),
        dropped: usize,
    ) -> serde_json::Value {
        let features: Vec<_> = spec
            .features
            .iter()
            .zip(&c.features)
            .map(|(&(port, statistic), q)| json!({"watched": watched(port, statistic), "edges": q.edges, "counts": q.counts}))
            .collect();
        let confidence: Vec<_> =
            c.confidence.iter().map(|(n, right)| json!({"inferences": n, "right": right})).collect();
        json!({"package": path, "samples": c.n, "section_bytes": bytes, "digest": digests.1, "digest_before": digests.0,
            "signatures_dropped": dropped, "accuracy": c.accuracy, "classes": c.class, "confidence": confidence,
            "confidence_by": format!("{:?}", spec.confidence_by).to_lowercase(), "features": features,
            "embedding": c.projection.as_ref().map(|p| json!({"axes": p.rows.len(),
                "values": p.rows.first().map(Vec::len), "explained": p.explained}))})
    }

    fn tell(&self, path: &str, spec: &Spec, c: &Calibrated, bytes: usize, manifest: &Manifest<'_>) {
        println!("{path}  reference of {} samples, {} bytes", grouped(c.n), grouped(bytes as u64));
        if c.n < 500 {
            println!("  note: 500 samples or more make a better reference, and fewer than 200 make no verdicts");
        }
        let mut rows = vec![["", "what", "bins"].map(str::to_owned).to_vec()];
        let mut add = |name: &str, what: String, bins: usize| {
            rows.push(vec![format!("  {name}"), what, bins.to_string()]);
        };
        if let Some(output) = spec.class_output {
            let name = manifest.output(output.into()).map_or("", |p| p.name);
            let accuracy = c.accuracy.map(|a| format!(", right in {:.2} %", 100.0 * a)).unwrap_or_default();
            add("class", format!("greatest of '{name}'{accuracy}"), c.class.len());
            let how = if spec.confidence_by == Confidence::Softmax { "its softmax" } else { "its value" };
            let labels = if c.accuracy.is_some() { "" } else { ", without labels: accuracy cannot be estimated" };
            add("confidence", format!("{how}{labels}"), c.confidence.len());
        }
        for (&(port, statistic), q) in spec.features.iter().zip(&c.features) {
            let least = q.edges.first().copied().unwrap_or(0.0);
            let most = q.edges.last().copied().unwrap_or(0.0);
            let (least, most) = (significant(least), significant(most));
            add("watched", format!("{}, {least} to {most}", watched(port, statistic)), q.counts.len());
        }
        match &c.projection {
            Some(p) => add(
                "embedding",
                format!(
                    "{} values on {} axes with {:.1} % of the variance",
                    p.rows.first().map_or(0, Vec::len),
                    p.rows.len(),
                    100.0 * p.explained
                ),
                8,
            ),
            None => add("embedding", "none".to_owned(), 0),
        }
        print!("{}", table(&rows, &[2]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_read() {
        assert_eq!(feature("input:0:mean"), Ok(Some((Port::Input(0), Statistic::Mean))));
        assert_eq!(feature("output:2:17"), Ok(Some((Port::Output(2), Statistic::Element(17)))));
        assert_eq!(feature("none"), Ok(None));
        assert_eq!(embedding("output:1"), Ok(Choice(Some((Port::Output(1), 1)))));
        assert_eq!(embedding("input:0:8"), Ok(Choice(Some((Port::Input(0), 8)))));
        for wrong in ["", "input", "input:0", "in:0:mean", "input:x:mean", "input:0:middle"] {
            assert!(feature(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "output", "output:0:0", "output:a", "x:1:2"] {
            assert!(embedding(wrong).is_err(), "{wrong}");
        }
        assert!(
            class_output("none") == Ok(Choice(None))
                && class_output("3") == Ok(Choice(Some(3)))
                && class_output("-1").is_err()
        );
    }

    #[test]
    fn shares_are_told_from_logits() {
        assert!(probabilities(&Values::F32(&[0.2, 0.5, 0.3])));
        assert!(!probabilities(&Values::F32(&[0.2, 1.5, -0.7])) && !probabilities(&Values::F32(&[0.2, 0.5])));
    }
}
