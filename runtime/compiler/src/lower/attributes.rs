//! Attributes of ONNX nodes.

use tract_onnx::pb::NodeProto;

use super::{Lowering, elements};
use crate::error::CompileError;
use crate::unsupported::Unsupported;

pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name == name).map(|a| a.i)
}

pub(super) fn float(node: &NodeProto, name: &str) -> Option<f32> {
    node.attribute.iter().find(|a| a.name == name).map(|a| a.f)
}

pub(super) fn ints(node: &NodeProto, name: &str) -> Option<Vec<i64>> {
    node.attribute.iter().find(|a| a.name == name).map(|a| a.ints.clone())
}

pub(super) fn text(node: &NodeProto, name: &str) -> Option<String> {
    node.attribute.iter().find(|a| a.name == name).map(|a| String::from_utf8_lossy(&a.s).into_owned())
}

/// Input `i`'s name, `None` where it is left out.
pub(super) fn input(node: &NodeProto, i: usize) -> Option<&str> {
    node.input.get(i).map(String::as_str).filter(|n| !n.is_empty())
}

/// Input `i`'s name, or an error.
pub(super) fn need(node: &NodeProto, i: usize) -> Result<&str, CompileError> {
    input(node, i).ok_or_else(|| CompileError::invalid(format!("input {i} is missing")))
}

/// The first output's name.
pub(super) fn output(node: &NodeProto) -> Result<&str, CompileError> {
    node.output.first().map(String::as_str).ok_or_else(|| CompileError::invalid("no output"))
}

/// Returns the reason that an attribute's value is not implemented.
pub(super) fn attribute(node: &NodeProto, name: &'static str, supported: &'static str) -> Unsupported {
    let value = match node.attribute.iter().find(|a| a.name == name) {
        Some(found) if !found.s.is_empty() => format!("'{}'", String::from_utf8_lossy(&found.s)),
        Some(found) if !found.ints.is_empty() => format!("{:?}", found.ints),
        Some(found) => found.i.to_string(),
        None => "its default".to_owned(),
    };
    Unsupported::Attribute { name, value, supported }
}

/// An axis counted from the front.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, CompileError> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front)
        .ok()
        .filter(|&a| a < rank)
        .ok_or_else(|| CompileError::invalid(format!("axis {axis} of a tensor with {rank} axes")))
}

/// The bounds of a Clip, from attributes before opset 11 and from constants since.
pub(super) fn clip_bounds(lowering: &Lowering<'_>, node: &NodeProto) -> Option<(f32, f32)> {
    let bound = |i: usize, name: &str, none: f32| match input(node, i) {
        None => Some(float(node, name).unwrap_or(none)),
        Some(value) => elements::<f32>(&*lowering.constant(value)?).ok()?.first().copied(),
    };
    Some((bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?))
}
