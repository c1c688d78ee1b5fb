//! The model's file.

use std::path::{Path, PathBuf};

/// A file, as a package.
pub(crate) struct Source {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The package.
    pub(crate) package: Vec<u8>,
    /// Whether the package was compiled from the file, which then is not the package.
    pub(crate) compiled: bool,
}

impl Source {
    /// Reads the file at `path` from the folder of the program's Cargo.toml, and compiles it if it is an ONNX file.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        let path = Path::new(&folder).join(path);
        let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if bytes.starts_with(&dunlin_package::MAGIC) {
            return Ok(Self { path, package: bytes, compiled: false });
        }
        let package = compile(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, package, compiled: true })
    }
}

#[cfg(feature = "onnx")]
fn compile(path: &Path, onnx: &[u8]) -> Result<Vec<u8>, String> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    // The program may be for any device, and has no tract to run what the engine lacks.
    let options = dunlin_compiler::Options { name, target: "any".into(), ..Default::default() };
    let compiled = dunlin_compiler::compile(onnx, &options).map_err(|error| error.to_string())?;
    Ok(compiled.package)
}

#[cfg(not(feature = "onnx"))]
fn compile(_: &Path, _: &[u8]) -> Result<Vec<u8>, String> {
    Err("not a package; hint: compile it with `dunlin compile`, or enable the feature `macros-onnx` of `dunlin`".into())
}
