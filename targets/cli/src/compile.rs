//! `dunlin compile`: an ONNX file in, a package out.

use dunlin::kernels::best;
use dunlin::onnx::Compiled;
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::failure::{Code, Failure, Outcome};
use crate::inspect::Described;
use crate::model::{self, File};
use crate::samples::Samples;
use crate::table::grouped;
use crate::verify;

/// Compiles an ONNX file to a package.
#[derive(clap::Args, Clone, Debug)]
pub struct Compile {
    /// The ONNX file
    pub model: String,
    /// The package to write
    #[arg(short, long, value_name = "OUT.dunlin")]
    pub output: String,
    /// Where it will run; hosts have tract for what the engine has not
    #[arg(long, default_value = "any", value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    pub target: String,
    /// The model's name, for fleets; the file's name when absent
    #[arg(long)]
    pub name: Option<String>,
    /// The model's version, as its authors write it
    #[arg(long, default_value = "0")]
    pub version: String,
    /// Vectors to put into the package, npz with in{k}_{i} and out{k}_{i}; they are run first and have to match
    #[arg(long, value_name = "FILE.npz")]
    pub golden: Option<String>,
    /// Largest difference to the golden outputs that is no error, here and on devices
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub tolerance: f32,
    /// What the first output's elements mean: a text file, one label a line
    #[arg(long, value_name = "FILE.txt")]
    pub labels: Option<String>,
    /// Where to write what became of each node, as JSON
    #[arg(long, value_name = "OUT.json")]
    pub report: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// `any` runs everywhere and, like `host`, lets tract run what the engine cannot; the others refuse such nodes.
const TARGETS: [&str; 12] = [
    "any",
    "host",
    "aarch64",
    "cortex-m0",
    "cortex-m3",
    "cortex-m4",
    "cortex-m7",
    "cortex-m33",
    "cortex-m55",
    "riscv32",
    "wasm32",
    "xtensa",
];

impl Compile {
    /// Does it.
    ///
    /// # Errors
    /// Names the file, the node, what is wrong and what to do; nothing is written then.
    pub fn run(&self, json: bool) -> Outcome<()> {
        let bytes = model::read(&self.model)?;
        let samples = self.golden.as_deref().map(Samples::read).transpose()?.unwrap_or_default();
        let mut options = self.import.options_for(samples.shapes());
        let stem = std::path::Path::new(&self.model).file_stem().map(|s| s.to_string_lossy().into_owned());
        options.name = self.name.clone().or(stem).unwrap_or_default();
        options.version.clone_from(&self.version);
        options.target.clone_from(&self.target);
        options.tolerance = self.tolerance;
        options.golden = samples.golden();
        if let Some(path) = &self.labels {
            let text =
                String::from_utf8(model::read(path)?).map_err(|_| Failure::damaged(path, "is not UTF-8 text"))?;
            options.labels = text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        }
        if bytes.starts_with(&dunlin::package::MAGIC) {
            return Err(Failure::damaged(&self.model, "is a package already\n  hint: compile takes the ONNX file"));
        }
        let file = File::from_bytes(&self.model, &bytes, &options)?;
        let Some(compiled) = file.compiled else {
            return Err(Failure::damaged(&self.model, "is no ONNX file"));
        };
        let golden = self.golden.as_deref().unwrap_or_default();
        if self.golden.is_some() {
            if samples.inputs.is_empty() {
                return Err(Failure::damaged(golden, "has no in0_0 and out0_0"));
            }
            let all = verify::differences(&self.model, &file.bytes, best(), &samples)?;
            for ((name, _), d) in compiled.graph.outputs.iter().zip(all) {
                if d.largest > f64::from(self.tolerance) {
                    return Err(Failure::new(
                        Code::Differs,
                        format!(
                            "{golden}: output '{name}' differs in {} of {} elements, by {:e} at most\n  hint: vectors of ONNX Runtime's int8 kernels match exactly (session.qdqisint8allowed=1); --tolerance allows a difference",
                            d.differing, d.elements, d.largest
                        ),
                    ));
                }
            }
        }
        model::write(&self.output, &compiled.package)?;
        if let Some(path) = &self.report {
            let mut text = self.report(&file.bytes, &compiled)?.to_string();
            text.push('\n');
            model::write(path, text.as_bytes())?;
        }
        let macs: u64 = compiled.graph.steps.iter().map(|s| s.macs).sum();
        let foreign = compiled.missing.len();
        if json {
            println!(
                "{}",
                json!({"package": self.output, "bytes": compiled.package.len(),
                "arena_bytes": compiled.arena_bytes, "lower_bound_bytes": compiled.lower_bound, "macs": macs,
                "steps": compiled.graph.steps.len(), "tract_nodes": foreign, "golden": samples.inputs.len()})
            );
            return Ok(());
        }
        println!("{}  {} bytes", self.output, grouped(compiled.package.len() as u64));
        let over = if compiled.lower_bound == 0 {
            0.0
        } else {
            100.0 * (compiled.arena_bytes as f64 / compiled.lower_bound as f64 - 1.0)
        };
        println!(
            "  {} steps, {} multiply-accumulates, {} bytes of tensors ({over:.1} % over the lower bound)",
            compiled.graph.steps.len(),
            grouped(macs),
            grouped(compiled.arena_bytes as u64)
        );
        if !samples.inputs.is_empty() {
            println!("  {} golden vectors ran and match", samples.inputs.len());
        }
        if foreign > 0 {
            println!("  {foreign} nodes run in tract, on hosts only:");
            for m in &compiled.missing {
                println!("    {} ({}): {}", m.node, m.op, m.reason);
            }
        }
        Ok(())
    }

    fn report(&self, package: &[u8], compiled: &Compiled) -> Outcome<Value> {
        let mut report = Described::read(&self.model, package)?.json();
        report["source"] = json!(self.model);
        report["arena_over_lower_bound"] = json!(compiled.arena_bytes as f64 / compiled.lower_bound.max(1) as f64);
        report["tract_nodes"] =
            compiled.missing.iter().map(|m| json!({"node": m.node, "op": m.op, "reason": m.reason})).collect();
        Ok(report)
    }
}
