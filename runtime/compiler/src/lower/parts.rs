//! Operators that join, cut or pick: the same on integers as on floats.

use dunlin_package::DType;
use dunlin_package::op::{ArgMax, Concat, Gather, Op, Pad, PadKind, Slice};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::attributes::{attribute, axis, input, int, ints, need, output, text};
use super::{Lowering, Quant, Val, elements};
use crate::error::CompileError;
use crate::graph::Id;
use crate::import::node_name;
use crate::unsupported::Unsupported;

impl Lowering<'_> {
    /// A tensor like `val`'s in type and meaning.
    fn like(&mut self, name: &str, val: &Val, dims: &[usize]) -> Id {
        let source = self.graph.tensors[val.id].clone();
        let id = self.graph.tensor(name, source.dtype, dims);
        (self.graph.tensors[id].scale, self.graph.tensors[id].zero_point) = (source.scale, source.zero_point);
        id
    }

    /// A constant list of whole numbers, from an attribute or an input.
    fn list(&self, node: &NodeProto, i: usize, attribute: &str) -> Result<Option<Vec<i64>>, CompileError> {
        match (ints(node, attribute), input(node, i)) {
            (Some(list), _) => Ok(Some(list)),
            (None, Some(name)) => match self.constant(name) {
                Some(value) => Ok(Some(elements::<i64>(&value)?)),
                None => Err(CompileError::unsupported(format!("'{name}' is not known at compile time"))),
            },
            (None, None) => Ok(None),
        }
    }
}

/// Joins values that lie in one order along one of ONNX's axes.
fn join(l: &mut Lowering<'_>, node: &NodeProto, name: &str, values: &[Val], at: usize) -> Result<Val, CompileError> {
    let shape = l.fact(output(node)?)?.shape.clone();
    let perm = values.iter().find(|v| v.shape.len() == shape.len()).map_or_else(Vec::new, |v| v.perm.clone());
    let mut ids = Vec::new();
    for val in values {
        ids.push(l.arranged(&node_name(node), val, &perm).id);
    }
    let dims: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
    let place = perm.iter().position(|&a| a == at).unwrap_or(0);
    let outer: usize = dims[..place].iter().product();
    let y = l.like(name, &values[0], &dims);
    l.graph.step(&node_name(node), Op::Concat, &ids, y, &Concat { outer: outer as u32 });
    Ok(Val { id: y, shape, perm, unsigned: values[0].unsigned })
}

/// Integers with another meaning.
fn requantized(l: &mut Lowering<'_>, name: &str, val: Val, own: &Quant, quant: &Quant) -> Val {
    if own.same(quant) {
        return val;
    }
    let table = super::table::table(*own, *quant, |x| x);
    let id = l.table_step(name, &val, table, "requantize");
    l.describe(id, quant);
    Val { id, unsigned: quant.unsigned, ..val }
}

/// `Concat` of integers that go to one QuantizeLinear, or of any one type.
pub(super) fn concat(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y = output(node)?;
    let shape = l.fact(y)?.shape.clone();
    let at = axis(int(node, "axis").unwrap_or(1), shape.len())?;
    if shape.len() > 6 || node.input.is_empty() {
        return l.refuse(Unsupported::Rank { axes: shape.len(), supported: "1 to 6" });
    }
    let mut parts: Vec<&String> = Vec::new();
    for name in &node.input {
        if !l.fact(name)?.shape.contains(&0) {
            parts.push(name);
        }
    }
    let quants: Option<Vec<Quant>> = parts.iter().map(|n| l.quant_of(n)).collect();
    if let (Some(quants), Some(target)) = (quants, l.target(y)?)
        && target.whole()
        && quants.iter().all(|q| q.unsigned == target.quant.unsigned)
    {
        let mut values = Vec::new();
        for (name, own) in parts.iter().zip(&quants) {
            let Some((val, _)) = l.integers(name)? else {
                return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
            };
            values.push(requantized(l, name, val, own, &target.quant));
        }
        let joined = join(l, node, &target.name, &values, at)?;
        l.finish(&target, joined.id, &joined.shape, &joined.perm);
        return Ok(true);
    }
    let mut values = Vec::new();
    for name in parts {
        values.push(l.value(name)?);
    }
    let [first, ..] = &values[..] else { return l.refuse(Unsupported::Empty) };
    let unsigned = first.unsigned;
    if values.iter().any(|v| v.unsigned != unsigned) {
        return l.refuse(Unsupported::Type {
            place: "the inputs".into(),
            dtype: "int8 and uint8 at once".into(),
            supported: "one type",
        });
    }
    let joined = join(l, node, y, &values, at)?;
    l.set(y, joined);
    Ok(true)
}

/// `QLinearConcat`: y's scale and zero point, then each part with its scale and zero point.
pub(super) fn qlinear_concat(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y = output(node)?;
    let fact = l.fact(y)?;
    let (rank, unsigned) = (fact.shape.len(), fact.dtype == DatumType::U8);
    let at = axis(int(node, "axis").unwrap_or(1), rank)?;
    let Some(quant) = l.quant(need(node, 0)?, input(node, 1), unsigned)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let mut values = Vec::new();
    for part in (2..node.input.len()).step_by(3) {
        let name = need(node, part)?;
        let Some(own) = l.quant(need(node, part + 1)?, input(node, part + 2), unsigned)? else {
            return l
                .refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
        };
        let val = l.value(name)?;
        l.describe(val.id, &own);
        values.push(requantized(l, name, val, &own, &quant));
    }
    if values.is_empty() {
        return l.refuse(Unsupported::Count { what: "inputs", count: node.input.len(), supported: "3 or more" });
    }
    let joined = join(l, node, y, &values, at)?;
    l.describe(joined.id, &quant);
    l.set(y, joined);
    Ok(true)
}

/// Cuts a part out of a value: first index and step on each of ONNX's axes.
fn cut(l: &mut Lowering<'_>, node: &str, name: &str, val: &Val, start: &[i64], step: &[i64], shape: &[usize]) -> Val {
    let dims: Vec<usize> = val.perm.iter().map(|&a| shape[a]).collect();
    let physical: Vec<usize> = val.perm.iter().map(|&a| val.shape[a]).collect();
    let x = l.graph.view(val.id, &physical);
    let y = l.like(name, val, &dims);
    let mut params = Slice { start: [0; 6], step: [1; 6] };
    for (i, &a) in val.perm.iter().enumerate() {
        (params.start[i], params.step[i]) = (start[a] as u32, step[a] as i32);
    }
    l.graph.step(node, Op::Slice, &[x], y, &params);
    Val { id: y, shape: shape.to_vec(), perm: val.perm.clone(), unsigned: val.unsigned }
}

/// `Slice` with constant bounds.
pub(super) fn slice(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let shape = l.fact(need(node, 0)?)?.shape.clone();
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let Some(starts) = l.list(node, 1, "starts")? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "starts" });
    };
    let axes = l.list(node, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = l.list(node, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if shape.len() > 6 || y_shape.contains(&0) || axes.len() != starts.len() || steps.len() != starts.len() {
        return l.refuse(Unsupported::Shape {
            what: "this slice: more than 6 axes, no elements, or lists of different lengths",
        });
    }
    let (mut start, mut step) = (vec![0; shape.len()], vec![1; shape.len()]);
    for ((&a, &s), &by) in axes.iter().zip(&starts).zip(&steps) {
        let a = axis(a, shape.len())?;
        let extent = shape[a] as i64;
        let from_front = if s < 0 { s.saturating_add(extent) } else { s };
        start[a] = if by < 0 { from_front.clamp(0, extent - 1) } else { from_front.clamp(0, extent) };
        step[a] = by;
    }
    let (name, y) = (node_name(node), output(node)?.to_owned());
    l.moved(node, |l, val| Ok(cut(l, &name, &y, val, &start, &step, &y_shape)))
}

/// `Split`: a slice for each part.
pub(super) fn split(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let shape = l.fact(need(node, 0)?)?.shape.clone();
    let at = axis(int(node, "axis").unwrap_or(0), shape.len())?;
    if shape.len() > 6 {
        return l.refuse(Unsupported::Rank { axes: shape.len(), supported: "1 to 6" });
    }
    for name in &node.output {
        if l.fact(name)?.shape.contains(&0) {
            return l.refuse(Unsupported::Empty);
        }
    }
    let mut from = 0;
    for name in &node.output {
        let part = l.fact(name)?.shape.clone();
        let mut start = vec![0; shape.len()];
        start[at] = from;
        from += part[at] as i64;
        let mut one = node.clone();
        one.output = vec![name.clone()];
        let step = vec![1; shape.len()];
        l.moved(&one, |l, val| Ok(cut(l, &node_name(node), name, val, &start, &step, &part)))?;
    }
    Ok(true)
}

/// `Pad` with constant amounts; integers are padded with what stands for the value.
pub(super) fn pad(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?.to_owned());
    let shape = l.fact(x)?.shape.clone();
    let y_shape = l.fact(&y)?.shape.clone();
    let Some(pads) = l.list(node, 1, "pads")? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "pads" });
    };
    let kind = match text(node, "mode").as_deref() {
        None | Some("constant") => PadKind::Constant,
        Some("edge") => PadKind::Edge,
        Some("reflect") => PadKind::Reflect,
        _ => return l.refuse(attribute(node, "mode", "constant, edge, reflect")),
    };
    let axes: Vec<i64> = match input(node, 3).map(|n| l.constant(n)) {
        None => (0..shape.len() as i64).collect(),
        Some(Some(value)) => elements::<i64>(&value)?,
        Some(None) => return l.refuse(Unsupported::NotConstant { input: 3, what: "axes" }),
    };
    if shape.len() > 6 || pads.len() != 2 * axes.len() || y_shape.contains(&0) {
        return l.refuse(Unsupported::Shape {
            what: "this padding: more than 6 axes, no elements, or lists of different lengths",
        });
    }
    let constant = match input(node, 2).map(|n| l.float_constant(n)) {
        None => super::attributes::float(node, "value").unwrap_or(0.0),
        Some(value) => match value? {
            Some((values, _)) if values.len() == 1 => values[0],
            _ => return l.refuse(Unsupported::NotConstant { input: 2, what: "value" }),
        },
    };
    let mut before = vec![0; shape.len()];
    for (&a, &amount) in axes.iter().zip(&pads) {
        before[axis(a, shape.len())?] = amount;
    }
    let quant = l.quant_of(x).filter(|_| {
        // The value has to be one of the integers' for the integers to be padded.
        let q = l.quant_of(x);
        q.is_some_and(|q| {
            let code = (constant / q.scale).round_ties_even() as i32 + q.zero_point;
            (-128..=127).contains(&code) && (code - q.zero_point) as f32 * q.scale == constant
        })
    });
    let name = node_name(node);
    let step = |l: &mut Lowering<'_>, val: &Val, value: u32| {
        let dims: Vec<usize> = val.perm.iter().map(|&a| y_shape[a]).collect();
        let physical: Vec<usize> = val.perm.iter().map(|&a| val.shape[a]).collect();
        let from = l.graph.view(val.id, &physical);
        let id = l.like(&y, val, &dims);
        let mut params = Pad { kind: kind as u32, before: [0; 6], value };
        for (i, &a) in val.perm.iter().enumerate() {
            params.before[i] = before[a] as i32;
        }
        l.graph.step(&name, Op::Pad, &[from], id, &params);
        Val { id, shape: y_shape.clone(), perm: val.perm.clone(), unsigned: val.unsigned }
    };
    match (quant, l.fact(x)?.dtype) {
        (Some(quant), _) => {
            let code = (constant / quant.scale).round_ties_even() as i32 + quant.zero_point;
            l.moved(node, |l, val| Ok(step(l, val, u32::from((code as i8).cast_unsigned()))))
        }
        (None, DatumType::F32) => {
            let val = l.value(x)?;
            let padded = step(l, &val, constant.to_bits());
            l.set(&y, padded);
            Ok(true)
        }
        _ => l.refuse(l.unfit(x, "input 0", "float32, int8 and uint8 with scales")?),
    }
}

/// `Gather` along one axis.
pub(super) fn gather(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, index, y) = (need(node, 0)?, need(node, 1)?, output(node)?.to_owned());
    let shape = l.fact(x)?.shape.clone();
    let y_shape = l.fact(&y)?.shape.clone();
    let at = axis(int(node, "axis").unwrap_or(0), shape.len())?;
    if y_shape.len() > 6 || y_shape.contains(&0) || shape.contains(&0) {
        return l.refuse(l.unfit(&y, "the output", "any type")?);
    }
    let name = node_name(node);
    let picks = l.value(index)?;
    let picks = l.logical(&name, &picks);
    let params = Gather {
        outer: shape[..at].iter().product::<usize>() as u32,
        axis: shape[at] as u32,
        inner: shape[at + 1..].iter().product::<usize>() as u32,
    };
    l.moved(node, |l, val| {
        let val = l.logical(&name, val);
        let id = l.like(&y, &val, &y_shape);
        l.graph.step(&name, Op::Gather, &[val.id, picks.id], id, &params);
        Ok(Val { id, shape: y_shape.clone(), perm: (0..y_shape.len()).collect(), unsigned: val.unsigned })
    })
}

/// `DepthToSpace` and `SpaceToDepth`: a reshape, a transpose, a reshape.
pub(super) fn depth_to_space(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let Some(block) = int(node, "blocksize").and_then(|b| usize::try_from(b).ok()).filter(|&b| b > 0) else {
        return Err(CompileError::invalid("no blocksize"));
    };
    let deep = node.op_type == "DepthToSpace";
    let columns = text(node, "mode").as_deref() == Some("CRD");
    let name = node_name(node);
    let &[n, c, h, w] = &l.fact(need(node, 0)?)?.shape[..] else {
        return l.refuse(Unsupported::Rank { axes: l.fact(need(node, 0)?)?.shape.len(), supported: "4" });
    };
    let (split, order) = match (deep, columns) {
        (true, false) => (vec![n, block, block, c / (block * block), h, w], vec![0, 3, 4, 1, 5, 2]),
        (true, true) => (vec![n, c / (block * block), block, block, h, w], vec![0, 1, 4, 2, 5, 3]),
        (false, false) => (vec![n, c, h / block, block, w / block, block], vec![0, 3, 5, 1, 2, 4]),
        (false, true) => (vec![n, c, h / block, block, w / block, block], vec![0, 1, 3, 5, 2, 4]),
    };
    l.moved(node, |l, val| {
        let val = l.logical(&name, val);
        let id = l.graph.view(val.id, &split);
        let wide = Val { id, shape: split.clone(), perm: (0..6).collect(), unsigned: val.unsigned };
        let moved = l.arranged(&name, &wide, &order);
        let id = l.graph.view(moved.id, &y_shape);
        Ok(Val { id, shape: y_shape.clone(), perm: (0..4).collect(), unsigned: val.unsigned })
    })
}

/// `ArgMax` and `ArgMin`; integers have the order of what they stand for.
pub(super) fn arg_max(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?);
    let val = match l.integers(x)? {
        Some((val, _)) => val,
        None => l.value(x)?,
    };
    if !matches!(l.graph.tensors[val.id].dtype, DType::I8 | DType::F32) {
        return l.refuse(l.unfit(x, "input 0", "float32, int8, uint8")?);
    }
    let name = node_name(node);
    let val = l.logical(&name, &val);
    let at = axis(int(node, "axis").unwrap_or(0), val.shape.len())?;
    let y_shape = l.fact(y)?.shape.clone();
    let id = l.graph.tensor(y, DType::I64, &y_shape);
    let params = ArgMax {
        least: u32::from(node.op_type == "ArgMin"),
        last: u32::from(int(node, "select_last_index").unwrap_or(0) == 1),
        outer: val.shape[..at].iter().product::<usize>() as u32,
        axis: val.shape[at] as u32,
        inner: val.shape[at + 1..].iter().product::<usize>() as u32,
    };
    l.graph.step(&name, Op::ArgMax, &[val.id], id, &params);
    l.define(y, id, &y_shape, false);
    Ok(true)
}
