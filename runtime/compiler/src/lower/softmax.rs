//! Softmax, quantized to the bits of ONNX Runtime's `QLinearSoftmax`, and on floats.

use dunlin_package::DType;
use dunlin_package::op::{Op, Softmax, SoftmaxFloat};
use tract_onnx::pb::NodeProto;

use super::attributes::{axis, int, need, output};
use super::conv::qlinear_ends;
use super::{Lowering, Quant, Target, Val};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// `exp` of every distance from the greatest, raised so that a row's sum stays within f32 (ONNX Runtime's table).
fn table(x_scale: f32, row: usize) -> Vec<u8> {
    let most = f64::from((f32::MAX / row as f32).ln());
    let scale = f64::from(x_scale);
    let shift = (most - 5.0).max(0.0) / scale;
    (0..256).flat_map(|i| (((f64::from(i) - 255.0 + shift) * scale).exp() as f32).to_le_bytes()).collect()
}

/// `Softmax` between DequantizeLinear and QuantizeLinear, or on floats.
pub(super) fn softmax(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?);
    let log = node.op_type == "LogSoftmax";
    if let (false, Some(quant), Some(target)) = (log, l.quant_of(x), l.target(y)?) {
        let Some((val, _)) = l.integers(x)? else {
            return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
        };
        return quantized(l, node, &val, &quant, &target);
    }
    let val = l.value(x)?;
    let name = node_name(node);
    let val = l.logical(&name, &val);
    let (outer, row, inner) = rows(l, node, &val.shape)?;
    let id = l.graph.tensor(y, DType::F32, &val.shape);
    let params = SoftmaxFloat { log: u32::from(log), outer: outer as u32, axis: row as u32, inner: inner as u32 };
    l.graph.step(&name, Op::SoftmaxFloat, &[val.id], id, &params);
    l.define(y, id, &val.shape, false);
    Ok(true)
}

/// `QLinearSoftmax`: x, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((quant, target)) = qlinear_ends(l, node, 0, 3)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let val = l.value(need(node, 0)?)?;
    l.describe(val.id, &quant);
    quantized(l, node, &val, &quant, &target)
}

/// Elements before, on and after the axis; before opset 13 all axes from the given one are one.
fn rows(l: &Lowering<'_>, node: &NodeProto, shape: &[usize]) -> Result<(usize, usize, usize), CompileError> {
    let opset = int(node, "opset").unwrap_or(l.imported.opset);
    let at = axis(int(node, "axis").unwrap_or(if opset < 13 { 1 } else { -1 }), shape.len())?;
    let outer = shape[..at].iter().product();
    if opset < 13 {
        return Ok((outer, shape[at..].iter().product(), 1));
    }
    Ok((outer, shape[at], shape[at + 1..].iter().product()))
}

fn quantized(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    quant: &Quant,
    target: &Target,
) -> Result<bool, CompileError> {
    let name = node_name(node);
    let val = l.logical(&name, val);
    let (_, row, inner) = rows(l, node, &val.shape)?;
    if inner != 1 || !target.whole() || quant.unsigned != target.quant.unsigned {
        return l.refuse(Unsupported::Shape { what: "a quantized softmax over another axis than the last, with a fused activation, or between int8 and uint8" });
    }
    let table = l.graph.constant("softmax", DType::F32, &[256], table(quant.scale, row));
    let y = l.graph.tensor(&target.name, DType::I8, &val.shape);
    let params = Softmax {
        axis: row as u32,
        factor: (1.0 / target.quant.scale).floor(),
        zero_point: target.quant.zero_point + target.quant.shift(),
        unsigned: u32::from(target.quant.unsigned),
    };
    let dims = val.shape.clone();
    let x = l.graph.view(val.id, &dims);
    l.graph.step(&name, Op::Softmax, &[x, table], y, &params);
    let perm: Vec<usize> = (0..dims.len()).collect();
    l.finish(target, y, &dims, &perm);
    Ok(true)
}
