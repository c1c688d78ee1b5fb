//! Convolutions and products by constant weights: one kernel for all of them.

use dunlin_package::DType;
use dunlin_package::op::{Concat, Conv, ConvFloat, Gather, Op, Range, Window};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::attributes::{axis, input, int, ints, need, output, text};
use super::layout::{channels_last, map_dims};
use super::linear::check_scale;
use super::{Lowering, Quant, Target, elements};
use crate::error::{CompileError, ErrorKind};
use crate::graph::Id;
use crate::unsupported::Unsupported;

/// Constant int8 weights in the engine's order: output channel, height, width, input channel.
pub(super) struct Weights {
    pub(super) codes: Vec<i16>,
    pub(super) dims: [usize; 4],
    pub(super) scales: Vec<f32>,
    /// Whether the convolution is transposed.
    pub(super) transposed: bool,
}

/// Weights as the graph has them, in its own order, with their zero points taken off.
pub(super) struct Stored {
    pub(super) codes: Vec<i16>,
    pub(super) shape: Vec<usize>,
    pub(super) scales: Vec<f32>,
    /// The axis of the scales.
    pub(super) axis: usize,
}

/// A constant's elements and shape.
pub(super) type Floats = (Vec<f32>, Vec<usize>);

/// What becomes of an integer product's accumulators.
#[derive(Clone, Copy)]
pub(super) enum Out<'t> {
    /// Integers of a target's meaning.
    Codes(&'t Target),
    /// The accumulators themselves, under this name.
    Accumulators(&'t str),
    /// Floats: accumulators times the scales of both factors.
    Floats(&'t str),
}

impl Lowering<'_> {
    /// Reads int8 or uint8 weights; `None` when they are not constant.
    pub(super) fn stored(
        &self,
        name: &str,
        scale: Option<&str>,
        zero_point: Option<&str>,
        scale_axis: usize,
    ) -> Result<Option<Stored>, CompileError> {
        let Some(tensor) = self.constant(name) else { return Ok(None) };
        if !matches!(tensor.datum_type(), DatumType::I8 | DatumType::U8) {
            return Ok(None);
        }
        let scales = match scale.map(|s| (s, self.constant(s))) {
            None => vec![1.0],
            Some((_, None)) => return Ok(None),
            Some((name, Some(value))) => {
                let scales = elements::<f32>(&value)?;
                scales.iter().try_for_each(|&s| check_scale(s, name))?;
                scales
            }
        };
        let zeros = match zero_point {
            None => vec![0],
            Some(name) => match self.constant(name) {
                Some(value) => elements::<i32>(&value)?,
                None => return Ok(None),
            },
        };
        let shape = tensor.shape().to_vec();
        if scales.len() > 1 && shape.get(scale_axis) != Some(&scales.len()) {
            return Err(CompileError::new(
                ErrorKind::Quantization,
                format!("{} scales for weights of shape {shape:?}", scales.len()),
            ));
        }
        let inner: usize = shape.iter().skip(scale_axis + 1).product();
        let extent = shape.get(scale_axis).copied().unwrap_or(1);
        if scales.is_empty() || zeros.is_empty() {
            return Err(CompileError::new(ErrorKind::Quantization, format!("'{name}' has no scale or no zero point")));
        }
        let codes: Option<Vec<i16>> = elements::<i32>(&tensor)?
            .iter()
            .enumerate()
            .map(|(i, &q)| {
                let channel = i / inner.max(1) % extent.max(1);
                i16::try_from(q - zeros[channel.min(zeros.len() - 1)]).ok()
            })
            .collect();
        let codes = codes.filter(|c| c.iter().all(|q| (-255..=255).contains(q))).ok_or_else(|| {
            CompileError::new(ErrorKind::Quantization, format!("a zero point of '{name}' is outside of its type"))
        })?;
        Ok(Some(Stored { codes, shape, scales, axis: scale_axis }))
    }

    /// Weights behind a DequantizeLinear.
    pub(super) fn dequantized_weights(&self, name: &str) -> Result<Option<Stored>, CompileError> {
        let Some(node) = self.producer(name).filter(|n| n.op_type == "DequantizeLinear") else { return Ok(None) };
        let (codes, scale) = (need(node, 0)?, need(node, 1)?);
        let rank = self.fact(codes)?.shape.len();
        let single = self.constant(scale).is_some_and(|s| s.len() == 1);
        let scale_axis = if single { 0 } else { axis(int(node, "axis").unwrap_or(1), rank)? };
        self.stored(codes, Some(scale), input(node, 2), scale_axis)
    }

    /// A bias in the accumulator's unit: i32 as it is stored, floats divided by the accumulator's scale.
    pub(super) fn bias(
        &self,
        name: Option<&str>,
        x: &Quant,
        scales: &[f32],
        n: usize,
    ) -> Result<Option<Vec<i32>>, CompileError> {
        let Some(name) = name else { return Ok(Some(vec![0; n])) };
        let spread = |values: Vec<i32>| match values.len() {
            len if len == n => Some(values),
            1 => Some(vec![values[0]; n]),
            _ => None,
        };
        if let Some(node) = self.producer(name).filter(|p| p.op_type == "DequantizeLinear") {
            let Some(codes) = self.constant(need(node, 0)?) else { return Ok(None) };
            if codes.datum_type() != DatumType::I32 {
                return Ok(None);
            }
            // ONNX Runtime takes the integers as they are where their scale is the accumulator's, about.
            let Some(own) = self.constant(need(node, 1)?) else { return Ok(None) };
            let own = elements::<f32>(&own)?;
            let near = |c: usize| {
                let scale = x.scale * scales[c.min(scales.len() - 1)];
                (own[c.min(own.len() - 1)] - scale).abs() <= 1e-6 + 0.01 * scale.abs()
            };
            if own.is_empty() || !(0..own.len().max(scales.len())).all(near) {
                return Ok(None);
            }
            return Ok(spread(elements::<i32>(&codes)?));
        }
        let Some(values) = self.constant(name) else { return Ok(None) };
        if values.datum_type() == DatumType::I32 {
            return Ok(spread(elements::<i32>(&values)?));
        }
        let values = elements::<f32>(&values)?;
        let codes = values.iter().enumerate().map(|(c, &b)| {
            let scale = x.scale * scales[if scales.len() == 1 { 0 } else { c }];
            (b / scale).round_ties_even() as i32
        });
        Ok(spread(codes.collect()))
    }

    /// The meaning of integers that have a zero point and no scale.
    pub(super) fn unscaled(&self, name: &str, zero_point: Option<&str>) -> Result<Option<Quant>, CompileError> {
        let unsigned = self.fact(name)?.dtype == DatumType::U8;
        let zeros = match zero_point.map(|z| self.constant(z)) {
            None => vec![0],
            Some(None) => return Ok(None),
            Some(Some(value)) => elements::<i32>(&value)?,
        };
        let &[zero] = &zeros[..] else { return Ok(None) };
        let zero_point = if unsigned { zero - 128 } else { zero };
        Ok(Some(Quant { scale: 1.0, zero_point, unsigned, scalar: true }))
    }

    /// The node that computes a value.
    pub(super) fn producer(&self, name: &str) -> Option<&NodeProto> {
        self.imported.nodes.iter().find(|n| n.output.iter().any(|o| o == name))
    }

    /// Adds the step of an integer convolution; the result's tensor has `y_dims`.
    #[expect(clippy::too_many_arguments, reason = "a convolution's operands")]
    pub(super) fn conv_step(
        &mut self,
        node: &str,
        (x, x_quant): (Id, &Quant),
        weights: &Weights,
        bias: &[i32],
        out: Out<'_>,
        (window, groups): (Window, usize),
        y_dims: [usize; 4],
    ) -> Id {
        let [o, kh, kw, c] = weights.dims;
        let k = kh * kw * c;
        let macs = (y_dims.iter().product::<usize>() * k) as u64;
        let (codes, copies) = summands(&weights.codes, c);
        let x = if copies == 1 { x } else { self.repeated(node, x, copies, groups) };
        let folded = bias.iter().enumerate().flat_map(|(n, &b)| {
            let sum = weights.codes[n * k..(n + 1) * k].iter().map(|&w| i32::from(w)).sum::<i32>();
            b.wrapping_sub(x_quant.zero_point.wrapping_mul(sum)).to_le_bytes()
        });
        let folded: Vec<u8> = folded.collect();
        let w = self.graph.constant(&format!("{node}.weights"), DType::I8, &[o, kh, kw, c * copies], codes);
        let b = self.graph.constant(&format!("{node}.bias"), DType::I32, &[o], folded);
        let (name, dtype, range, unit) = match out {
            Out::Codes(target) => (target.name.as_str(), DType::I8, target.range(), Some(target.quant.scale)),
            Out::Accumulators(name) => (name, DType::I32, Range::default(), None),
            Out::Floats(name) => (name, DType::F32, Range::default(), Some(1.0)),
        };
        let mut inputs = vec![x, w, b];
        if let Some(unit) = unit {
            let scales: Vec<u8> =
                weights.scales.iter().flat_map(|s| (x_quant.scale * s / unit).to_le_bytes()).collect();
            inputs.push(self.graph.constant(&format!("{node}.scale"), DType::F32, &[weights.scales.len()], scales));
        }
        let y = self.graph.tensor(name, dtype, &y_dims);
        let params = Conv { window, groups: groups as u32, x_zero_point: x_quant.zero_point, range };
        let op = if weights.transposed { Op::ConvTranspose } else { Op::Conv };
        self.graph.step(node, op, &inputs, y, &params).macs = macs;
        y
    }
}

/// Weights as bytes, in the order of a convolution's. Weights beyond int8, as uint8 ones are that lie far from their zero
/// point, become sums of several: then every group's channels come that many times.
fn summands(codes: &[i16], channels: usize) -> (Vec<u8>, usize) {
    let needed = |&q: &i16| if q > 0 { q.div_euclid(127) + i16::from(q % 127 != 0) } else { (-q + 127) / 128 };
    let copies = codes.iter().map(needed).max().unwrap_or(1).max(1);
    let mut bytes = Vec::with_capacity(codes.len() * copies as usize);
    for tap in codes.chunks(channels.max(1)) {
        let mut rest = tap.to_vec();
        for _ in 0..copies {
            for q in &mut rest {
                let part = (*q).clamp(-128, 127);
                bytes.push((part as i8).cast_unsigned());
                *q -= part;
            }
        }
    }
    (bytes, copies as usize)
}

impl Lowering<'_> {
    /// A feature map whose groups have their channels several times.
    fn repeated(&mut self, node: &str, x: Id, copies: usize, groups: usize) -> Id {
        let source = self.graph.tensors[x].clone();
        let mut dims = source.dims.clone();
        let channels = dims.pop().unwrap_or(1);
        let outer: usize = dims.iter().product();
        dims.push(channels * copies);
        let name = format!("{node}.repeated");
        let y = self.graph.tensor(&name, source.dtype, &dims);
        (self.graph.tensors[y].scale, self.graph.tensors[y].zero_point) = (source.scale, source.zero_point);
        if groups == 1 {
            self.graph.step(node, Op::Concat, &vec![x; copies], y, &Concat { outer: outer as u32 });
            return y;
        }
        let each = channels / groups;
        let picks = (0..groups).flat_map(|g| (0..copies).flat_map(move |_| g * each..(g + 1) * each));
        let picks: Vec<u8> = picks.flat_map(|i| (i as i64).to_le_bytes()).collect();
        let index = self.graph.constant(&format!("{node}.channels"), DType::I64, &[channels * copies], picks);
        let params = Gather { outer: outer as u32, axis: channels as u32, inner: 1 };
        self.graph.step(node, Op::Gather, &[x, index], y, &params);
        y
    }
}

/// A window from a node's attributes, automatic borders computed.
pub(super) fn window(
    node: &NodeProto,
    kernel: &[usize],
    x: &[usize],
    y: &[usize],
) -> Result<Option<Window>, CompileError> {
    let axes = kernel.len();
    if !(1..=2).contains(&axes) {
        return Ok(None);
    }
    let list = |name: &str, none: i64| ints(node, name).unwrap_or_else(|| vec![none; axes]);
    let (strides, dilations) = (list("strides", 1), list("dilations", 1));
    let mut pads = ints(node, "pads").unwrap_or_else(|| vec![0; 2 * axes]);
    if strides.len() != axes || dilations.len() != axes || pads.len() != 2 * axes {
        return Err(CompileError::invalid("strides, dilations or pads do not fit the kernel"));
    }
    if pads.iter().chain(&strides).chain(&dilations).any(|&v| v < 0) || strides.contains(&0) || dilations.contains(&0) {
        return Err(CompileError::unsupported("negative pads, or strides or dilations below 1"));
    }
    let auto = text(node, "auto_pad").unwrap_or_default();
    for i in 0..axes {
        let reach = (kernel[i] as i64 - 1) * dilations[i] + 1;
        if auto.starts_with("SAME") {
            let total = ((y[2 + i] as i64 - 1) * strides[i] + reach - x[2 + i] as i64).max(0);
            let small = total / 2;
            (pads[i], pads[axes + i]) =
                if auto == "SAME_UPPER" { (small, total - small) } else { (total - small, small) };
        } else if auto == "VALID" {
            (pads[i], pads[axes + i]) = (0, 0);
        }
    }
    // One axis is a map of height 1.
    let pair = |v: &[i64], none: u32| if axes == 1 { [none, v[0] as u32] } else { [v[0] as u32, v[1] as u32] };
    let kernel: Vec<i64> = kernel.iter().map(|&k| k as i64).collect();
    let [top, left] = pair(&pads[..axes], 0);
    let [bottom, right] = pair(&pads[axes..], 0);
    Ok(Some(Window {
        kernel: pair(&kernel, 1),
        stride: pair(&strides, 1),
        dilation: pair(&dilations, 1),
        pad: [top, left, bottom, right],
    }))
}

/// From ONNX's order (output, input, height, width) to ours (output, height, width, input).
pub(super) fn channels_last_weights<T: Copy>(values: &[T], shape: &[usize]) -> (Vec<T>, [usize; 4]) {
    let [o, c, kh, kw] = match *shape {
        [o, c, kw] => [o, c, 1, kw],
        [o, c, kh, kw] => [o, c, kh, kw],
        _ => [1, values.len(), 1, 1],
    };
    let mut out = Vec::with_capacity(values.len());
    for n in 0..o {
        for tap in 0..kh * kw {
            out.extend((0..c).map(|i| values[(n * c + i) * kh * kw + tap]));
        }
    }
    (out, [o, kh, kw, c])
}

/// `Conv` between DequantizeLinear and QuantizeLinear, or on floats.
pub(super) fn conv(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x_name, w_name, y_name) = (need(node, 0)?, need(node, 1)?, output(node)?);
    let quantized = l.quant_of(x_name).zip(l.target(y_name)?).zip(l.dequantized_weights(w_name)?);
    let Some(((x_quant, target), stored)) = quantized.filter(|(_, s)| s.scales.len() == 1 || s.axis == 0) else {
        return conv_float(l, node);
    };
    let Some(bias) = l.bias(input(node, 2), &x_quant, &stored.scales, stored.shape[0])? else {
        return conv_float(l, node);
    };
    integer_conv(l, node, x_name, &x_quant, stored, &bias, Out::Codes(&target))
}

fn integer_conv(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    x_name: &str,
    x_quant: &Quant,
    stored: Stored,
    bias: &[i32],
    out: Out<'_>,
) -> Result<bool, CompileError> {
    let val = match l.integers(x_name)? {
        Some((val, _)) => val,
        None => l.value(x_name)?,
    };
    let y_name = output(node)?;
    let y_shape = l.fact(y_name)?.shape.clone();
    let Some(window) = window(node, &stored.shape[2..], &val.shape, &y_shape)? else {
        return l.refuse(Unsupported::Rank { axes: y_shape.len(), supported: "3 or 4" });
    };
    let (codes, dims) = channels_last_weights(&stored.codes, &stored.shape);
    let weights = Weights { codes, dims, scales: stored.scales, transposed: false };
    let (x, _) = l.feature_map(y_name, &val)?;
    l.describe(x, x_quant);
    let groups = int(node, "group").unwrap_or(1) as usize;
    let name = crate::import::node_name(node);
    let y = l.conv_step(&name, (x, x_quant), &weights, bias, out, (window, groups), map_dims(&y_shape));
    match out {
        Out::Codes(target) => finish_map(l, target, y, &y_shape),
        Out::Accumulators(name) | Out::Floats(name) => l.set_map(name, y, &y_shape, false),
    }
    Ok(true)
}

/// `ConvInteger`: x, w and their zero points; the result is the accumulators.
pub(super) fn conv_integer(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let x = need(node, 0)?;
    let Some(x_quant) = l.unscaled(x, input(node, 2))? else {
        return l.refuse(Unsupported::NotConstant { input: 2, what: "zero point" });
    };
    let Some(stored) = l.stored(need(node, 1)?, None, input(node, 3), 0)? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "weights" });
    };
    let bias = vec![0; stored.shape[0]];
    integer_conv(l, node, x, &x_quant, stored, &bias, Out::Accumulators(output(node)?))
}

/// A feature map with rank-4 dims becomes the value it stands for.
pub(super) fn finish_map(l: &mut Lowering<'_>, target: &Target, y: Id, shape: &[usize]) {
    let perm = channels_last(shape.len());
    let dims: Vec<usize> = perm.iter().map(|&a| shape[a]).collect();
    let y = l.graph.view(y, &dims);
    l.finish(target, y, shape, &perm);
}

/// `QLinearConv`: x, its scale and zero point, w, its scale and zero point, y's scale and zero point, bias.
pub(super) fn qlinear_conv(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((x_quant, target)) = qlinear_ends(l, node, 0, 6)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let Some(stored) = l.stored(need(node, 3)?, Some(need(node, 4)?), input(node, 5), 0)? else {
        return l.refuse(Unsupported::NotConstant { input: 3, what: "weights" });
    };
    let Some(bias) = l.bias(input(node, 8), &x_quant, &stored.scales, stored.shape[0])? else {
        return l.refuse(Unsupported::NotConstant { input: 8, what: "bias" });
    };
    integer_conv(l, node, need(node, 0)?, &x_quant, stored, &bias, Out::Codes(&target))
}

/// The quantization of a QLinear operator's input at `from` and of its result, whose scale is input `to`.
pub(super) fn qlinear_ends(
    l: &Lowering<'_>,
    node: &NodeProto,
    from: usize,
    to: usize,
) -> Result<Option<(Quant, Target)>, CompileError> {
    let unsigned = |name: &str| Ok::<_, CompileError>(l.fact(name)?.dtype == DatumType::U8);
    let x = l.quant(need(node, from + 1)?, input(node, from + 2), unsigned(need(node, from)?)?)?;
    let name = output(node)?;
    let y = l.quant(need(node, to)?, input(node, to + 1), unsigned(name)?)?;
    Ok(x.zip(y).map(|(x, quant)| (x, Target { name: name.to_owned(), quant, lo: -128, hi: 127, fused: vec![] })))
}

/// `Conv` on floats.
fn conv_float(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y_name = output(node)?;
    let Some((values, shape)) = l.float_constant(need(node, 1)?)? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "weights" });
    };
    let bias = match input(node, 2) {
        None => vec![0.0; shape[0]],
        Some(name) => match l.float_constant(name)? {
            Some((values, _)) => values,
            None => return l.refuse(Unsupported::NotConstant { input: 2, what: "bias" }),
        },
    };
    let val = l.value(need(node, 0)?)?;
    let y_shape = l.fact(y_name)?.shape.clone();
    let Some(window) = window(node, &shape[2..], &val.shape, &y_shape)? else {
        return l.refuse(Unsupported::Rank { axes: y_shape.len(), supported: "3 or 4" });
    };
    let (values, dims) = channels_last_weights(&values, &shape);
    let (x, _) = l.feature_map(y_name, &val)?;
    let groups = int(node, "group").unwrap_or(1) as u32;
    let name = crate::import::node_name(node);
    let end = l.activation(y_name);
    let y = conv_float_step(l, &name, &end, x, (&values, dims), &bias, (window, groups), map_dims(&y_shape));
    l.set_map(&end.name, y, &y_shape, false);
    l.fuse(&end);
    Ok(true)
}

#[expect(clippy::too_many_arguments, reason = "a convolution's operands")]
pub(super) fn conv_float_step(
    l: &mut Lowering<'_>,
    node: &str,
    end: &super::Activation,
    x: Id,
    (values, dims): (&[f32], [usize; 4]),
    bias: &[f32],
    (window, groups): (Window, u32),
    y_dims: [usize; 4],
) -> Id {
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let w = l.graph.constant(&format!("{node}.weights"), DType::F32, &dims, bytes(values));
    let b = l.graph.constant(&format!("{node}.bias"), DType::F32, &[bias.len()], bytes(bias));
    let y = l.graph.tensor(&end.name, DType::F32, &y_dims);
    let params = ConvFloat { window, groups, bounds: end.bounds };
    let macs = (y_dims.iter().product::<usize>() * dims[1..].iter().product::<usize>()) as u64;
    l.graph.step(node, Op::ConvFloat, &[x, w, b], y, &params).macs = macs;
    y
}

impl Lowering<'_> {
    /// A constant's floats, dequantized if need be.
    pub(super) fn float_constant(&self, name: &str) -> Result<Option<Floats>, CompileError> {
        if let Some(value) = self.constant(name) {
            return Ok(Some((elements::<f32>(&value)?, value.shape().to_vec())));
        }
        let Some(node) = self.producer(name).filter(|n| n.op_type == "DequantizeLinear") else { return Ok(None) };
        let (Some(codes), Some(scale)) = (self.constant(need(node, 0)?), self.constant(need(node, 1)?)) else {
            return Ok(None);
        };
        let zeros = match input(node, 2) {
            None => vec![0],
            Some(name) => match self.constant(name) {
                Some(value) => elements::<i32>(&value)?,
                None => return Ok(None),
            },
        };
        let (scales, shape) = (elements::<f32>(&scale)?, codes.shape().to_vec());
        if scales.is_empty() || zeros.is_empty() {
            return Ok(None);
        }
        let at = if scales.len() == 1 { 0 } else { axis(int(node, "axis").unwrap_or(1), shape.len())? };
        let (inner, extent) =
            (shape.iter().skip(at + 1).product::<usize>().max(1), shape.get(at).copied().unwrap_or(1));
        let values = elements::<i32>(&codes)?
            .iter()
            .enumerate()
            .map(|(i, &q)| {
                let c = i / inner % extent.max(1);
                q.wrapping_sub(zeros[c.min(zeros.len() - 1)]) as f32 * scales[c.min(scales.len() - 1)]
            })
            .collect();
        Ok(Some((values, shape)))
    }
}

#[cfg(test)]
mod tests {
    use super::summands;

    #[test]
    fn weights_beyond_a_byte_are_sums() {
        for q in -255..=255i16 {
            let (bytes, copies) = summands(&[q, 3], 2);
            let parts: Vec<i16> = bytes.iter().map(|b| i16::from(b.cast_signed())).collect();
            assert_eq!(bytes.len(), 2 * copies);
            assert_eq!(parts.iter().step_by(2).sum::<i16>(), q);
            assert_eq!(parts.iter().skip(1).step_by(2).sum::<i16>(), 3);
            assert_eq!(copies == 1, (-128..=127).contains(&q), "{q}");
        }
    }
}
