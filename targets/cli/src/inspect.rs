//! `dunlin inspect`: what is in a package.

mod svg;

use dunlin::package::op::Op;
use dunlin::package::plan::{Place, Plan, Tensor};
use dunlin::{DType, Package};
use serde_json::{Value, json};

use crate::arguments::Import;
use crate::failure::{Failure, Outcome};
use crate::model::{self, File};
use crate::table::{grouped, table};
use crate::trust::{Read, Signed};

/// Shows a model's ports, steps and memory.
#[derive(clap::Args, Clone, Debug)]
pub struct Inspect {
    /// A package or an ONNX file
    pub model: String,
    /// Show a signed document; with --root, whether it is to be believed
    #[arg(long, conflicts_with = "svg")]
    pub trust: bool,
    /// The root document that devices have
    #[arg(long, value_name = "ROOT", requires = "trust")]
    pub root: Option<String>,
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
        let package = Package::open(bytes).map_err(|e| Failure::damaged(path, e))?;
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
        json!({"name": m.name, "version": m.version, "producer": m.producer, "target": m.target, "exact": m.exact,
            "tolerance": m.tolerance, "digest": hex(&self.package.digest()), "source_digest": hex(&m.source_digest),
            "bytes": self.package.body().len(), "arena_bytes": m.arena_bytes, "scratch_bytes": m.scratch_bytes,
            "lower_bound_bytes": m.lower_bound_bytes, "weight_bytes": m.weight_bytes, "macs": m.macs,
            "golden": self.package.golden().map_or(0, |g| g.len()), "signatures": self.package.seal().signatures().count(),
            "inputs": m.inputs().map(port).collect::<Vec<_>>(), "outputs": m.outputs().map(port).collect::<Vec<_>>(),
            "sections": sections.collect::<Vec<_>>(), "steps": steps.collect::<Vec<_>>(),
            "memory": lives.collect::<Vec<_>>()})
    }

    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        let m = self.package.manifest();
        let mut text = format!(
            "{} {}  for {}, by {}\n  digest {}\n",
            m.name,
            m.version,
            m.target,
            m.producer,
            hex(&self.package.digest())
        );
        for (what, ports) in [("input", m.inputs()), ("output", m.outputs())] {
            for p in ports {
                let scale = if p.scale > 0.0 {
                    format!("  scale {:e}, zero point {}", p.scale, p.zero_point)
                } else {
                    String::new()
                };
                text.push_str(&format!("  {what} '{}'  {} {:?}{scale}\n", p.name, p.dtype.name(), p.shape()));
            }
        }
        text.push_str(&format!(
            "  {} bytes: {} of weights, {} golden vectors\n  arena {} bytes ({} at least), scratch {} bytes with scalar kernels\n  {} multiply-accumulates{}\n\n",
            grouped(self.package.body().len() as u64), grouped(m.weight_bytes.into()), self.package.golden().map_or(0, |g| g.len()),
            grouped(m.arena_bytes.into()), grouped(m.lower_bound_bytes.into()), grouped(m.scratch_bytes.into()), grouped(m.macs),
            if m.exact { ", the same bits on every target" } else { "" },
        ));
        let mut rows = vec![
            ["#", "operator", "runs in", "inputs", "output", "scale", "bytes", "weights", "MACs", "node"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for (i, s) in self.steps.iter().enumerate() {
            let shapes = |ids: &[u16]| -> String {
                let shape = |t: Tensor| format!("{}{}", t.dtype.name(), brackets(t.shape()));
                ids.iter().filter_map(|&id| self.plan.tensor(id)).map(shape).collect::<Vec<_>>().join(" ")
            };
            let outputs: Vec<Tensor> = s.outputs.iter().filter_map(|&id| self.plan.tensor(id)).collect();
            let scale = outputs
                .first()
                .filter(|t| t.scale > 0.0)
                .map_or(String::from("-"), |t| format!("{:.4e}{:+}", t.scale, t.zero_point));
            let note = if s.note.is_empty() { String::new() } else { format!("  ({})", s.note) };
            rows.push(vec![
                i.to_string(),
                s.op.name().to_owned(),
                executor(s.op).to_owned(),
                shapes(&s.inputs),
                shapes(&s.outputs),
                scale,
                outputs.iter().map(Tensor::bytes).sum::<usize>().to_string(),
                s.weights.to_string(),
                grouped(s.macs),
                format!("{}{note}", s.node),
            ]);
        }
        text.push_str(&table(&rows, &[0, 5, 6, 7, 8]));
        text
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
    /// Does it.
    ///
    /// # Errors
    /// Names the file.
    pub fn run(&self, json: bool) -> Outcome<()> {
        if self.trust {
            let bytes = model::read(&self.model)?;
            let root = self.root.as_deref().map(model::read).transpose()?;
            let path = self.root.as_deref().unwrap_or_default();
            let root = match root.as_deref().map(|bytes| Read::new(path, bytes)).transpose()?.map(|r| r.fields) {
                Some(Signed::Root(root)) => Some(root),
                Some(_) => return Err(Failure::damaged(path, "is no root document")),
                None => None,
            };
            return crate::sign::show(&self.model, &bytes, root.as_ref(), json);
        }
        let file = File::open(&self.model, &self.import.options())?;
        let described = Described::read(&self.model, &file.bytes)?;
        if let Some(path) = &self.svg {
            model::write(path, svg::draw(&described).as_bytes())?;
        }
        if json {
            println!("{}", described.json());
        } else {
            print!("{}", described.text());
        }
        Ok(())
    }
}
