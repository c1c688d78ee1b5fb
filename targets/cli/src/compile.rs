//! `dunlin compile`: an ONNX file in, a package out.

use dunlin::onnx::{Compiled, groups};
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::chip::{self, Chip};
use crate::diagnosis::{self, Warning};
use crate::failure::{Code, Failure, Outcome};
use crate::inspect::Described;
use crate::model::{self, File};
use crate::output::{self, Tone};
use crate::samples::Samples;
use crate::table::grouped;

/// Compiles an ONNX file to a package.
#[derive(clap::Args, Clone, Debug)]
pub struct Compile {
    /// ONNX file
    pub model: String,
    /// Package to write
    #[arg(short, long, value_name = "OUT.dunlin")]
    pub output: String,
    /// Target platform; `any` and `host` run what the engine lacks in tract [default: any]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(TARGETS), conflicts_with = "chip")]
    pub target: Option<String>,
    /// Microcontroller: sets the target, and checks flash and RAM
    #[arg(long, value_parser = chip::parse)]
    pub chip: Option<Chip>,
    /// Compile even if the model does not fit the chip
    #[arg(long, requires = "chip")]
    pub no_fit_check: bool,
    /// Name of the model, for fleets [default: the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the model, free text
    #[arg(long, default_value = "0")]
    pub version: String,
    /// npz file with in{k}_{i} and out{k}_{i} to run and to put in
    #[arg(long, value_name = "FILE.npz")]
    pub golden: Option<String>,
    /// Maximum difference to the golden outputs, here and on devices
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub tolerance: f32,
    /// Text file that names the classes of the first output, one a line
    #[arg(long, value_name = "FILE.txt")]
    pub labels: Option<String>,
    /// Write what each node became, as JSON
    #[arg(long, value_name = "OUT.json")]
    pub report: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// `any` runs everywhere and, like `host`, lets tract run what the engine cannot; the others refuse such nodes.
pub const TARGETS: [&str; 12] = [
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
    /// The target that the options name.
    fn target(&self) -> &str {
        self.chip.map_or_else(|| self.target.as_deref().unwrap_or("any"), |chip| chip.target)
    }

    /// Compiles the file and writes the package.
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
        options.target = self.target().to_owned();
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
        let golden = self.golden.as_deref().unwrap_or_default();
        if self.golden.is_some() && samples.inputs.is_empty() {
            return Err(Failure::damaged(golden, "has no in0_0 and out0_0"));
        }
        let file = File::from_bytes(&self.model, &bytes, &options).map_err(|failure| match failure.code {
            // The golden vectors are at fault, not the model.
            Code::Differs => Failure::new(Code::Differs, failure.text.replacen(&self.model, golden, 1)),
            _ => failure,
        })?;
        let Some(compiled) = file.compiled else {
            return Err(Failure::damaged(&self.model, "is no ONNX file"));
        };
        samples.check(&file.bytes)?;
        let memory = (compiled.arena_bytes + compiled.scratch_bytes) as u64;
        if let Some(chip) = self.chip.filter(|_| !self.no_fit_check) {
            chip.check(&self.model, compiled.package.len() as u64, memory)?;
        }
        model::write(&self.output, &compiled.package)?;
        if let Some(path) = &self.report {
            let mut text = self.report(&file.bytes, &compiled)?.to_string();
            text.push('\n');
            model::write(path, text.as_bytes())?;
        }
        let warnings = diagnosis::warnings(&compiled, self.target());
        if json {
            println!("{}", self.json(&compiled, samples.inputs.len(), &warnings));
        } else {
            self.show(&compiled, samples.inputs.len());
            warnings.iter().for_each(Warning::show);
        }
        Ok(())
    }

    fn json(&self, compiled: &Compiled, golden: usize, warnings: &[Warning]) -> Value {
        let macs: u64 = compiled.graph.steps.iter().map(|s| s.macs).sum();
        json!({"package": self.output, "bytes": compiled.package.len(), "target": self.target(),
            "chip": self.chip.map(|chip| chip.name), "memory_bytes": compiled.arena_bytes + compiled.scratch_bytes,
            "arena_bytes": compiled.arena_bytes, "scratch_bytes": compiled.scratch_bytes,
            "lower_bound_bytes": compiled.lower_bound, "macs": macs, "steps": compiled.graph.steps.len(),
            "tract_nodes": compiled.missing.len(), "golden": golden,
            "warnings": warnings.iter().map(Warning::json).collect::<Vec<_>>()})
    }

    fn show(&self, compiled: &Compiled, golden: usize) {
        let bytes = compiled.package.len() as u64;
        let memory = (compiled.arena_bytes + compiled.scratch_bytes) as u64;
        let macs: u64 = compiled.graph.steps.iter().map(|s| s.macs).sum();
        println!("{}", output::marked(Tone::Good, &format!("{}  {} bytes", self.output, grouped(bytes))));
        let steps = grouped(compiled.graph.steps.len() as u64);
        println!("  {steps} steps, {} multiply-accumulates", grouped(macs));
        let over = 100.0 * (compiled.arena_bytes as f64 / compiled.lower_bound.max(1) as f64 - 1.0).max(0.0);
        println!(
            "  memory {} bytes on {}: {} of tensors ({over:.1} % over the lower bound), {} of scratch",
            grouped(memory),
            if self.target() == "any" { "any target" } else { self.target() },
            grouped(compiled.arena_bytes as u64),
            grouped(compiled.scratch_bytes as u64)
        );
        if let Some(chip) = self.chip {
            println!("  {}", chip.summary(bytes, memory));
        }
        if golden > 0 {
            println!("  {golden} golden vectors ran and match");
        }
        if !compiled.missing.is_empty() {
            println!("  {} nodes run in tract, on hosts only:", grouped(compiled.missing.len() as u64));
            for group in groups(&compiled.missing) {
                println!("    {group}");
            }
        }
    }

    fn report(&self, package: &[u8], compiled: &Compiled) -> Outcome<Value> {
        let mut report = Described::read(&self.model, package)?.json();
        report["source"] = json!(self.model);
        report["arena_over_lower_bound"] = json!(compiled.arena_bytes as f64 / compiled.lower_bound.max(1) as f64);
        report["tract_nodes"] = compiled
            .missing
            .iter()
            .map(|m| json!({"node": m.node, "op": m.op, "reason": m.reason.to_string()}))
            .collect();
        Ok(report)
    }
}
