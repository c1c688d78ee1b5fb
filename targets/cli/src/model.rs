//! Packages and ONNX files, told apart by their content, ready to run.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin::kernels::{Backend, Best, available, best};
use dunlin::onnx::{self, Compiled, Executor, Options};
use dunlin::package::MAGIC;
use dunlin::{Arena, Block, DType, Model, Package, Session, ops};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Code, Failure, Outcome};
use crate::npz::Array;

/// A file's bytes.
///
/// # Errors
/// Names the file.
pub fn read(path: &str) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|e| Failure::new(Code::File, format!("{path}: {e}")))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// Names the file; nothing is left behind.
pub fn write(path: &str, bytes: &[u8]) -> Outcome<()> {
    let wrong = |e: std::io::Error| Failure::new(Code::File, format!("{path}: {e}"));
    let target = Path::new(path);
    let name = target.file_name().ok_or_else(|| Failure::new(Code::File, format!("{path}: names no file")))?;
    let part = target.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, target));
    if written.is_err() {
        // The error that counts is the one of writing.
        let _ = std::fs::remove_file(&part);
    }
    written.map_err(wrong)
}

/// A sign of life on a terminal.
#[must_use]
pub fn spinner(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// A backend by name.
///
/// # Errors
/// Lists those that are there.
pub fn backend(name: &str) -> Outcome<Best> {
    if name == "best" {
        return Ok(best());
    }
    available().find(|b| b.name() == name).ok_or_else(|| {
        let names: Vec<&str> = available().map(Backend::name).collect();
        Failure::new(
            Code::Usage,
            format!("this machine has no backend '{name}'\n  hint: it has {}, and 'best'", names.join(", ")),
        )
    })
}

/// A package in memory, and the compiler's knowledge of it when it came from an ONNX file.
pub struct File {
    /// The package.
    pub bytes: Block,
    /// Set for ONNX files.
    pub compiled: Option<Compiled>,
}

impl File {
    /// Opens a package, or compiles an ONNX file.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(path: &str, options: &Options) -> Outcome<Self> {
        let mut options = options.clone();
        if options.name.is_empty() {
            let stem = std::path::Path::new(path).file_stem();
            options.name = stem.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Self::from_bytes(path, &read(path)?, &options)
    }

    /// As [`open`](Self::open), from bytes.
    ///
    /// # Errors
    /// Names the file.
    pub fn from_bytes(path: &str, bytes: &[u8], options: &Options) -> Outcome<Self> {
        if bytes.starts_with(&MAGIC[..6]) {
            let bytes = Block::from(bytes);
            Package::open(&bytes).map_err(|e| Failure::damaged(path, e))?;
            return Ok(Self { bytes, compiled: None });
        }
        let bar = spinner("compiling");
        // tract's panics become errors; what the hook would print of them helps nobody.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let compiled = onnx::compile(bytes, options).map_err(|e| Failure::compiler(path, &e));
        std::panic::set_hook(hook);
        bar.finish_and_clear();
        let compiled = compiled?;
        Ok(Self { bytes: Block::from(&compiled.package[..]), compiled: Some(compiled) })
    }
}

/// A model in a session, for one call of `with`.
pub struct Running<'s, 'a> {
    /// The session.
    pub session: Session<'s, 'a, Best>,
    /// tract, for the steps the engine has no operator for.
    pub executor: Executor,
    /// Time from bytes to the first input, nanoseconds.
    pub load_ns: u64,
    /// Bytes of arena.
    pub arena: usize,
}

impl Running<'_, '_> {
    /// Runs once.
    ///
    /// # Errors
    /// When tract fails.
    pub fn run(&mut self) -> Outcome<()> {
        self.session.run_with(&mut self.executor).map_err(|_| {
            Failure::new(Code::Unsupported, format!("tract: {}", self.executor.last_error().unwrap_or("failed")))
        })
    }
}

/// Loads a package, gives its session to `f`.
///
/// # Errors
/// When the plan is not sound, and those of `f`.
pub fn with<T>(
    path: &str,
    bytes: &[u8],
    backend: Best,
    f: impl FnOnce(&Package<'_>, &mut Running<'_, '_>) -> Outcome<T>,
) -> Outcome<T> {
    let start = Instant::now();
    let package = Package::open(bytes).map_err(|e| Failure::damaged(path, e))?;
    let model = Model::load_hybrid(&package, ops::all()).map_err(|e| Failure::damaged(path, e))?;
    let blobs = package.foreign().into_iter().flat_map(|f| f.blobs());
    let executor = Executor::new(blobs).map_err(|e| Failure::compiler(path, &e))?;
    let arena = model.arena_len(backend);
    let mut memory = Block::zeroed(arena);
    let mut packed = Block::zeroed(model.packed_len(backend));
    model.pack(backend, &mut packed);
    let session = Session::with_packed(&model, Arena::new(&mut memory), &packed, backend)
        .map_err(|e| Failure::new(Code::Internal, format!("{path}: {e}")))?;
    let load_ns = start.elapsed().as_nanos() as u64;
    f(&package, &mut Running { session, executor, load_ns, arena })
}

/// numpy's code of a type.
#[must_use]
pub fn numpy(dtype: DType) -> &'static str {
    match dtype {
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I32 => "<i4",
        DType::F32 => "<f4",
        DType::I64 => "<i8",
        DType::Bool => "|b1",
    }
}

/// Fills an input from an array.
///
/// # Errors
/// Names the key, what is there and what is wanted.
pub fn fill(running: &mut Running<'_, '_>, i: usize, key: &str, array: &Array) -> Outcome<()> {
    let to = running.session.input(i);
    let Some(tensor) = to.tensor() else { return Err(Failure::damaged(key, "the model has no such input")) };
    let wanted = numpy(tensor.dtype);
    let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
    if array.dtype != wanted || array.bytes.len() != tensor.bytes() {
        return Err(Failure::damaged(
            key,
            format!(
                "has type {} and shape {:?}, the model takes {wanted} and {shape:?}\n  hint: convert it, for example with numpy's astype",
                array.dtype, array.shape
            ),
        ));
    }
    to.into_bytes().copy_from_slice(&array.bytes);
    Ok(())
}
