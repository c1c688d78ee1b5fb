//! The models that suites and figures run on: the repository's own, and those of a folder when one is given.

use std::path::Path;

use dunlin::onnx::Options;
use dunlin_cli::failure::Outcome;
use dunlin_cli::samples::Samples;

/// The folder's environment variable: `NAME.onnx` with `NAME.int8.npz` (exact) or `NAME.npz` (floats) in it.
pub const FOLDER: &str = "DUNLIN_MODEL_FOLDER";

/// One model with its vectors.
pub struct Item {
    /// Its name.
    pub name: String,
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Inputs and outputs.
    pub samples: Samples,
    /// Whether the outputs are those of integer kernels and have to match bit for bit.
    pub exact: bool,
}

impl Item {
    /// Options that fix open shapes as the vectors have them.
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::default();
        options.pins.defaults = self.samples.shapes();
        options
    }
}

/// The repository's models, then those of `folder`, or of the environment's.
///
/// # Errors
/// Names the file that cannot be read.
pub fn corpus(folder: Option<&str>) -> Outcome<Vec<Item>> {
    let mut items = Vec::new();
    for artifact in dunlin_models::ALL {
        let name = format!("{}-{}", artifact.name, artifact.version);
        let samples = Samples::from_bytes(&name, artifact.golden)?;
        items.push(Item { name, onnx: artifact.onnx.to_vec(), samples, exact: true });
    }
    let given = folder.map(str::to_owned).or_else(|| std::env::var(FOLDER).ok());
    let Some(folder) = given else {
        eprintln!("only the repository's own models: {FOLDER} names no folder with more");
        return Ok(items);
    };
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .map_err(|e| dunlin_cli::failure::Failure::new(dunlin_cli::failure::Code::File, format!("{folder}: {e}")))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = |suffix: &str| Path::new(&folder).join(format!("{name}{suffix}"));
        let exact = beside(".int8.npz").exists();
        let vectors = if exact { beside(".int8.npz") } else { beside(".npz") };
        if !vectors.exists() {
            eprintln!("{name} has no vectors and is left out");
            continue;
        }
        items.push(Item {
            onnx: dunlin_cli::model::read(&path.to_string_lossy())?,
            samples: Samples::read(&vectors.to_string_lossy())?,
            name,
            exact,
        });
    }
    Ok(items)
}
