//! Means and maxima.

use dunlin_package::op::{MaxPool, Op, Reduce, ReduceKind};
use tract_onnx::pb::NodeProto;

use super::attributes::{axis, int, ints, need, output};
use super::conv::{finish_map, qlinear_ends, window};
use super::layout::{channels_last, map_dims};
use super::{Lowering, Quant, Target, Val, elements};
use crate::error::CompileError;
use crate::import::node_name;

/// `GlobalAveragePool` and `ReduceMean` over the axes between batch and channel.
pub(super) fn mean(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?);
    let shape = l.fact(x)?.shape.clone();
    let axes = match node.op_type.as_str() {
        "GlobalAveragePool" => (2..shape.len()).collect(),
        _ => reduced_axes(l, node, shape.len())?,
    };
    let spatial: Vec<usize> = (2..shape.len()).collect();
    if shape.len() < 3 || axes != spatial {
        return Ok(false);
    }
    let (Some(quant), Some(target)) = (l.quant_of(x), l.target(y)?) else { return float_mean(l, node, &shape) };
    let Some((val, _)) = l.integers(x)? else { return Ok(false) };
    integer_mean(l, node, &val, &quant, &target)
}

/// `QLinearGlobalAveragePool`: x, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear_global(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((quant, target)) = qlinear_ends(l, node, 0, 3)? else { return Ok(false) };
    let val = l.value(need(node, 0)?)?;
    if int(node, "channels_last").unwrap_or(0) != 0 {
        return Ok(false);
    }
    l.describe(val.id, &quant);
    integer_mean(l, node, &val, &quant, &target)
}

/// The axes a reduction goes over, from its attribute or its second input.
pub(super) fn reduced_axes(l: &Lowering<'_>, node: &NodeProto, rank: usize) -> Result<Vec<usize>, CompileError> {
    let listed = match (ints(node, "axes"), node.input.get(1).and_then(|n| l.constant(n))) {
        (Some(axes), _) => axes,
        (None, Some(value)) => elements::<i64>(&value)?,
        (None, None) => (0..rank as i64).collect(),
    };
    let mut axes = listed.into_iter().map(|a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    Ok(axes)
}

fn integer_mean(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    quant: &Quant,
    target: &Target,
) -> Result<bool, CompileError> {
    let name = node_name(node);
    let [n, c] = [val.shape[0], val.shape[1]];
    let count: usize = val.shape[2..].iter().product();
    let arranged = l.arranged(&name, val, &channels_last(val.shape.len()));
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let y = l.graph.tensor(&target.name, dunlin_package::DType::I8, &[n, 1, 1, c]);
    let params = Reduce {
        kind: ReduceKind::Mean as u32,
        outer: n as u32,
        axis: count as u32,
        inner: c as u32,
        x_zero_point: quant.zero_point,
        scale: quant.scale / (target.quant.scale * count as f32),
        range: target.range(),
    };
    l.graph.step(&name, Op::Reduce, &[arranged.id], y, &params);
    let y = l.graph.view(y, &y_shape);
    let perm: Vec<usize> = (0..y_shape.len()).collect();
    l.finish(target, y, &y_shape, &perm);
    Ok(true)
}

fn float_mean(l: &mut Lowering<'_>, node: &NodeProto, shape: &[usize]) -> Result<bool, CompileError> {
    let (name, y_name) = (node_name(node), output(node)?);
    let val = l.value(need(node, 0)?)?;
    let arranged = l.arranged(&name, &val, &channels_last(shape.len()));
    let y_shape = l.fact(y_name)?.shape.clone();
    let y = l.graph.tensor(y_name, dunlin_package::DType::F32, &[shape[0], 1, 1, shape[1]]);
    let params = Reduce {
        kind: ReduceKind::Mean as u32,
        outer: shape[0] as u32,
        axis: shape[2..].iter().product::<usize>() as u32,
        inner: shape[1] as u32,
        ..Reduce::default()
    };
    l.graph.step(&name, Op::Reduce, &[arranged.id], y, &params);
    let y = l.graph.view(y, &y_shape);
    l.define(y_name, y, &y_shape, false);
    Ok(true)
}

/// `MaxPool`: the same on integers, between DequantizeLinear and QuantizeLinear of one scale or alone.
pub(super) fn max(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x_name, y_name) = (need(node, 0)?, output(node)?);
    if node.output.len() > 1 || int(node, "storage_order").unwrap_or(0) != 0 {
        return Ok(false);
    }
    let y_shape = l.fact(y_name)?.shape.clone();
    let kernel = ints(node, "kernel_shape").unwrap_or_default();
    let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
    let target = match (l.quant_of(x_name), l.target(y_name)?) {
        (Some(quant), Some(target)) if quant.same(&target.quant) && (target.lo, target.hi) == (-128, 127) => {
            Some(target)
        }
        _ => None,
    };
    let val = match &target {
        Some(_) => l.integers(x_name)?.map(|(val, _)| val),
        None => Some(l.value(x_name)?),
    };
    let Some(val) = val else { return Ok(false) };
    let Some(window) = window(node, &kernel, &val.shape, &y_shape)? else { return Ok(false) };
    let (x, _) = l.feature_map(y_name, &val)?;
    let dtype = l.graph.tensors[x].dtype;
    let y = l.graph.tensor(y_name, dtype, &map_dims(&y_shape));
    l.graph.step(&node_name(node), Op::MaxPool, &[x], y, &MaxPool { window });
    match target {
        Some(target) => finish_map(l, &target, y, &y_shape),
        None => {
            let perm = channels_last(y_shape.len());
            let dims: Vec<usize> = perm.iter().map(|&a| y_shape[a]).collect();
            let id = l.graph.view(y, &dims);
            l.set(y_name, Val { id, shape: y_shape, perm, unsigned: val.unsigned });
        }
    }
    Ok(true)
}
