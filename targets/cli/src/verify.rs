//! `dunlin verify`: outputs beside what they have to be.

use dunlin::Package;
use dunlin::kernels::{Backend, Best};
use serde_json::json;

use crate::arguments::Import;
use crate::difference::{Difference, compare};
use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File, Running, check_array, fill};
use crate::npz::Array;
use crate::output::{self, Tone};
use crate::samples::Samples;
use crate::table::{grouped, significant, table};

/// Runs golden vectors and counts the elements that differ.
#[derive(clap::Args, Clone, Debug)]
pub struct Verify {
    /// Package or ONNX file
    pub model: String,
    /// npz file with in{k}_{i} and out{k}_{i} [default: the package's]
    #[arg(long, value_name = "FILE.npz")]
    pub golden: Option<String>,
    /// Maximum absolute difference
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub tolerance: f64,
    /// Maximum difference relative to the output's largest value
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub relative: f64,
    /// Kernels to use; 'all' for each of this machine
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
    for ((i, array), port) in inputs.iter().enumerate().zip(manifest.inputs()) {
        fill(running, i, port.name, &format!("in{k}_{i}"), array)?;
    }
    running.run()?;
    let mut differences = Vec::new();
    for ((i, expected), port) in outputs.iter().enumerate().zip(manifest.outputs()) {
        let output = running.session.output(i);
        let Some(tensor) = output.tensor() else { continue };
        check_array(&format!("out{k}_{i}"), expected, "output", port.name, tensor.dtype, tensor.shape())?;
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
        let backends = names.len();
        let mut equal = 0;
        for backend in names {
            let all = differences(&self.model, &file.bytes, backend, &samples)?;
            for (port, d) in package.manifest().outputs().zip(all) {
                let differs = d.largest > tolerance && d.relative > self.relative;
                failed |= differs;
                equal += usize::from(!differs);
                rows.push(vec![
                    port.name.to_owned(),
                    backend.name().to_owned(),
                    grouped(d.elements as u64),
                    grouped(d.differing as u64),
                    significant(d.largest),
                    significant(d.relative),
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
            let allowed = if tolerance > 0.0 || self.relative > 0.0 { "within the tolerance" } else { "equal" };
            let vectors = samples.inputs.len();
            let line = format!(
                "{equal} of {} outputs {allowed}: {vectors} golden vectors on {backends} {}",
                rows.len() - 1,
                if backends == 1 { "backend" } else { "backends" }
            );
            println!("{}", output::marked(if failed { Tone::Bad } else { Tone::Good }, &line));
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
