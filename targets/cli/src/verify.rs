//! `dunlin verify`: outputs beside what they have to be.

use dunlin::Package;
use dunlin::kernels::{Backend, Best};
use serde_json::json;

use crate::arguments::Import;
use crate::difference::{Difference, compare};
use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File, Running, fill, numpy};
use crate::npz::Array;
use crate::samples::Samples;
use crate::table::table;

/// Runs golden vectors and counts the elements that differ.
#[derive(clap::Args, Clone, Debug)]
pub struct Verify {
    /// A package or an ONNX file
    pub model: String,
    /// npz file with in{k}_{i} and out{k}_{i}; without one, the vectors inside the package
    #[arg(long, value_name = "FILE.npz")]
    pub golden: Option<String>,
    /// Largest absolute difference that passes
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub tolerance: f64,
    /// Largest difference, over the output's largest magnitude, that passes as well
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub relative: f64,
    /// The kernels to use, 'all' for each that is there
    #[arg(long, default_value = "best")]
    pub backend: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// Runs one sample and compares its outputs.
///
/// # Errors
/// When an array does not fit or tract fails.
pub fn sample(
    running: &mut Running<'_, '_>,
    package: &Package<'_>,
    k: usize,
    inputs: &[Array],
    outputs: &[Array],
) -> Outcome<Vec<Difference>> {
    let manifest = package.manifest();
    let counts = [("in", inputs.len(), manifest.inputs().len()), ("out", outputs.len(), manifest.outputs().len())];
    for (prefix, got, wanted) in counts {
        if got != wanted {
            return Err(Failure::damaged(
                &format!("{prefix}{k}_{}", got.min(wanted)),
                format!("the vectors have {got} arrays '{prefix}{k}_*' where the model has {wanted}"),
            ));
        }
    }
    for (i, array) in inputs.iter().enumerate() {
        fill(running, i, &format!("in{k}_{i}"), array)?;
    }
    running.run()?;
    let mut differences = Vec::new();
    for (i, expected) in outputs.iter().enumerate() {
        let output = running.session.output(i);
        let Some(tensor) = output.tensor() else { continue };
        let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
        if expected.dtype != numpy(tensor.dtype) || expected.bytes.len() != output.bytes().len() {
            return Err(Failure::damaged(
                &format!("out{k}_{i}"),
                format!(
                    "has type {} and shape {:?}, the model gives {} and {shape:?}",
                    expected.dtype,
                    expected.shape,
                    numpy(tensor.dtype)
                ),
            ));
        }
        differences.push(compare(tensor.dtype, output.bytes(), &expected.bytes));
    }
    Ok(differences)
}

/// Differences by output over all samples.
///
/// # Errors
/// As [`sample`].
pub fn differences(path: &str, bytes: &[u8], backend: Best, samples: &Samples) -> Outcome<Vec<Difference>> {
    model::with(path, bytes, backend, |package, running| {
        let mut all = vec![Difference::default(); package.manifest().outputs().len()];
        for (k, (inputs, outputs)) in samples.inputs.iter().zip(&samples.outputs).enumerate() {
            for (sum, difference) in all.iter_mut().zip(sample(running, package, k, inputs, outputs)?) {
                *sum = sum.and(difference);
            }
        }
        Ok(all)
    })
}

impl Verify {
    /// Does it.
    ///
    /// # Errors
    /// [`Code::Differs`] when outputs differ by more than is tolerated; others name the file.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let given = self.golden.as_deref().map(Samples::read).transpose()?;
        let shapes = given.as_ref().map(Samples::shapes).unwrap_or_default();
        let file = File::open(&self.model, &self.import.options_for(shapes))?;
        let package = Package::open(&file.bytes).map_err(|e| Failure::damaged(&self.model, e))?;
        let samples = given.unwrap_or_else(|| Samples::of_package(&package));
        if samples.inputs.is_empty() {
            let place = self.golden.as_ref().unwrap_or(&self.model);
            return Err(Failure::damaged(
                place,
                "there are no golden vectors\n  hint: give an npz file with in0_0, out0_0, ... as --golden",
            ));
        }
        // A package knows its own tolerance.
        let tolerance = self.tolerance.max(f64::from(package.manifest().tolerance));
        let names = if self.backend == "all" {
            dunlin::kernels::available().collect()
        } else {
            vec![model::backend(&self.backend)?]
        };
        let mut rows =
            vec![["output", "backend", "elements", "differing", "largest", "relative"].map(str::to_owned).to_vec()];
        let mut records = Vec::new();
        let mut failed = false;
        for backend in names {
            let all = differences(&self.model, &file.bytes, backend, &samples)?;
            for (port, d) in package.manifest().outputs().zip(all) {
                failed |= d.largest > tolerance && d.relative > self.relative;
                rows.push(vec![
                    port.name.to_owned(),
                    backend.name().to_owned(),
                    d.elements.to_string(),
                    d.differing.to_string(),
                    format!("{:.3e}", d.largest),
                    format!("{:.3e}", d.relative),
                ]);
                records.push(json!({"output": port.name, "backend": backend.name(), "elements": d.elements,
                    "differing": d.differing, "largest": d.largest, "relative": d.relative}));
            }
        }
        if json {
            println!(
                "{}",
                json!({"model": self.model, "samples": samples.inputs.len(), "tolerance": tolerance,
                "relative": self.relative, "pass": !failed, "outputs": records})
            );
        } else {
            print!("{}", table(&rows, &[2, 3, 4, 5]));
        }
        if failed {
            return Err(Failure::new(
                Code::Differs,
                format!("{}: outputs differ by more than the tolerance of {tolerance}", self.model),
            ));
        }
        Ok(())
    }
}
