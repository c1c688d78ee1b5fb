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
use crate::recognize::{by_name, recognize};

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
        if let Some(found) = by_name(path) {
            return Err(Failure::damaged(path, found.text()));
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
        if let Some(found) = recognize(bytes).or_else(|| by_name(path)) {
            return Err(Failure::damaged(path, found.text()));
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
    /// Bytes of weights that were repacked for the backend.
    pub packed: usize,
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
    let packed = packed.len();
    f(&package, &mut Running { session, executor, load_ns, arena, packed })
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

/// Returns the name that people give to a numpy type code; the code where there is none.
#[must_use]
pub fn plain_type(code: &str) -> &str {
    match code {
        "|b1" => "bool",
        "|i1" => "int8",
        "|u1" => "uint8",
        "<i2" => "int16",
        "<u2" => "uint16",
        "<i4" => "int32",
        "<u4" => "uint32",
        "<i8" => "int64",
        "<u8" => "uint64",
        "<f2" => "float16",
        "<f4" => "float32",
        "<f8" => "float64",
        other => other,
    }
}

fn plain(code: &str, shape: &[usize]) -> String {
    let extents: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{} [{}]", plain_type(code), extents.join(","))
}

/// Compares an array with the input or output that it is for.
///
/// # Errors
/// Names the array, what it is and what the model has; the hint says which of type and shape to change.
pub fn check_array(key: &str, array: &Array, side: &str, port: &str, dtype: DType, shape: &[u32]) -> Outcome<()> {
    let wanted = numpy(dtype);
    let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
    let (has, takes) = (array.shape.iter().product::<usize>(), shape.iter().product::<usize>());
    if array.dtype == wanted && has == takes {
        return Ok(());
    }
    let name = plain_type(wanted);
    let hint = match (array.dtype == wanted, has == takes) {
        (false, true) => format!("convert it with numpy: array.astype('{name}')"),
        (true, false) => format!("it has {has} elements, and the model takes {takes}: is it for another model?"),
        _ => format!("both type and number of elements ({has}, not {takes}) differ: is it for another model?"),
    };
    Err(Failure::damaged(
        key,
        format!(
            "is {}, the model's {side} '{port}' is {}\n  hint: {hint}",
            plain(&array.dtype, &array.shape),
            plain(wanted, &shape)
        ),
    ))
}

/// Fills an input from an array.
///
/// # Errors
/// Names the key, what is there and what is wanted.
pub fn fill(running: &mut Running<'_, '_>, i: usize, name: &str, key: &str, array: &Array) -> Outcome<()> {
    let to = running.session.input(i);
    let Some(tensor) = to.tensor() else { return Err(Failure::damaged(key, "the model has no such input")) };
    check_array(key, array, "input", name, tensor.dtype, tensor.shape())?;
    to.into_bytes().copy_from_slice(&array.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said_in_plain_names() {
        let array = |dtype: &str, shape: &[usize]| Array { dtype: dtype.into(), shape: shape.into(), bytes: vec![] };
        let told = |array: &Array| {
            check_array("in0_0", array, "input", "image", DType::F32, &[1, 1, 28, 28]).expect_err("does not fit").text
        };
        let both = told(&array("|i1", &[1, 49, 10, 1]));
        assert!(both.contains("int8 [1,49,10,1]") && both.contains("'image' is float32 [1,1,28,28]"), "{both}");
        assert!(both.contains("another model") && !both.contains("astype"), "{both}");
        let dtype = told(&array("<f8", &[784]));
        assert!(dtype.contains("astype('float32')"), "{dtype}");
        let shape = told(&array("<f4", &[2, 784]));
        assert!(shape.contains("1568 elements") && !shape.contains("astype"), "{shape}");
        assert!(check_array("x", &array("<f4", &[784]), "input", "image", DType::F32, &[1, 1, 28, 28]).is_ok());
    }
}
