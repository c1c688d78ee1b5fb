//! Which cases Dunlin claims: those of the operators in `claimed.txt`, within the rules below, without those of
//! `excluded.txt`.

use super::case::Case;
use super::wire::{BOOL, FLOAT, INT8, INT32, INT64, Tensor, UINT8};

/// The claimed operators and the named exclusions.
pub(crate) struct Claims {
    /// Operators.
    pub(crate) operators: Vec<String>,
    /// Case names, a `*` at the end for all that begin so, with the reason.
    excluded: Vec<(String, String)>,
}

/// The lines of a list without remarks: what stands before the first blank, and the rest.
fn entries(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| l.split_once(char::is_whitespace).unwrap_or((l, "")))
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

impl Claims {
    /// The lists as they are in the repository.
    pub(crate) fn read() -> Self {
        let operators = entries(include_str!("../../onnx_nodes/claimed.txt"));
        let excluded = entries(include_str!("../../onnx_nodes/excluded.txt"));
        Self { operators: operators.into_iter().map(|(name, _)| name).collect(), excluded }
    }

    /// Why a case is not claimed; `None` when it is.
    pub(crate) fn refusal(&self, case: &Case) -> Option<String> {
        if let Some(node) = case.nodes.iter().find(|n| !self.operators.contains(&n.op)) {
            return Some(format!("operator {}", node.op));
        }
        let empty = |t: &Option<Tensor>| t.as_ref().is_some_and(|t| t.dims.contains(&0));
        if case.inputs.iter().take(1).chain(&case.outputs).any(|(_, t)| empty(t)) {
            return Some("data without elements".into());
        }
        for (port, tensor) in case.inputs.iter().chain(&case.outputs) {
            let known = [FLOAT, INT8, UINT8, INT32, INT64, BOOL];
            match (port.dtype, tensor) {
                (None, _) | (_, None) => return Some("something else than a tensor".into()),
                (Some(dtype), _) if !known.contains(&dtype) => return Some(format!("type {}", type_name(dtype))),
                (_, Some(tensor)) if tensor.dims.len() > 6 => return Some("more than 6 axes".into()),
                _ => {}
            }
        }
        let set = |name: &str| case.nodes.iter().any(|n| n.ints.iter().any(|(i, value)| i == name && *value != 0));
        if set("training_mode") {
            return Some("training".into());
        }
        if set("block_size") {
            return Some("blocked quantization".into());
        }
        let covers = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => case.name.starts_with(start),
            None => case.name == pattern,
        };
        self.excluded.iter().find(|(pattern, _)| covers(pattern)).map(|(_, reason)| reason.clone())
    }

    /// The exclusions that name no case: the list has to be kept in order.
    pub(crate) fn stale(&self, names: &[&str]) -> Vec<&str> {
        let used = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => names.iter().any(|n| n.starts_with(start)),
            None => names.contains(&pattern),
        };
        self.excluded.iter().map(|(pattern, _)| pattern.as_str()).filter(|p| !used(p)).collect()
    }
}

/// ONNX's name of a type.
fn type_name(number: u64) -> String {
    let names = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
    ];
    names.get(number as usize).map_or_else(|| number.to_string(), |n| (*n).to_owned())
}
