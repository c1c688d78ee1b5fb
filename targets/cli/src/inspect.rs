//! `dunlin inspect`: what is in a package.

mod svg;

use dunlin::onnx::{memory_on, ports};
use dunlin::package::op::Op;
use dunlin::package::plan::{Place, Plan, Tensor};
use dunlin::{DType, Package};
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::chip::{self, Chip};
use crate::compile::TARGETS;
use crate::diagnosis;
use crate::failure::{Code, Failure, Outcome};
use crate::model::{self, File};
use crate::output::{self, Tone, paint};
use crate::range::Range;
use crate::table::{grouped, significant, table};
use crate::trust::{Read, Signed};

/// Shows a model's ports, steps and memory.
#[derive(clap::Args, Clone, Debug)]
pub struct Inspect {
    /// Package, ONNX file, or with --trust a signed document
    pub model: String,
    /// Show a signed document; with --root, verify its signatures
    #[arg(long, conflicts_with_all = ["svg", "chip"])]
    pub trust: bool,
    /// Root document that devices trust
    #[arg(long, value_name = "ROOT", requires = "trust")]
    pub root: Option<String>,
    /// Compare with the flash and RAM of a microcontroller
    #[arg(long, value_parser = chip::parse)]
    pub chip: Option<Chip>,
    /// Draw the graph and the memory over time
    #[arg(long, value_name = "OUT.svg")]
    pub svg: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub import: Import,
}

/// One step, described.
pub struct StepLine {
    /// The operator.
    pub op: Op,
    /// Node names.
    pub node: String,
    /// What the compiler tells.
    pub note: String,
    /// Computed inputs: indices of tensors.
    pub inputs: Vec<u16>,
    /// Outputs: indices of tensors.
    pub outputs: Vec<u16>,
    /// Bytes of constants.
    pub weights: usize,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// A tensor in the arena and the steps between which its bytes are in use.
pub struct Life {
    /// Index in the plan.
    pub tensor: u16,
    /// Offset in the arena.
    pub offset: usize,
    /// Bytes.
    pub bytes: usize,
    /// First moment: step i runs at i + 1, inputs are there at 0.
    pub first: usize,
    /// Last moment; outputs stay one past the last step.
    pub last: usize,
}

/// A package, described.
pub struct Described<'a> {
    /// The package.
    pub package: Package<'a>,
    /// Its plan.
    pub plan: Plan<'a>,
    /// Steps in order.
    pub steps: Vec<StepLine>,
    /// Arena over time.
    pub lives: Vec<Life>,
}

impl<'a> Described<'a> {
    /// Reads a package.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(path: &str, bytes: &'a [u8]) -> Outcome<Self> {
        let package = Package::open(bytes).map_err(|e| Failure::package(path, bytes, e))?;
        let plan = Plan::read(package.plan_bytes()).map_err(|e| Failure::damaged(path, e))?;
        let names = package.names();
        let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
        let mut steps = Vec::new();
        for (i, step) in plan.steps().enumerate() {
            let tensor = |id: Option<u16>| id.and_then(|id| plan.tensor(id));
            let ids: Vec<u16> = (0..step.input_count()).filter_map(|i| step.input(i)).collect();
            let constant = |id: &u16| plan.tensor(*id).filter(|t| matches!(t.place, Place::Weights(_)));
            let macs = match (step.op, tensor(step.input(0)), tensor(step.input(1)), tensor(step.output(0))) {
                (Op::Conv | Op::ConvFloat, _, Some(w), Some(y)) => per(y, w, y),
                (Op::ConvTranspose | Op::ConvTransposeFloat, Some(x), Some(w), _) => per(x, w, x),
                (Op::MatMul | Op::MatMulFloat, Some(a), _, Some(y)) => y.len() as u64 * u64::from(last(a)),
                _ => 0,
            };
            steps.push(StepLine {
                op: step.op,
                node: text(names.and_then(|n| n.step(i))),
                note: text(names.and_then(|n| n.note(i))),
                weights: ids.iter().filter_map(constant).map(|t| t.bytes()).sum(),
                inputs: ids.iter().copied().filter(|id| constant(id).is_none()).collect(),
                outputs: (0..step.output_count()).filter_map(|i| step.output(i)).collect(),
                macs,
            });
        }
        let mut described = Self { package, plan, steps, lives: Vec::new() };
        described.lives = described.lives();
        Ok(described)
    }

    fn lives(&self) -> Vec<Life> {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.plan.tensor_count()];
        let mut touch = |id: u16, at: usize| {
            if let Some(slot) = lives.get_mut(usize::from(id)) {
                let (first, last) = slot.unwrap_or((at, at));
                *slot = Some((first.min(at), last.max(at)));
            }
        };
        for i in 0..self.plan.input_count() {
            self.plan.input(i).into_iter().for_each(|id| touch(id, 0));
        }
        for (i, step) in self.steps.iter().enumerate() {
            step.inputs.iter().chain(&step.outputs).for_each(|&id| touch(id, i + 1));
        }
        for i in 0..self.plan.output_count() {
            self.plan.output(i).into_iter().for_each(|id| touch(id, self.steps.len() + 1));
        }
        let described = lives.iter().zip(0u16..).filter_map(|(span, id)| {
            let ((first, last), tensor) = ((*span)?, self.plan.tensor(id)?);
            let Place::Arena(offset) = tensor.place else { return None };
            Some(Life { tensor: id, offset: offset as usize, bytes: tensor.bytes(), first, last })
        });
        described.collect()
    }

    /// A tensor's name.
    #[must_use]
    pub fn name(&self, id: u16) -> &str {
        self.package.names().and_then(|n| n.tensor(usize::from(id))).unwrap_or_default()
    }

    /// Everything as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let m = self.package.manifest();
        let port = |p: dunlin::package::Port<'_>| {
            json!({"name": p.name, "dtype": p.dtype.name(), "shape": p.shape(), "scale": p.scale,
                "zero_point": p.zero_point, "labels": p.labels().collect::<Vec<_>>()})
        };
        let tensor = |&id: &u16| {
            self.plan.tensor(id).map(|t| {
                json!({"name": self.name(id), "dtype": t.dtype.name(), "shape": t.shape(), "bytes": t.bytes(),
                    "scale": t.scale, "zero_point": t.zero_point})
            })
        };
        let steps = self.steps.iter().map(|s| {
            json!({"op": s.op.name(), "node": s.node, "note": s.note, "executor": executor(s.op), "macs": s.macs,
                "weight_bytes": s.weights, "inputs": s.inputs.iter().filter_map(tensor).collect::<Vec<_>>(),
                "outputs": s.outputs.iter().filter_map(tensor).collect::<Vec<_>>()})
        });
        let sections = self.package.sections().map(|s| {
            json!({"kind": s.known().map_or("unknown", dunlin::package::SectionKind::name), "code": s.kind, "bytes": s.len})
        });
        let lives = self.lives.iter().map(|l| {
            json!({"tensor": self.name(l.tensor), "offset": l.offset, "bytes": l.bytes, "first": l.first, "last": l.last})
        });
        let targets = self.memory().into_iter().map(|(target, bytes)| (target.to_owned(), json!(bytes)));
        json!({"name": m.name, "version": m.version, "producer": m.producer, "target": m.target, "exact": m.exact,
            "tolerance": m.tolerance, "digest": hex(&self.package.digest()), "source_digest": hex(&m.source_digest),
            "bytes": self.package.body().len(),
            "memory_bytes": self.memory_bytes(), "memory_by_target": targets.collect::<serde_json::Map<_, _>>(),
            "operators": self.operators(), "arena_bytes": m.arena_bytes, "scratch_bytes": m.scratch_bytes,
            "lower_bound_bytes": m.lower_bound_bytes, "weight_bytes": m.weight_bytes, "macs": m.macs,
            "golden": self.package.golden().map_or(0, |g| g.len()), "signatures": self.package.seal().signatures().count(),
            "inputs": m.inputs().map(port).collect::<Vec<_>>(), "outputs": m.outputs().map(port).collect::<Vec<_>>(),
            "sections": sections.collect::<Vec<_>>(), "steps": steps.collect::<Vec<_>>(),
            "memory": lives.collect::<Vec<_>>()})
    }

    /// Bytes of memory, tensors and scratch, that the manifest asks for.
    #[must_use]
    pub fn memory_bytes(&self) -> u32 {
        let m = self.package.manifest();
        m.arena_bytes.saturating_add(m.scratch_bytes)
    }

    /// Bytes of memory with the kernels of each target that a package of this target runs on, by target.
    #[must_use]
    pub fn memory(&self) -> Vec<(&'static str, usize)> {
        let own = self.package.manifest().target;
        let fits = |target: &&str| own == "any" || own == *target;
        let boards = TARGETS.into_iter().filter(|target| !matches!(*target, "any" | "host")).filter(fits);
        boards.filter_map(|target| Some((target, memory_on(&self.package, target).ok()?))).collect()
    }

    /// The operators that a program has to name which runs this package alone, as `dunlin::ops` has them.
    #[must_use]
    pub fn operators(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.steps.iter().filter(|s| s.op != Op::Foreign).map(|s| snake(s.op.name())).collect();
        names.sort();
        names.dedup();
        names.into_iter().map(|name| format!("ops::{name}::operator()")).collect()
    }

    fn heading(&self) -> String {
        let m = self.package.manifest();
        let mut text = format!(
            "{}  for {}, by {}\n  digest {}\n",
            paint(Tone::Heading, &format!("{} {}", m.name, m.version)),
            m.target,
            m.producer,
            hex(&self.package.digest())
        );
        for (i, p) in m.inputs().enumerate() {
            let range = Range::of_input(&self.plan, i).map_or_else(String::new, |range| {
                let number = |v: f32| significant(f64::from(v));
                format!("  values {} to {}", number(range.low), number(range.high))
            });
            text.push_str(&format!(
                "  input '{}'  {} {:?}{}{range}\n",
                p.name,
                p.dtype.name(),
                p.shape(),
                scale_of(&p)
            ));
        }
        for p in m.outputs() {
            text.push_str(&format!("  output '{}'  {} {:?}{}\n", p.name, p.dtype.name(), p.shape(), scale_of(&p)));
        }
        text.push_str(&format!(
            "  {} bytes: {} of weights, {} golden vectors\n",
            grouped(self.package.body().len() as u64),
            grouped(m.weight_bytes.into()),
            self.package.golden().map_or(0, |g| g.len())
        ));
        text.push_str(&format!(
            "  memory {} bytes: {} of tensors ({} at least), {} of scratch with the kernels of {}\n",
            grouped(self.memory_bytes().into()),
            grouped(m.arena_bytes.into()),
            grouped(m.lower_bound_bytes.into()),
            grouped(m.scratch_bytes.into()),
            if m.target == "any" { "any target" } else { m.target }
        ));
        let by_target = self.memory();
        if m.target == "any" && !by_target.is_empty() {
            text.push_str(&format!("  memory by target: {}\n", listed(&by_target)));
        }
        text.push_str(&format!(
            "  {} multiply-accumulates{}\n  operators to link alone: {}\n\n",
            grouped(m.macs),
            if m.exact { ", the same bits on every target" } else { "" },
            self.operators().join(", ")
        ));
        text
    }

    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.heading();
        let mut rows = vec![
            ["#", "operator", "runs in", "inputs", "output", "scale", "zero point", "bytes", "weights", "MACs", "node"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (i, s) in self.steps.iter().enumerate() {
            let shapes = |ids: &[u16]| -> String {
                let shape = |t: Tensor| format!("{}{}", t.dtype.name(), brackets(t.shape()));
                ids.iter().filter_map(|&id| self.plan.tensor(id)).map(shape).collect::<Vec<_>>().join(" ")
            };
            let outputs: Vec<Tensor> = s.outputs.iter().filter_map(|&id| self.plan.tensor(id)).collect();
            let quantization = outputs.first().filter(|t| t.scale > 0.0);
            let scale = quantization.map_or_else(|| "-".to_owned(), |t| significant(f64::from(t.scale)));
            let zero_point = quantization.map_or_else(|| "-".to_owned(), |t| t.zero_point.to_string());
            let note = if s.note.is_empty() { String::new() } else { format!("  ({})", s.note) };
            rows.push(vec![
                i.to_string(),
                s.op.name().to_owned(),
                executor(s.op).to_owned(),
                shapes(&s.inputs),
                shapes(&s.outputs),
                scale,
                zero_point,
                grouped(outputs.iter().map(Tensor::bytes).sum::<usize>() as u64),
                grouped(s.weights as u64),
                grouped(s.macs),
                format!("{}{note}", s.node),
            ]);
        }
        text.push_str(&table(&rows, &[0, 5, 6, 7, 8, 9]));
        text
    }
}

/// Scale and zero point of an input or output, where it is quantized.
fn scale_of(port: &dunlin::package::Port<'_>) -> String {
    if port.scale > 0.0 {
        return format!("  scale {}, zero point {}", significant(f64::from(port.scale)), port.zero_point);
    }
    String::new()
}

/// `CamelCase` as `snake_case`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// Targets by how much memory they need: those that need the same together.
fn listed(by_target: &[(&str, usize)]) -> String {
    let mut groups: Vec<(usize, Vec<&str>)> = Vec::new();
    for &(target, bytes) in by_target {
        match groups.iter_mut().find(|(b, _)| *b == bytes) {
            Some((_, targets)) => targets.push(target),
            None => groups.push((bytes, vec![target])),
        }
    }
    groups.sort_unstable_by_key(|(bytes, _)| *bytes);
    let groups: Vec<String> =
        groups.into_iter().map(|(bytes, targets)| format!("{} {}", targets.join("/"), grouped(bytes as u64))).collect();
    groups.join(", ")
}

/// Lists what an ONNX file declares, for people whose model does not compile.
fn show_declared(path: &str) {
    let Some((inputs, outputs)) = std::fs::read(path).ok().and_then(|bytes| ports(&bytes)) else { return };
    println!("{} does not compile; it declares", paint(Tone::Heading, path));
    for port in inputs {
        println!("  input {port}");
    }
    for port in outputs {
        println!("  output {port}");
    }
}

fn last(t: Tensor) -> u32 {
    t.shape().last().copied().unwrap_or(1)
}

/// Elements of `spread` times the weights that meet each channel of `by`.
fn per(spread: Tensor, weights: Tensor, by: Tensor) -> u64 {
    spread.len() as u64 * weights.len() as u64 / u64::from(last(by).max(1))
}

fn brackets(shape: &[u32]) -> String {
    format!("[{}]", shape.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

fn executor(op: Op) -> &'static str {
    if op == Op::Foreign { "tract" } else { "engine" }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a type is of whole numbers that stand for others.
fn quantized(t: Tensor) -> bool {
    matches!(t.dtype, DType::I8 | DType::U8)
}

impl Inspect {
    /// Prints the description.
    ///
    /// # Errors
    /// Names the file; when the model does not fit the chip; when a document's signatures do not verify.
    pub fn run(&self, json: bool) -> Outcome<()> {
        if self.trust {
            let bytes = model::read(&self.model)?;
            let root = self.root.as_deref().map(model::read).transpose()?;
            let path = self.root.as_deref().unwrap_or_default();
            let root = match root.as_deref().map(|bytes| Read::new(path, bytes)).transpose()?.map(|r| r.fields) {
                Some(Signed::Root(root)) => Some(root),
                Some(_) => return Err(Failure::damaged(path, "not a root document\n  hint: pass keys/N.root")),
                None => None,
            };
            return crate::sign::show(&self.model, &bytes, root.as_ref(), json);
        }
        let mut options = self.import.options();
        options.target = self.chip.map_or("any", |chip| chip.target).to_owned();
        let file = File::open(&self.model, &options).inspect_err(|_| {
            if !json {
                show_declared(&self.model);
            }
        })?;
        let described = Described::read(&self.model, &file.bytes)?;
        if let Some(path) = &self.svg {
            model::write(path, svg::draw(&described).as_bytes())?;
        }
        let fit = self.chip.map(|chip| self.fit(chip, &described)).transpose()?;
        if json {
            let mut record = described.json();
            if let Some((chip, memory)) = fit {
                record["chip"] = json!({"name": chip.name, "target": chip.target, "flash_bytes": chip.flash_bytes,
                    "ram_bytes": chip.ram_bytes, "memory_bytes": memory});
            }
            println!("{record}");
        } else {
            print!("{}", described.text());
            if let Some((chip, memory)) = fit {
                let line = chip.summary(file.bytes.len() as u64, memory);
                println!("\n{}", output::marked(Tone::Good, &line));
            }
            if let Some(compiled) = &file.compiled {
                diagnosis::warnings(compiled, &options.target).iter().for_each(diagnosis::Warning::show);
            }
        }
        Ok(())
    }

    /// Bytes of memory that the model needs on a chip.
    ///
    /// # Errors
    /// When it does not fit, or was compiled for another target.
    fn fit(&self, chip: Chip, described: &Described<'_>) -> Outcome<(Chip, u64)> {
        let target = described.package.manifest().target;
        if target != "any" && target != chip.target {
            let text = format!("is compiled for {target}, and {} is {}", chip.name, chip.target);
            let hint = format!("compile it again: dunlin compile MODEL.onnx --chip {} -o OUT.dunlin", chip.name);
            return Err(Failure::new(Code::Unsupported, format!("{}: {text}\n  hint: {hint}", self.model)));
        }
        let memory = memory_on(&described.package, chip.target).map_err(|e| Failure::damaged(&self.model, e))? as u64;
        chip.check(&self.model, described.package.body().len() as u64, memory)?;
        Ok((chip, memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_named_as_the_crate_has_them() {
        assert_eq!(snake("ConvTransposeFloat"), "conv_transpose_float");
        assert_eq!(snake("Add"), "add");
    }

    #[test]
    fn targets_with_the_same_memory_are_one_entry() {
        assert_eq!(listed(&[("m0", 32_000), ("m4", 19_140), ("m3", 32_000)]), "m4 19,140, m0/m3 32,000");
    }
}
