//! `dunlin run`: inputs in, outputs out.

use dunlin::Package;
use dunlin::package::{Manifest, Port};
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::dataset::Data;
use crate::difference::values;
use crate::failure::{Failure, Outcome};
use crate::model::{self, File, Running, fill, numpy, plain_type};
use crate::npz::{self, Array};
use crate::output::{self, Tone, paint};
use crate::range::{self, Outside};
use crate::samples::Samples;
use crate::table::{decimal, significant};

/// Runs a model on inputs.
#[derive(clap::Args, Clone, Debug)]
pub struct Run {
    /// Package or ONNX file
    pub model: String,
    /// npz file: in{k}_{i}, one array per input by name, or x with samples
    #[arg(long, value_name = "IN.npz")]
    pub inputs: String,
    /// Write the outputs: out{k}_{i}, or by name if the inputs are
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: Option<String>,
    /// Factor for stored values of an array x [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    pub scale: Option<f32>,
    /// Offset added after --scale [default: 0]
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    pub offset: Option<f32>,
    /// Run only the first N samples
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Kernels to use
    #[arg(long, default_value = "best")]
    pub backend: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// Samples of an array `x` that are run when neither a limit nor a file for the outputs is given.
const SHOWN: usize = 10;

impl Run {
    /// The inputs in order: as they come, or by the names of the model's inputs, or the samples of an array `x`.
    fn rows(&self, samples: &mut Samples, manifest: &Manifest<'_>) -> Outcome<Vec<Vec<Array>>> {
        if !samples.inputs.is_empty() {
            return Ok(std::mem::take(&mut samples.inputs));
        }
        let ports: Vec<_> = manifest.inputs().collect();
        if let ([port], Some(_)) = (&ports[..], samples.arrays.get("x"))
            && !samples.arrays.contains_key(port.name)
        {
            let data = Data {
                data: self.inputs.clone(),
                labels: None,
                scale: self.scale.unwrap_or(1.0),
                offset: self.offset.unwrap_or(0.0),
            };
            let all = data.read(manifest)?.inputs;
            let shape: Vec<usize> = port.shape().iter().map(|&d| d as usize).collect();
            let most = self.limit.unwrap_or(if self.outputs.is_some() { usize::MAX } else { SHOWN });
            if all.len() > most && self.limit.is_none() {
                let text =
                    format!("the first {most} of {} samples; --limit N for more, --outputs FILE for all", all.len());
                output::report("note", &text);
            }
            let array = |bytes| Array { dtype: numpy(port.dtype).to_owned(), shape: shape.clone(), bytes };
            let rows = all.into_iter().take(most).map(|sample| sample.into_iter().map(array).collect());
            return Ok(rows.collect());
        }
        let mut row = Vec::new();
        for port in &ports {
            row.push(samples.arrays.remove(port.name).ok_or_else(|| {
                let has: Vec<String> = samples.arrays.keys().take(8).map(|key| format!("'{key}'")).collect();
                let names: Vec<&str> = ports.iter().map(|port| port.name).collect();
                let hint = format!(
                    "name the arrays as the model's inputs ({}), or in0_0, in0_1, ...; an array x holds samples of a model with one input",
                    names.join(", ")
                );
                let text = format!("has no array '{}', only {}\n  hint: {hint}", port.name, has.join(", "));
                Failure::damaged(&self.inputs, text)
            })?);
        }
        Ok(vec![row])
    }

    /// Runs the model, prints and writes the outputs.
    ///
    /// # Errors
    /// Names the file or array.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let mut samples = Samples::read(&self.inputs)?;
        let mut options = self.import.options_for(samples.shapes());
        // By name where the inputs are.
        let mut named = samples.inputs.is_empty() && !samples.arrays.contains_key("x");
        if samples.inputs.is_empty() {
            for (name, array) in &samples.arrays {
                options.pins.named.entry(name.clone()).or_insert_with(|| array.shape.clone());
            }
        }
        let file = File::open(&self.model, &options)?;
        let package = Package::open(&file.bytes).map_err(|e| Failure::package(&self.model, &file.bytes, e))?;
        let manifest = package.manifest();
        named |= samples.inputs.is_empty() && manifest.inputs().any(|port| samples.arrays.contains_key(port.name));
        let mut rows = self.rows(&mut samples, manifest)?;
        rows.truncate(self.limit.unwrap_or(usize::MAX));
        let mut counters = Outside::of_package(&package);
        let mut results: Vec<(String, Array)> = Vec::new();
        let mut records: Vec<Value> = Vec::new();
        model::with(&self.model, &file.bytes, model::backend(&self.backend)?, |_, running| {
            for (k, inputs) in rows.iter().enumerate() {
                for (i, port) in manifest.inputs().enumerate() {
                    let key = format!("in{k}_{i}");
                    let array = inputs.get(i).ok_or_else(|| {
                        let count = manifest.inputs().len();
                        Failure::damaged(&self.inputs, format!("'{key}' is missing: the model has {count} inputs"))
                    })?;
                    let shown = if named { port.name } else { &key };
                    fill(running, i, port.name, shown, array)?;
                    if let Some(Some(counter)) = counters.get_mut(i) {
                        counter.add(&array.bytes);
                    }
                }
                running.run()?;
                for (i, port) in manifest.outputs().enumerate() {
                    let key = if named { port.name.to_owned() } else { format!("out{k}_{i}") };
                    let (record, array) = output_of(running, i, &port, &key, json);
                    records.push(record);
                    results.push((key, array));
                }
            }
            Ok(())
        })?;
        if let Some(path) = &self.outputs {
            let bytes = npz::write(&results).map_err(|e| Failure::damaged(path, e))?;
            model::write(path, &bytes)?;
        }
        if json {
            println!("{}", json!({"model": self.model, "outputs": records}));
        }
        range::report(&package, &counters);
        Ok(())
    }
}

/// Describes one output, and prints it unless JSON is asked for.
fn output_of(running: &Running<'_, '_>, i: usize, port: &Port<'_>, key: &str, json: bool) -> (Value, Array) {
    let output = running.session.output(i);
    let shape: Vec<usize> = port.shape().iter().map(|&d| d as usize).collect();
    let all = values(port.dtype, output.bytes());
    let top = output.argmax();
    let label = top.and_then(|t| port.label(t));
    let (low, high) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    if !json {
        let first: Vec<String> = all.iter().take(8).map(|v| decimal(*v, 6)).collect();
        let more = if all.len() > 8 { ", ..." } else { "" };
        let label = label.map(|l| format!(" '{l}'")).unwrap_or_default();
        let top = top.map(|t| format!("  largest at {t}{label}")).unwrap_or_default();
        let dtype = plain_type(numpy(port.dtype));
        println!(
            "{} ({}) {dtype} {shape:?}  {} to {}{top}\n  [{}{more}]",
            paint(Tone::Heading, key),
            port.name,
            significant(low),
            significant(high),
            first.join(", ")
        );
    }
    let record = json!({"key": key, "output": port.name, "dtype": port.dtype.name(), "shape": shape, "min": low,
        "max": high, "argmax": top, "label": label});
    (record, Array { dtype: numpy(port.dtype).to_owned(), shape, bytes: output.bytes().to_vec() })
}
