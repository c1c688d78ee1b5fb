//! `dunlin bench`: how long a model takes.

use std::io::BufRead;
use std::time::{Duration, Instant};

use dunlin::Package;
use dunlin::kernels::Backend;
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::failure::{Failure, Outcome};
use crate::model::{self, File, Running, fill};
use crate::output::{Tone, paint};
use crate::samples::Samples;
use crate::table::{duration, grouped, significant};
use crate::verify;

/// Measures latency, load time and memory.
#[derive(clap::Args, Clone, Debug)]
pub struct Bench {
    /// Package or ONNX file
    pub model: String,
    /// npz file with inputs, and outputs to compare [default: golden vectors, or zeros]
    #[arg(long, value_name = "FILE.npz")]
    pub npz: Option<String>,
    /// Number of threads; the engine uses one
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Warm-up time in milliseconds
    #[arg(long, default_value_t = 60.0, value_name = "MS")]
    pub warmup_ms: f64,
    /// Measured time in milliseconds; at least three runs
    #[arg(long, default_value_t = 300.0, value_name = "MS")]
    pub min_ms: f64,
    /// Kernels to use
    #[arg(long, default_value = "best")]
    pub backend: String,
    /// Serve: one JSON result per `RUN <ms>` line on stdin
    #[arg(long)]
    pub serve: bool,
    /// Load and run a package once, print the peak memory of this process
    #[arg(long, hide = true)]
    pub rss_probe: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// Nanoseconds of each run, until `ms` milliseconds have passed, three runs at least.
fn time(running: &mut Running<'_, '_>, ms: f64) -> Outcome<Vec<u64>> {
    let end = Instant::now() + Duration::from_secs_f64(ms.clamp(0.0, 3.6e6) / 1e3);
    let mut all = Vec::new();
    while all.len() < 3 || Instant::now() < end {
        let start = Instant::now();
        running.run()?;
        all.push(start.elapsed().as_nanos() as u64);
    }
    Ok(all)
}

/// The value below which a share of sorted values lies.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// The most memory the process has had, KiB, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

/// Peak memory, KiB, of a fresh process that loads the package and runs it once: the compiler, if the model came from an ONNX
/// file, and this program's own buffers are not in it. `None` where that cannot be measured.
fn fresh_peak_kib(package: &[u8], backend: &str) -> Option<u64> {
    use std::io::Write as _;
    let program = std::env::current_exe().ok().filter(|p| p.file_stem().is_some_and(|name| name == "dunlin"))?;
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(package).ok()?;
    let mut command = std::process::Command::new(program);
    command.arg("bench").arg(file.path()).args(["--rss-probe", "--backend", backend]);
    let output = command.stderr(std::process::Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

impl Bench {
    fn probe(&self) -> Outcome<()> {
        let bytes = dunlin::Block::from(&model::read(&self.model)?[..]);
        model::with(&self.model, &bytes, model::backend(&self.backend)?, |_, running| running.run())?;
        if let Some(kib) = peak_kib() {
            println!("{kib}");
        }
        Ok(())
    }

    /// Measures, and prints the result.
    ///
    /// # Errors
    /// Names the file or array.
    pub fn run(&self, json: bool) -> Outcome<()> {
        if self.rss_probe {
            return self.probe();
        }
        if self.threads > 1 {
            crate::output::report("note", "the engine runs on one thread");
        }
        let given = self.npz.as_deref().map(Samples::read).transpose()?;
        let shapes = given.as_ref().map(Samples::shapes).unwrap_or_default();
        let start = Instant::now();
        let file = File::open(&self.model, &self.import.options_for(shapes))?;
        let compile_ns = file.compiled.as_ref().map(|_| start.elapsed().as_nanos() as u64);
        let package = Package::open(&file.bytes).map_err(|e| Failure::damaged(&self.model, e))?;
        let samples = given.unwrap_or_else(|| Samples::of_package(&package));
        let backend = model::backend(&self.backend)?;
        model::with(&self.model, &file.bytes, backend, |package, running| {
            let mut worst: Option<Vec<f64>> = None;
            for (k, (inputs, outputs)) in samples.inputs.iter().zip(&samples.outputs).enumerate() {
                if outputs.is_empty() {
                    continue;
                }
                let all = verify::sample(running, package, k, inputs, outputs)?;
                let before = worst.take().unwrap_or_else(|| vec![0.0; all.len()]);
                worst = Some(before.iter().zip(all).map(|(w, d)| w.max(d.largest)).collect());
            }
            for ((i, array), port) in samples.inputs.iter().flatten().enumerate().zip(package.manifest().inputs()) {
                fill(running, i, port.name, &format!("in0_{i}"), array)?;
            }
            time(running, self.warmup_ms)?;
            let rss_kb = fresh_peak_kib(&file.bytes, &self.backend);
            let common = json!({"model": self.model, "backend": backend.name(), "threads": 1,
                "load_ns": running.load_ns, "compile_ns": compile_ns, "arena_bytes": running.arena,
                "packed_bytes": running.packed, "package_bytes": file.bytes.len(), "rss_kb": rss_kb,
                "max_abs_diff": worst});
            if self.serve {
                for line in std::io::stdin().lock().lines() {
                    let Ok(line) = line else { break };
                    let Some(ms) = line.strip_prefix("RUN ").and_then(|ms| ms.trim().parse::<f64>().ok()) else {
                        return Err(Failure::damaged("stdin", format!("'{line}' is not 'RUN <ms>'")));
                    };
                    println!("{}", with_times(common.clone(), &time(running, ms)?));
                }
                return Ok(());
            }
            let times = time(running, self.min_ms)?;
            if json {
                println!("{}", with_times(common, &times));
                return Ok(());
            }
            let mut sorted = times;
            sorted.sort_unstable();
            let at = |share| duration(quantile(&sorted, share) as f64);
            println!(
                "{}  {}, 1 thread, {} runs",
                paint(Tone::Heading, &self.model),
                backend.name(),
                grouped(sorted.len() as u64)
            );
            println!("  p10 {}  median {}  p90 {}", at(0.1), paint(Tone::Heading, &at(0.5)), at(0.9));
            println!("  load {}", duration(running.load_ns as f64));
            println!(
                "  memory: package {} bytes, arena {} bytes, repacked weights {} bytes",
                grouped(file.bytes.len() as u64),
                grouped(running.arena as u64),
                grouped(running.packed as u64)
            );
            if let Some(kib) = rss_kb {
                println!("  peak of a process that loads and runs it: {} KB (this program included)", grouped(kib));
            }
            if let Some(ns) = compile_ns {
                println!("  compiled from ONNX in {}", duration(ns as f64));
            }
            if let Some(worst) = worst {
                let worst: Vec<String> = worst.into_iter().map(significant).collect();
                println!("  largest difference by output: {}", worst.join(", "));
            }
            Ok(())
        })
    }
}

fn with_times(mut record: Value, times: &[u64]) -> Value {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    record["ns"] = json!(times);
    record["p10_ns"] = json!(quantile(&sorted, 0.1));
    record["median_ns"] = json!(quantile(&sorted, 0.5));
    record["p90_ns"] = json!(quantile(&sorted, 0.9));
    record
}
