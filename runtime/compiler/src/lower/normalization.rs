//! BatchNormalization by constants: one factor and one term for each channel.

use dunlin_package::DType;
use dunlin_package::op::{BinaryKind, Op};
use tract_onnx::pb::NodeProto;

use super::arithmetic::float_params;
use super::attributes::{attribute, float, int, need, output};
use super::{Lowering, Val};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// `BatchNormalization`: x, scale, bias, mean, variance.
pub(super) fn batch(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    if int(node, "training_mode").unwrap_or(0) == 1 || node.output.iter().skip(1).any(|o| !o.is_empty()) {
        return l.refuse(attribute(node, "training_mode", "0, with one output"));
    }
    let mut constants = Vec::new();
    for i in 1..5 {
        match l.float_constant(need(node, i)?)? {
            Some((values, _)) => constants.push(values),
            None => return l.refuse(Unsupported::NotConstant { input: i, what: "scale, bias, mean or variance" }),
        }
    }
    let [scale, bias, mean, variance] = &constants[..] else {
        return l.refuse(Unsupported::Count { what: "inputs", count: node.input.len(), supported: "5" });
    };
    let epsilon = float(node, "epsilon").unwrap_or(1e-5);
    let factors: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let terms: Vec<f32> = bias.iter().zip(mean).zip(&factors).map(|((b, m), f)| b - m * f).collect();
    let y = output(node)?;
    let val = l.value(need(node, 0)?)?;
    let channels = factors.len();
    let Some(place) = val.perm.iter().position(|&a| a == 1) else {
        return l.refuse(Unsupported::Rank { axes: val.shape.len(), supported: "2 to 6" });
    };
    let mut dims = vec![1; val.shape.len()];
    dims[place] = channels;
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (name, shape) = (node_name(node), l.graph.tensors[val.id].dims.clone());
    let f = l.graph.constant(&format!("{name}.factor"), DType::F32, &dims, bytes(&factors));
    let t = l.graph.constant(&format!("{name}.term"), DType::F32, &dims, bytes(&terms));
    let scaled = l.graph.tensor(&format!("{name}.scaled"), DType::F32, &shape);
    l.graph.step(&name, Op::Binary, &[val.id, f], scaled, &float_params(BinaryKind::Mul));
    let id = l.graph.tensor(y, DType::F32, &shape);
    l.graph.step(&name, Op::Binary, &[scaled, t], id, &float_params(BinaryKind::Add));
    l.set(y, Val { id, ..val });
    Ok(true)
}
