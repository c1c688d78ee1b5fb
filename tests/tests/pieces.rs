//! An operator is whole only with all its pieces: a number, an engine file, its registration, a lowering and its section
//! in `FORMAT.md`. (`operators.rs` sees to it that each has a conformance case.)

use std::fs;
use std::path::PathBuf;

use dunlin::kernels::Scalar;
use dunlin::ops;
use dunlin::package::op::Op;

fn runtime(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime")).join(path)
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(c.to_lowercase());
    }
    text
}

fn lowerings() -> String {
    let folder = fs::read_dir(runtime("compiler/src/lower")).expect("the lowerings");
    let files = folder.map(|entry| entry.expect("an entry").path()).chain([runtime("compiler/src/lower.rs")]);
    files.map(|file| fs::read_to_string(file).expect("a source file")).collect()
}

/// Words of parameters as the operator's section of `FORMAT.md` counts them.
fn documented<'t>(format: &'t str, name: &str) -> Option<&'t str> {
    let (_, section) = format.split_once(&format!("\n### {name}\n"))?;
    let section = section.split("\n### ").next()?;
    section.lines().find_map(|line| line.strip_prefix("Words: "))
}

#[test]
fn every_operator_has_all_its_pieces() {
    let format = fs::read_to_string(runtime("package/FORMAT.md")).expect("FORMAT.md");
    let lowerings = lowerings();
    let mut missing = Vec::new();
    for &op in Op::ALL {
        let name = op.name();
        let mut need = |there: bool, what: &str| {
            if !there {
                missing.push(format!("{name}: {what}"));
            }
        };
        // A subgraph of another executor is nothing the engine has code for.
        if op != Op::Foreign {
            let file = format!("engine/src/ops/{}.rs", snake(name));
            need(runtime(&file).exists(), &format!("no {file}"));
            let registered = ops::all::<Scalar>().iter().filter(|o| o.op == op).count();
            need(registered == 1, &format!("registered {registered} times in engine/src/ops.rs"));
        }
        let made = lowerings
            .match_indices(&format!("Op::{name}"))
            .any(|(i, text)| !lowerings[i + text.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        need(made, "no lowering in compiler/src/lower makes it");
        let row = format!("| {:>3} | {name} ", op as u8);
        need(format.lines().any(|line| line.starts_with(&row)), "no row in the table of FORMAT.md");
        need(documented(&format, name).is_some(), "no section with a line 'Words:' in FORMAT.md");
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn nothing_is_registered_twice_or_besides() {
    let mut numbers: Vec<u8> = ops::all::<Scalar>().iter().map(|o| o.op as u8).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ops::all::<Scalar>().len());
}
