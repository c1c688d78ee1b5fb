//! Means and maxima.

use dunlin_package::op::{AveragePool, MaxPool, Op, Reduce, ReduceKind};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::attributes::{attribute, axis, int, ints, need, output};
use super::conv::{finish_map, qlinear_ends, window};
use super::layout::{channels_last, map_dims};
use super::{Lowering, Quant, Target, Val, elements};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// Reductions over neighbouring axes. The mean over all of a feature map's places has an integer kernel.
pub(super) fn reduce(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?);
    let shape = l.fact(x)?.shape.clone();
    if l.fact(x)?.dtype == DatumType::Bool {
        return Err(CompileError::unsupported("a greatest or least of booleans").hint("cast them to a number first"));
    }
    let (kind, global) = match node.op_type.as_str() {
        "GlobalAveragePool" => (ReduceKind::Mean, true),
        "GlobalMaxPool" => (ReduceKind::Max, true),
        "ReduceMean" => (ReduceKind::Mean, false),
        "ReduceSum" => (ReduceKind::Sum, false),
        "ReduceMax" => (ReduceKind::Max, false),
        _ => (ReduceKind::Min, false),
    };
    let axes: Vec<usize> = if global { (2..shape.len()).collect() } else { reduced_axes(l, node, shape.len())? };
    let run = axes.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    if axes.is_empty() || !run || shape.contains(&0) {
        return l.refuse(Unsupported::Shape {
            what: "a reduction over no axes, over axes that are not neighbours, or of no elements",
        });
    }
    if let (Some(quant), Some(target)) = (l.quant_of(x), l.target(y)?) {
        let keeps = matches!(kind, ReduceKind::Max | ReduceKind::Min) && quant.same(&target.quant) && target.whole();
        if global && kind == ReduceKind::Mean && quant.unsigned == target.quant.unsigned {
            let Some((val, _)) = l.integers(x)? else {
                return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
            };
            return integer_mean(l, node, &val, &quant, &target);
        }
        if keeps {
            let Some((val, _)) = l.integers(x)? else {
                return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
            };
            let y_id = reduce_step(l, node, &val, kind, &axes)?;
            let y_shape = l.fact(y)?.shape.clone();
            let perm: Vec<usize> = (0..y_shape.len()).collect();
            l.finish(&target, y_id, &y_shape, &perm);
            return Ok(true);
        }
    }
    let fact = l.fact(y)?;
    if !matches!(fact.dtype, DatumType::F32 | DatumType::I8 | DatumType::U8)
        || (fact.dtype != DatumType::F32 && !matches!(kind, ReduceKind::Max | ReduceKind::Min))
    {
        return l.refuse(l.unfit(y, "the output", "float32; int8 and uint8 for ReduceMax and ReduceMin")?);
    }
    let val = l.value(x)?;
    let id = reduce_step(l, node, &val, kind, &axes)?;
    let y_shape = l.fact(y)?.shape.clone();
    l.define(y, id, &y_shape, val.unsigned);
    Ok(true)
}

/// A reduction that keeps the type; the result lies in ONNX's order.
fn reduce_step(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    kind: ReduceKind,
    axes: &[usize],
) -> Result<crate::graph::Id, CompileError> {
    let name = node_name(node);
    let rank = val.shape.len();
    let spatial = rank > 2 && axes.iter().copied().eq(2..rank);
    // Over all places, channels last is the better order, and often there already.
    let (arranged, outer, inner) = if spatial {
        (l.arranged(&name, val, &channels_last(rank)), val.shape[0], val.shape[1])
    } else {
        let (first, last) = (axes[0], axes[axes.len() - 1]);
        (l.logical(&name, val), val.shape[..first].iter().product(), val.shape[last + 1..].iter().product())
    };
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let dtype = l.graph.tensors[arranged.id].dtype;
    let y = l.graph.tensor(output(node)?, dtype, &y_shape);
    let count: usize = axes.iter().map(|&a| val.shape[a]).product();
    let params =
        Reduce { kind: kind as u32, outer: outer as u32, axis: count as u32, inner: inner as u32, ..Reduce::default() };
    l.graph.step(&name, Op::Reduce, &[arranged.id], y, &params);
    Ok(y)
}

/// `QLinearGlobalAveragePool`: x, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear_global(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((quant, target)) = qlinear_ends(l, node, 0, 3)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let val = l.value(need(node, 0)?)?;
    if int(node, "channels_last").unwrap_or(0) != 0 {
        return l.refuse(attribute(node, "channels_last", "0"));
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

/// `AveragePool` between DequantizeLinear and QuantizeLinear, or on floats.
pub(super) fn average(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?);
    if let (Some(quant), Some(target)) = (l.quant_of(x), l.target(y)?)
        && quant.unsigned == target.quant.unsigned
    {
        let Some((val, _)) = l.integers(x)? else {
            return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
        };
        return integer_average(l, node, &val, &quant, &target);
    }
    let val = l.value(x)?;
    let y_shape = l.fact(y)?.shape.clone();
    let Some(params) = average_params(node, &val, &y_shape)? else { return l.refuse(averaged(node, y_shape.len())) };
    let (map, _) = l.feature_map(y, &val)?;
    let id = l.graph.tensor(y, dunlin_package::DType::F32, &map_dims(&y_shape));
    l.graph.step(&node_name(node), Op::AveragePool, &[map], id, &params);
    l.set_map(y, id, &y_shape, false);
    Ok(true)
}

/// `QLinearAveragePool`: x, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear_average(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    if int(node, "channels_last").unwrap_or(0) != 0 {
        return l.refuse(attribute(node, "channels_last", "0"));
    }
    let Some((quant, target)) = qlinear_ends(l, node, 0, 3)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let val = l.value(need(node, 0)?)?;
    l.describe(val.id, &quant);
    integer_average(l, node, &val, &quant, &target)
}

/// Returns the reason that [`average_params`] gives no window.
fn averaged(node: &NodeProto, axes: usize) -> Unsupported {
    if int(node, "ceil_mode").unwrap_or(0) == 1 && int(node, "count_include_pad").unwrap_or(0) == 1 {
        return attribute(node, "ceil_mode", "0 where count_include_pad is 1");
    }
    Unsupported::Rank { axes, supported: "3 or 4" }
}

/// Window and divisor; `None` for what the engine does not do.
fn average_params(node: &NodeProto, val: &Val, y_shape: &[usize]) -> Result<Option<AveragePool>, CompileError> {
    let kernel = ints(node, "kernel_shape").unwrap_or_default();
    let kernel: Vec<usize> = kernel.iter().map(|&k| k as usize).collect();
    let count_border = int(node, "count_include_pad").unwrap_or(0);
    // A window that hangs over the far border counts differently there.
    if int(node, "ceil_mode").unwrap_or(0) == 1 && count_border == 1 {
        return Ok(None);
    }
    let window = window(node, &kernel, &val.shape, y_shape)?;
    Ok(window.map(|window| AveragePool { window, count_border: count_border as u32, ..AveragePool::default() }))
}

fn integer_average(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    quant: &Quant,
    target: &Target,
) -> Result<bool, CompileError> {
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let Some(params) = average_params(node, val, &y_shape)? else { return l.refuse(averaged(node, y_shape.len())) };
    let window = &params.window;
    let all = |axis: usize, size: usize| window.kernel[axis] as usize == size;
    let [_, h, w, _] = map_dims(&val.shape);
    if window.pad == [0; 4] && all(0, h) && all(1, w) {
        return integer_mean(l, node, val, quant, target);
    }
    let shift = target.quant.shift();
    let params = AveragePool {
        x_zero_point: quant.zero_point,
        x_scale: quant.scale,
        y_scale: target.quant.scale,
        offset: (target.quant.zero_point + shift) as f32,
        range: dunlin_package::op::Range { zero_point: -shift, ..target.range() },
        ..params
    };
    let (x, _) = l.feature_map(&target.name, val)?;
    let y = l.graph.tensor(&target.name, dunlin_package::DType::I8, &map_dims(&y_shape));
    l.graph.step(&node_name(node), Op::AveragePool, &[x], y, &params);
    finish_map(l, target, y, &y_shape);
    Ok(true)
}

/// `MaxPool`: the same on integers, between DequantizeLinear and QuantizeLinear of one scale or alone.
pub(super) fn max(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x_name, y_name) = (need(node, 0)?, output(node)?);
    if node.output.len() > 1 || int(node, "storage_order").unwrap_or(0) != 0 {
        return l.refuse(if node.output.len() > 1 {
            Unsupported::Count { what: "outputs", count: node.output.len(), supported: "1" }
        } else {
            attribute(node, "storage_order", "0")
        });
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
    let Some(val) = val else {
        return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
    };
    let Some(window) = window(node, &kernel, &val.shape, &y_shape)? else {
        return l.refuse(Unsupported::Rank { axes: y_shape.len(), supported: "3 or 4" });
    };
    let (x, _) = l.feature_map(y_name, &val)?;
    let dtype = l.graph.tensors[x].dtype;
    let y = l.graph.tensor(y_name, dtype, &map_dims(&y_shape));
    l.graph.step(&node_name(node), Op::MaxPool, &[x], y, &MaxPool { window });
    match target {
        Some(target) => finish_map(l, &target, y, &y_shape),
        None => l.set_map(y_name, y, &y_shape, val.unsigned),
    }
    Ok(true)
}
