//! What is settled before and between inferences: inputs with one value, branches on constants.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::{self, GraphProto, ModelProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

use super::{Analysed, Pins, node_name};
use crate::error::{CompileError, ErrorKind};

/// Makes constants of the inputs that are fixed.
pub(super) fn fix(model: &mut ModelProto, pins: &Pins) -> Result<(), CompileError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(()) };
    for (name, &value) in &pins.values {
        let Some(at) = graph.input.iter().position(|i| &i.name == name) else {
            return Err(CompileError::new(ErrorKind::InvalidGraph, format!("the model has no input '{name}' to fix"))
                .hint("inspect lists the names of the inputs"));
        };
        graph.input.remove(at);
        graph.initializer.push(pb::TensorProto {
            name: name.clone(),
            data_type: pb::tensor_proto::DataType::Int64 as i32,
            int64_data: vec![value],
            ..Default::default()
        });
    }
    Ok(())
}

/// Replaces each `If` on a known condition by the branch it takes. True when there was one. `missing_pins` are the options
/// that would fix inputs which are still open.
pub(super) fn inline_branches(
    model: &mut ModelProto,
    analysed: &Analysed,
    missing_pins: &[String],
) -> Result<bool, CompileError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(false) };
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut found = false;
    let mut unknown = None;
    for node in std::mem::take(&mut graph.node) {
        if node.op_type != "If" {
            nodes.push(node);
            continue;
        }
        let condition = node
            .input
            .first()
            .and_then(|name| analysed.facts.get(name))
            .and_then(|fact| fact.value.concretize())
            .and_then(|value| value.cast_to_scalar::<bool>().ok());
        let Some(condition) = condition else {
            unknown.get_or_insert_with(|| (node_name(&node), node.input.first().cloned().unwrap_or_default()));
            nodes.push(node);
            continue;
        };
        let wanted = if condition { "then_branch" } else { "else_branch" };
        let branch = node.attribute.iter().find(|a| a.name == wanted).and_then(|a| a.g.clone());
        let branch = branch.ok_or_else(|| CompileError::invalid(format!("no {wanted}")).at(&node_name(&node), "If"))?;
        splice(&node, branch, &mut nodes, &mut graph.initializer);
        found = true;
    }
    graph.node = nodes;
    match unknown {
        Some((node, condition)) if !found => {
            Err(CompileError::unsupported(format!("the condition '{condition}' is not known at compile time"))
                .hint(match missing_pins {
                    [] => "cut the If out of the model, or export it with the condition as a constant".to_owned(),
                    missing => format!("fix the inputs that it depends on, for example with {}", missing.join(" ")),
                })
                .at(&node, "If"))
        }
        _ => Ok(found),
    }
}

/// Puts a branch's nodes in the place of the `If`, its inner names made unique.
fn splice(node: &NodeProto, branch: GraphProto, nodes: &mut Vec<NodeProto>, initializers: &mut Vec<pb::TensorProto>) {
    let prefix = format!("{}/", node_name(node));
    let inner: HashSet<String> = branch
        .node
        .iter()
        .flat_map(|n| n.output.iter().cloned())
        .chain(branch.initializer.iter().map(|t| t.name.clone()))
        .filter(|n| !n.is_empty())
        .collect();
    let renamed: HashMap<String, String> = inner.into_iter().map(|n| (n.clone(), format!("{prefix}{n}"))).collect();
    let rename = |name: &mut String| {
        if let Some(new) = renamed.get(name) {
            name.clone_from(new);
        }
    };
    for mut tensor in branch.initializer {
        rename(&mut tensor.name);
        initializers.push(tensor);
    }
    for mut inner in branch.node {
        rename_node(&mut inner, &rename);
        if !inner.name.is_empty() {
            inner.name.insert_str(0, &prefix);
        }
        nodes.push(inner);
    }
    for (outer, inner) in node.output.iter().zip(&branch.output) {
        let mut name = inner.name.clone();
        rename(&mut name);
        nodes.push(NodeProto {
            op_type: "Identity".into(),
            name: format!("{prefix}{outer}"),
            input: vec![name],
            output: vec![outer.clone()],
            ..Default::default()
        });
    }
}

/// Renames a node's values, also those that its own branches see from outside.
fn rename_node(node: &mut NodeProto, rename: &impl Fn(&mut String)) {
    node.input.iter_mut().for_each(rename);
    node.output.iter_mut().for_each(rename);
    let mut graphs: Vec<&mut GraphProto> = node.attribute.iter_mut().filter_map(|a| a.g.as_mut()).collect();
    while let Some(graph) = graphs.pop() {
        graph.initializer.iter_mut().for_each(|t| rename(&mut t.name));
        graph.output.iter_mut().for_each(|o| rename(&mut o.name));
        for node in &mut graph.node {
            node.input.iter_mut().for_each(rename);
            node.output.iter_mut().for_each(rename);
            graphs.extend(node.attribute.iter_mut().filter_map(|a| a.g.as_mut()));
        }
    }
}
