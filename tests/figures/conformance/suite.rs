//! The ONNX project's backend node tests, run by Dunlin's compiler and engine.

mod case;
mod claims;
mod run;
mod wire;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use case::Case;
pub(crate) use claims::Claims;
pub(crate) use run::{Outcome, quiet_panics};

/// How to get the cases.
pub(crate) const HOW: &str = "no ONNX node tests found. Install them with `pip install onnx`, for the python3 of your path or \
     that of DUNLIN_PYTHON, or give a folder of cases in DUNLIN_ONNX_NODE_TESTS";

/// A folder of cases.
pub(crate) struct Source {
    /// Where.
    pub(crate) folder: PathBuf,
    /// The onnx package they are from.
    pub(crate) version: String,
}

/// Finds the cases: a folder that is named, that of an installed package, or the cases a package makes when asked.
pub(crate) fn find(named: Option<PathBuf>) -> Option<Source> {
    if let Some(folder) = named.or_else(|| std::env::var_os("DUNLIN_ONNX_NODE_TESTS").map(PathBuf::from)) {
        let version = std::fs::read_to_string(folder.join("onnx_version.txt")).unwrap_or_else(|_| "unknown".into());
        return Some(Source { folder, version: version.trim().to_owned() });
    }
    let asked = "import onnx,os;print(onnx.__version__);\
         print(os.path.join(os.path.dirname(onnx.__file__),'backend','test','data','node'))";
    let text = python(&["-c", asked])?;
    let (version, folder) = text.trim().split_once('\n')?;
    let mut folder = PathBuf::from(folder);
    if !folder.is_dir() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx_nodes/export.py");
        folder = PathBuf::from(python(&[script])?.trim());
    }
    Some(Source { folder, version: version.trim().to_owned() })
}

fn python(arguments: &[&str]) -> Option<String> {
    let program = std::env::var_os("DUNLIN_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A case with what became of it.
pub(crate) struct Record {
    /// The case's name.
    pub(crate) name: String,
    /// The operator it is about.
    pub(crate) operator: String,
    /// Why it is not claimed.
    pub(crate) unclaimed: Option<String>,
    /// As it is.
    pub(crate) plain: Outcome,
    /// With all inputs but the first turned into constants, where there are such.
    pub(crate) constant: Option<Outcome>,
}

impl Record {
    /// What counts: a failure in either form, else the better of the two.
    pub(crate) fn outcome(&self) -> &Outcome {
        let rank = |o: &&Outcome| match o {
            Outcome::Fault(_) => 0,
            Outcome::Wrong(_) => 1,
            Outcome::Native => 2,
            Outcome::Hybrid => 3,
            Outcome::Refused(_) => 4,
        };
        // Of two refusals the one with constants says more: real models have constants.
        self.constant.iter().chain([&self.plain]).min_by_key(rank).unwrap_or(&self.plain)
    }

    /// Whether it passed only with constants.
    pub(crate) fn needs_constants(&self) -> bool {
        self.passed() && matches!(self.plain, Outcome::Refused(_))
    }

    /// Whether it gave what ONNX expects.
    pub(crate) fn passed(&self) -> bool {
        matches!(self.outcome(), Outcome::Native | Outcome::Hybrid)
    }

    /// What went wrong, with the form that it went wrong in.
    pub(crate) fn reason(&self) -> Option<String> {
        let (Outcome::Wrong(text) | Outcome::Fault(text) | Outcome::Refused(text)) = self.outcome() else {
            return None;
        };
        let form = if Some(self.outcome()) == self.constant.as_ref() { "constants: " } else { "" };
        Some(format!("{form}{text}"))
    }
}

/// The operators that cases are about, by the cases' names. A case that writes its operator out as a function belongs to
/// that operator, with a mark.
pub(crate) fn operators(cases: &[Case]) -> HashMap<&str, String> {
    let first = |case: &Case| case.nodes.first().map_or_else(String::new, |n| n.op.clone());
    let plain: HashMap<&str, String> = cases.iter().map(|c| (c.name.as_str(), first(c))).collect();
    let named = |case: &Case| match case.expanded_from() {
        Some(from) => plain.get(from).map_or_else(|| "other functions".into(), |op| format!("{op} as a function")),
        None => first(case),
    };
    cases.iter().map(|c| (c.name.as_str(), named(c))).collect()
}

/// Runs one case in both forms.
pub(crate) fn record(case: &Case, operator: &str, claims: &Claims) -> Record {
    let (plain, constant) = match (tensors(&case.inputs), tensors(&case.outputs)) {
        (Some(inputs), Some(outputs)) => {
            let plain = run::run(&case.model, &inputs, &outputs, case.tolerance);
            let constant = inputs.split_first().filter(|(_, rest)| !rest.is_empty()).and_then(|(first, rest)| {
                let constants: Vec<_> = rest.iter().map(|&(port, tensor)| (port.name.as_str(), tensor)).collect();
                let model = wire::with_constants(&case.model, &constants)?;
                Some(run::run(&model, &[*first], &outputs, case.tolerance))
            });
            (plain, constant)
        }
        _ => (run::compile_only(&case.model), None),
    };
    Record { name: case.name.clone(), operator: operator.to_owned(), unclaimed: claims.refusal(case), plain, constant }
}

/// Ports with their data; `None` when one of them holds no tensor.
fn tensors(ports: &[(case::Port, Option<wire::Tensor>)]) -> Option<Vec<(&case::Port, &wire::Tensor)>> {
    ports.iter().map(|(port, tensor)| Some((port, tensor.as_ref()?))).collect()
}

/// All cases in the order of their names.
pub(crate) fn cases(folder: &Path) -> std::io::Result<Vec<Case>> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|e| Some(e.ok()?.path())).collect();
    folders.sort();
    Ok(folders.iter().filter_map(|f| Case::read(f)).collect())
}
