//! `dunlin run`: inputs in, outputs out.

use dunlin::Package;
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::difference::values;
use crate::failure::{Failure, Outcome};
use crate::model::{self, File, fill, numpy};
use crate::npz::{self, Array};
use crate::samples::Samples;

/// Runs a model on inputs.
#[derive(clap::Args, Clone, Debug)]
pub struct Run {
    /// A package or an ONNX file
    pub model: String,
    /// npz file with in{k}_{i}, or with one array for each input, by its name
    #[arg(long, value_name = "IN.npz")]
    pub inputs: String,
    /// Where to write the outputs: out{k}_{i}, or by name where the inputs came by name
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: Option<String>,
    /// The kernels to use
    #[arg(long, default_value = "best")]
    pub backend: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// Names the file or array.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let mut samples = Samples::read(&self.inputs)?;
        let mut options = self.import.options_for(samples.shapes());
        let named = samples.inputs.is_empty();
        if named {
            for (name, array) in &samples.arrays {
                options.pins.named.entry(name.clone()).or_insert_with(|| array.shape.clone());
            }
        }
        let file = File::open(&self.model, &options)?;
        let package = Package::open(&file.bytes).map_err(|e| Failure::damaged(&self.model, e))?;
        let manifest = package.manifest();
        if named {
            let mut row = Vec::new();
            for port in manifest.inputs() {
                row.push(samples.arrays.remove(port.name).ok_or_else(|| {
                    Failure::damaged(
                        &self.inputs,
                        format!("has neither 'in0_0' nor '{}'\n  hint: name arrays in0_0, in0_1, ... or as the inputs are named", port.name),
                    )
                })?);
            }
            samples.inputs.push(row);
        }
        let mut results: Vec<(String, Array)> = Vec::new();
        let mut records: Vec<Value> = Vec::new();
        model::with(&self.model, &file.bytes, model::backend(&self.backend)?, |_, running| {
            for (k, inputs) in samples.inputs.iter().enumerate() {
                for i in 0..manifest.inputs().len() {
                    let key = format!("in{k}_{i}");
                    let array = inputs.get(i).ok_or_else(|| {
                        Failure::damaged(
                            &self.inputs,
                            format!("'{key}' is missing: the model has {} inputs", manifest.inputs().len()),
                        )
                    })?;
                    fill(running, i, &key, array)?;
                }
                running.run()?;
                for (i, port) in manifest.outputs().enumerate() {
                    let output = running.session.output(i);
                    let key = if named { port.name.to_owned() } else { format!("out{k}_{i}") };
                    let shape: Vec<usize> = port.shape().iter().map(|&d| d as usize).collect();
                    let all = values(port.dtype, output.bytes());
                    let top = output.argmax();
                    let label = top.and_then(|t| port.label(t));
                    let (low, high) =
                        all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
                    if !json {
                        let first: Vec<String> = all
                            .iter()
                            .take(8)
                            .map(|v| format!("{v:.6}").trim_end_matches('0').trim_end_matches('.').to_owned())
                            .collect();
                        let more = if all.len() > 8 { ", ..." } else { "" };
                        let label = label.map(|l| format!(" '{l}'")).unwrap_or_default();
                        let top = top.map(|t| format!("  largest at {t}{label}")).unwrap_or_default();
                        println!(
                            "{key} ({}) {} {shape:?}  {low:.4} to {high:.4}{top}\n  [{}{more}]",
                            port.name,
                            port.dtype.name(),
                            first.join(", ")
                        );
                    }
                    records.push(json!({"key": key, "output": port.name, "dtype": port.dtype.name(), "shape": shape,
                        "min": low, "max": high, "argmax": top, "label": label}));
                    results.push((
                        key,
                        Array { dtype: numpy(port.dtype).to_owned(), shape, bytes: output.bytes().to_vec() },
                    ));
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
        Ok(())
    }
}
