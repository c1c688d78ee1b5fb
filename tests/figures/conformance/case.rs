//! One case of the suite: a model, what goes in and what has to come out.

use std::path::Path;

use super::wire::{self, Tensor};

/// What a graph says of one of its inputs or outputs.
pub(crate) struct Port {
    /// Its name.
    pub(crate) name: String,
    /// ONNX's number of the element type; `None` for sequences, maps and optionals.
    pub(crate) dtype: Option<u64>,
    /// Whether every extent is a number.
    pub(crate) fixed: bool,
}

/// A node, those of inner graphs too.
pub(crate) struct Node {
    /// The operator, with its domain where it is not ONNX's own.
    pub(crate) op: String,
    /// Whole-number attributes.
    pub(crate) ints: Vec<(String, i64)>,
}

/// A case.
pub(crate) struct Case {
    /// The folder's name.
    pub(crate) name: String,
    /// ONNX bytes.
    pub(crate) model: Vec<u8>,
    /// Nodes, the first is the graph's first.
    pub(crate) nodes: Vec<Node>,
    /// The graph's inputs with what goes in; `None` for what is no tensor.
    pub(crate) inputs: Vec<(Port, Option<Tensor>)>,
    /// The graph's outputs with what has to come out.
    pub(crate) outputs: Vec<(Port, Option<Tensor>)>,
    /// Relative and absolute tolerance.
    pub(crate) tolerance: (f64, f64),
}

fn port(info: &[u8]) -> Port {
    let name = wire::last(info, 1).map(|f| f.text()).unwrap_or_default();
    let tensor = wire::last(info, 2).and_then(|t| wire::last(t.bytes, 1));
    let shape = tensor.and_then(|t| wire::last(t.bytes, 2));
    let fixed = shape.is_some_and(|s| wire::all(s.bytes, 1).iter().all(|d| wire::last(d.bytes, 1).is_some()));
    Port { name, dtype: tensor.and_then(|t| wire::last(t.bytes, 1)).map(|f| f.value), fixed }
}

fn nodes(graph: &[u8], out: &mut Vec<Node>) {
    for node in wire::all(graph, 1) {
        let domain = wire::last(node.bytes, 7).map(|f| f.text()).unwrap_or_default();
        let op = wire::last(node.bytes, 4).map(|f| f.text()).unwrap_or_default();
        let attributes = wire::all(node.bytes, 5);
        let ints = attributes
            .iter()
            .filter_map(|a| Some((wire::last(a.bytes, 1)?.text(), wire::last(a.bytes, 3)?.value.cast_signed())))
            .collect();
        let op = if domain.is_empty() || domain == "ai.onnx" { op } else { format!("{domain}.{op}") };
        out.push(Node { op, ints });
        for attribute in attributes {
            for inner in wire::all(attribute.bytes, 6) {
                nodes(inner.bytes, out);
            }
        }
    }
}

impl Case {
    /// Reads a case's folder; `None` when it has no model.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let model = std::fs::read(folder.join("model.onnx")).ok()?;
        let graph = wire::last(&model, 7)?.bytes;
        let data = folder.join("test_data_set_0");
        let ports = |number: u64, kind: &str| {
            let read = |i: usize| wire::tensor(&std::fs::read(data.join(format!("{kind}_{i}.pb"))).ok()?);
            let list = wire::all(graph, number);
            list.iter().map(|f| port(f.bytes)).enumerate().map(|(i, p)| (p, read(i))).collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        nodes(graph, &mut found);
        let json: Option<serde_json::Value> =
            std::fs::read(folder.join("data.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let number = |key: &str, none: f64| json.as_ref().and_then(|j| j[key].as_f64()).unwrap_or(none);
        Some(Self {
            name: folder.file_name()?.to_string_lossy().into_owned(),
            nodes: found,
            inputs: ports(11, "input"),
            outputs: ports(12, "output"),
            tolerance: (number("rtol", 1e-3), number("atol", 1e-7)),
            model,
        })
    }

    /// The case that this one is another form of: its operator written out as the function of smaller ones.
    pub(crate) fn expanded_from(&self) -> Option<&str> {
        self.name.rsplit_once("_expanded").map(|(name, _)| name)
    }
}
