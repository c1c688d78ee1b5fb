//! Compiling and running one form of a case.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dunlin::onnx::{self, ErrorKind, Executor, Options};
use dunlin::{Arena, Block, DType, Model, Package, Session, kernels, ops};

use super::case::Port;
use super::wire::{BOOL, FLOAT, INT8, INT32, INT64, Tensor, UINT8};

/// What became of one form of a case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Right, all of it in the engine.
    Native,
    /// Right, some of it in tract.
    Hybrid,
    /// The compiler said what it cannot do.
    Refused(String),
    /// Wrong numbers, or a run that failed.
    Wrong(String),
    /// A panic, or an error that the compiler calls its own fault.
    Fault(String),
}

impl Outcome {
    /// Whether it is one that should never be.
    pub(crate) fn failed(&self) -> bool {
        matches!(self, Self::Wrong(_) | Self::Fault(_))
    }
}

thread_local! {
    /// What the case of this thread panicked with; `None` while none is running.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a panic said, and where, without the folders of the machine that built it.
fn told(info: &std::panic::PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(String::new, |l| {
        let parts: Vec<&str> = l.file().split(['/', '\\']).collect();
        let from = parts.iter().rposition(|p| *p == "src").unwrap_or(1).saturating_sub(1);
        format!(" at {}:{}", parts[from..].join("/"), l.line())
    });
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref().copied());
    format!("panic: {}{place}", text.unwrap_or("no reason")).replace('\n', " ")
}

/// Keeps what panics of cases say for the report instead of printing it.
pub(crate) fn quiet_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let running = PANIC.with_borrow_mut(|text| text.as_mut().map(|t| *t = told(info)).is_some());
        if !running {
            before(info);
        }
    }));
}

/// Named tensors of a case.
pub(crate) type Named<'c> = [(&'c Port, &'c Tensor)];

/// Compiles a model, runs it, and compares.
pub(crate) fn run(model: &[u8], inputs: &Named<'_>, outputs: &Named<'_>, tolerance: (f64, f64)) -> Outcome {
    caught(|| attempt(model, inputs, outputs, tolerance))
}

/// Compiles a model whose data is no tensors, so that it cannot be run here.
pub(crate) fn compile_only(model: &[u8]) -> Outcome {
    let compile = || match onnx::compile(model, &Options::default()) {
        Ok(_) => Outcome::Refused("compiled, but its data is no tensors".into()),
        Err(e) if e.kind() == ErrorKind::Internal => Outcome::Fault(format!("internal error: {}", line(&e))),
        Err(e) => Outcome::Refused(line(&e)),
    };
    caught(compile)
}

fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    PANIC.set(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let told = PANIC.take().unwrap_or_default();
    outcome.unwrap_or(Outcome::Fault(told))
}

fn attempt(model: &[u8], inputs: &Named<'_>, outputs: &Named<'_>, tolerance: (f64, f64)) -> Outcome {
    let mut options = Options::default();
    for (port, tensor) in inputs.iter().filter(|(p, _)| !p.fixed) {
        options.pins.shapes.insert(port.name.clone(), tensor.dims.clone());
    }
    let compiled = match onnx::compile(model, &options) {
        Ok(compiled) => compiled,
        Err(e) if e.kind() == ErrorKind::Internal => return Outcome::Fault(format!("internal error: {}", line(&e))),
        Err(e) => return Outcome::Refused(line(&e)),
    };
    let names: Vec<&str> = compiled.graph.inputs.iter().map(|(name, _)| name.as_str()).collect();
    let fed: Option<Vec<&Tensor>> =
        names.iter().map(|n| inputs.iter().find(|(p, _)| &p.name == n).map(|(_, t)| *t)).collect();
    let Some(fed) = fed else { return Outcome::Wrong(format!("the compiled model wants inputs {names:?}")) };
    match execute(&compiled.package, &fed, outputs, tolerance) {
        Err(why) => Outcome::Wrong(why),
        Ok(()) if compiled.missing.is_empty() => Outcome::Native,
        Ok(()) => Outcome::Hybrid,
    }
}

fn line(error: &impl ToString) -> String {
    error.to_string().replace('\n', " ").replace("   hint:", "; hint:")
}

/// Runs a package with the portable kernels and with the best of this machine, which have to agree to the bit.
fn execute(bytes: &[u8], inputs: &[&Tensor], outputs: &Named<'_>, tolerance: (f64, f64)) -> Result<(), String> {
    let bytes = Block::from(bytes);
    let package = Package::open(&bytes).map_err(|e| format!("package: {e}"))?;
    let model = Model::load_hybrid(&package, ops::all()).map_err(|e| format!("load: {e}"))?;
    let mut first: Option<Vec<Vec<u8>>> = None;
    for backend in [kernels::Best::Scalar(kernels::Scalar), kernels::best()] {
        let blobs = package.foreign().into_iter().flat_map(|f| f.blobs());
        let mut executor = Executor::new(blobs).map_err(|e| format!("tract: {}", line(&e)))?;
        let mut arena = Block::zeroed(model.arena_len(backend));
        let mut packed = Block::zeroed(model.packed_len(backend));
        model.pack(backend, &mut packed);
        let mut session =
            Session::with_packed(&model, Arena::new(&mut arena), &packed, backend).map_err(|e| e.to_string())?;
        for (i, tensor) in inputs.iter().enumerate() {
            let to = session.input(i);
            if to.tensor().map(|t| number_of(t.dtype)) != Some(tensor.dtype) {
                return Err(format!("input {i} has another type"));
            }
            let to = to.into_bytes();
            if to.len() != tensor.bytes.len() {
                return Err(format!("input {i} takes {} bytes, not {}", to.len(), tensor.bytes.len()));
            }
            to.copy_from_slice(&tensor.bytes);
        }
        if session.run_with(&mut executor).is_err() {
            return Err(format!("run: tract: {}", executor.last_error().unwrap_or("no reason")));
        }
        let mut results = Vec::new();
        for (i, (port, expected)) in outputs.iter().enumerate() {
            let got = session.output(i);
            let Some(tensor) = got.tensor() else { return Err(format!("no output {i}")) };
            let dims: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
            if (number_of(tensor.dtype), &dims) != (expected.dtype, &expected.dims) {
                let name = tensor.dtype.name();
                return Err(format!(
                    "'{}' is {name} {dims:?}, type {} {:?} expected",
                    port.name, expected.dtype, expected.dims
                ));
            }
            compare(got.bytes(), expected, tolerance).map_err(|why| format!("'{}': {why}", port.name))?;
            results.push(got.bytes().to_vec());
        }
        if first.get_or_insert_with(|| results.clone()) != &results {
            return Err("the portable kernels and this machine's disagree".into());
        }
    }
    Ok(())
}

fn number_of(dtype: DType) -> u64 {
    match dtype {
        DType::I8 => INT8,
        DType::U8 => UINT8,
        DType::I32 => INT32,
        DType::F32 => FLOAT,
        DType::I64 => INT64,
        DType::Bool => BOOL,
    }
}

/// Elements as numbers; whole ones below 2^53 lose nothing.
fn values(dtype: u64, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        FLOAT => bytes.as_chunks().0.iter().map(|&c| f64::from(f32::from_le_bytes(c))).collect(),
        INT32 => bytes.as_chunks().0.iter().map(|&c| f64::from(i32::from_le_bytes(c))).collect(),
        INT64 => bytes.as_chunks().0.iter().map(|&c| i64::from_le_bytes(c) as f64).collect(),
        INT8 => bytes.iter().map(|&b| f64::from(b.cast_signed())).collect(),
        _ => bytes.iter().map(|&b| f64::from(b)).collect(),
    }
}

/// Floats within the tolerance as ONNX's own runner takes it, anything else to the bit.
fn compare(got: &[u8], expected: &Tensor, (relative, absolute): (f64, f64)) -> Result<(), String> {
    if got == expected.bytes {
        return Ok(());
    }
    let float = expected.dtype == FLOAT;
    let (mine, theirs) = (values(expected.dtype, got), values(expected.dtype, &expected.bytes));
    if mine.len() != theirs.len() {
        return Err(format!("{} elements, {} expected", mine.len(), theirs.len()));
    }
    let near = |a: f64, b: f64| {
        let close = float && a.is_finite() && b.is_finite() && (a - b).abs() <= absolute + relative * b.abs();
        a == b || (a.is_nan() && b.is_nan()) || close
    };
    let wrong: Vec<usize> = (0..mine.len()).filter(|&i| !near(mine[i], theirs[i])).collect();
    let Some(&at) = wrong.first() else {
        return if float { Ok(()) } else { Err("whole numbers beyond 2^53 differ".into()) };
    };
    let off_by_one = !float && wrong.iter().all(|&i| (mine[i] - theirs[i]).abs() <= 1.0);
    Err(format!(
        "{}{} of {} elements differ, the first at {at}: {} instead of {}",
        if off_by_one { "off by one: " } else { "" },
        wrong.len(),
        mine.len(),
        mine[at],
        theirs[at]
    ))
}
