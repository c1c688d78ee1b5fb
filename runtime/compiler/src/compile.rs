//! The whole way from bytes to bytes.

use std::fmt::Write as _;

use dunlin_engine::ops;
use dunlin_engine::{LoadError, Model};
use dunlin_kernels::Kernels;
use dunlin_package::{Builder, GoldenCase, ManifestDraft, PortDraft, StepNames};
use dunlin_package::{DType, Package};
use sha2::{Digest, Sha256};

use crate::emit::{Emitted, emit};
use crate::error::{CompileError, ErrorKind};
use crate::graph::{Graph, Id};
use crate::import::{self, Pins};
use crate::kernels;
use crate::lower::{self, Lowered};
use crate::memory::Buffer;
use crate::unsupported::{Missing, groups};
use crate::verify;

/// What to compile for, and what to put in.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The model's name.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// Shapes and values of inputs.
    pub pins: Pins,
    /// The device, `any` for all.
    pub target: String,
    /// Transposed convolutions between integers become integer steps too. ONNX Runtime computes them in floats, so that
    /// results may differ from its own by a step; they are smaller and faster.
    pub integer: bool,
    /// Vectors to put in the package; they are run first, and have to match.
    pub golden: Vec<Golden>,
    /// Puts the vectors in without running them, for tests of devices that have to refuse such a package.
    pub unchecked_golden: bool,
    /// Greatest difference to the golden outputs that is no error; 0 for none.
    pub tolerance: f32,
    /// What the outputs' elements mean, for the first output.
    pub labels: Vec<String>,
}

/// Inputs with the outputs they have to give, as little-endian bytes in the order of the model's ports.
#[derive(Clone, Debug, Default)]
pub struct Golden {
    /// Bytes of each input.
    pub inputs: Vec<Vec<u8>>,
    /// Bytes of each output.
    pub outputs: Vec<Vec<u8>>,
}

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The package's bytes.
    pub package: Vec<u8>,
    /// Nodes that another executor runs.
    pub missing: Vec<Missing>,
    /// The graph it was written from.
    pub graph: Graph,
    /// Bytes of arena for tensors.
    pub arena_bytes: usize,
    /// Bytes that the target's kernels need besides, as the manifest says.
    pub scratch_bytes: usize,
    /// The least that any memory plan could take.
    pub lower_bound: usize,
    /// Where each buffer lies, when it is used, and its name.
    pub buffers: Vec<(usize, Buffer, String)>,
}

/// Compiles an ONNX model.
///
/// # Errors
/// [`CompileError`] names the node, what is wrong and what to do.
pub fn compile(onnx: &[u8], options: &Options) -> Result<Compiled, CompileError> {
    // tract is trusted with models that were never meant to be loaded; its panics are errors here.
    std::panic::catch_unwind(|| compile_unguarded(onnx, options)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(CompileError::internal(format!("the compiler panicked: {text}"))
            .hint("the model is damaged, or this is a fault of the compiler: please report it with the model"))
    })
}

fn compile_unguarded(onnx: &[u8], options: &Options) -> Result<Compiled, CompileError> {
    let imported = import::import(onnx, &options.pins)?;
    let Lowered { mut graph, subgraphs, missing } = lower::lower(&imported, options.integer)?;
    let host = matches!(options.target.as_str(), "" | "any" | "host");
    if !missing.is_empty() && !host {
        return Err(refuse(&missing, &options.target));
    }
    graph.sweep();
    let emitted = emit(&graph)?;
    let (package, scratch_bytes) = write(onnx, options, &graph, &emitted, subgraphs)?;
    if !options.unchecked_golden {
        verify::golden(&package, &options.golden, options.tolerance)?;
    }
    Ok(Compiled {
        package,
        scratch_bytes,
        missing,
        graph,
        arena_bytes: emitted.arena_bytes,
        lower_bound: emitted.lower_bound,
        buffers: emitted.buffers,
    })
}

fn refuse(missing: &[Missing], target: &str) -> CompileError {
    let mut text = format!("target '{target}' has no tract, and the engine does not support:");
    let groups = groups(missing);
    for group in &groups {
        let _ = write!(text, "\n  {group}");
    }
    let advice = groups.iter().find_map(|group| group.reason.advice());
    CompileError::unsupported(text).hint(match advice {
        Some(advice) => advice.to_owned(),
        None => "replace these operators, or compile with --target host, where tract runs them".to_owned(),
    })
}

/// The engine's proof fails where the graph contradicts itself in a way that inference let pass.
fn unsound(error: &LoadError, graph: &Graph, emitted: &Emitted) -> CompileError {
    let refused = CompileError::invalid(format!("it makes no sound plan: {error}"))
        .hint("if onnx.checker.check_model with full_check=True accepts the model, please report it");
    match error {
        LoadError::MissingOp { step, .. } | LoadError::Overlap { step } | LoadError::Step { step, .. } => {
            match graph.steps.get(usize::from(*step)) {
                Some(step) => refused.at(&step.node, step.op.name()),
                None => refused,
            }
        }
        LoadError::OutOfBounds { tensor } | LoadError::Misaligned { tensor } => {
            let name = emitted.names.get(usize::from(*tensor)).map_or("", String::as_str);
            CompileError::invalid(format!("the constant or value '{name}' has no sound place: {error}"))
        }
        _ => refused,
    }
}

fn write(
    onnx: &[u8],
    options: &Options,
    graph: &Graph,
    emitted: &Emitted,
    foreign: Vec<Vec<u8>>,
) -> Result<(Vec<u8>, usize), CompileError> {
    let model = Model::<Kernels>::from_parts_hybrid(&emitted.plan, &emitted.weights, ops::all());
    let model = model.map_err(|e| unsound(&e, graph, emitted))?;
    let scratch_bytes = kernels::scratch_len(&model, if foreign.is_empty() { &options.target } else { "host" });
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let port = |labels: &[String]| {
        let labels = labels.to_vec();
        move |(name, id): &(String, Id)| {
            let tensor = &graph.tensors[*id];
            PortDraft {
                name: name.clone(),
                dtype: tensor.dtype,
                dims: tensor.dims.iter().map(|&d| d as u32).collect(),
                scale: tensor.scale,
                zero_point: if tensor.dtype == DType::U8 { tensor.zero_point + 128 } else { tensor.zero_point },
                labels: labels.clone(),
            }
        }
    };
    let builder = Builder {
        manifest: ManifestDraft {
            name: or(&options.name, "model"),
            version: or(&options.version, "0"),
            producer: concat!("dunlin ", env!("CARGO_PKG_VERSION")).to_owned(),
            target: if foreign.is_empty() { or(&options.target, "any") } else { "host".to_owned() },
            ops_version: 1,
            arena_bytes: emitted.arena_bytes as u32,
            scratch_bytes: u32::try_from(scratch_bytes).unwrap_or(u32::MAX),
            lower_bound_bytes: emitted.lower_bound as u32,
            macs: graph.steps.iter().map(|s| s.macs).sum(),
            source_digest: Sha256::digest(onnx).into(),
            exact: foreign.is_empty(),
            tolerance: options.tolerance,
            inputs: graph.inputs.iter().map(port(&[])).collect(),
            outputs: graph
                .outputs
                .iter()
                .take(1)
                .map(port(&options.labels))
                .chain(graph.outputs.iter().skip(1).map(port(&[])))
                .collect(),
            ..ManifestDraft::default()
        },
        foreign,
        plan: emitted.plan.clone(),
        weights: emitted.weights.clone(),
        golden: options
            .golden
            .iter()
            .map(|g| GoldenCase { inputs: g.inputs.clone(), outputs: g.outputs.clone() })
            .collect(),
        tensor_names: emitted.names.clone(),
        steps: graph.steps.iter().map(|s| StepNames { name: s.node.clone(), note: s.note.clone() }).collect(),
        ..Builder::default()
    };
    let bytes = builder.build().map_err(|e| CompileError::new(ErrorKind::TooLarge, e.to_string()))?;
    Package::open(&bytes).map_err(|e| CompileError::internal(e.to_string()))?;
    Ok((bytes, scratch_bytes))
}
