//! Transposed convolution: on floats, since ONNX Runtime has no integer kernel for it, or on integers where that is
//! asked for.

use dunlin_package::DType;
use dunlin_package::op::{ConvFloat, Op};
use tract_onnx::pb::NodeProto;

use super::Lowering;
use super::attributes::{input, int, ints, need, output, text};
use super::conv::{Out, Weights, finish_map, window};
use super::layout::map_dims;
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// From ONNX's order (input channel, output channel of its group, kernel) to ours (output channel, kernel, input channel
/// of its group).
fn outputs_first<T: Copy>(values: &[T], shape: &[usize], groups: usize) -> Vec<T> {
    let (per_group, o) = (shape[0] / groups, shape[1]);
    let taps: usize = shape[2..].iter().product();
    let mut out = Vec::with_capacity(values.len());
    for channel in 0..o * groups {
        let (group, n) = (channel / o, channel % o);
        for tap in 0..taps {
            out.extend((0..per_group).map(|i| values[((group * per_group + i) * o + n) * taps + tap]));
        }
    }
    out
}

/// The integer form; `None` where the node is not between integers.
fn integer(l: &mut Lowering<'_>, node: &NodeProto, groups: usize) -> Result<Option<bool>, CompileError> {
    let (x_name, y_name) = (need(node, 0)?, output(node)?);
    let quantized = l.quant_of(x_name).zip(l.target(y_name)?).zip(l.dequantized_weights(need(node, 1)?)?);
    let Some(((x_quant, target), stored)) = quantized else { return Ok(None) };
    if stored.scales.len() > 1 && (stored.axis != 1 || groups > 1) {
        return Ok(None);
    }
    let channels = stored.shape[1] * groups;
    let Some(bias) = l.bias(input(node, 2), &x_quant, &stored.scales, channels)? else { return Ok(None) };
    let Some((val, _)) = l.integers(x_name)? else { return Ok(None) };
    let y_shape = l.fact(y_name)?.shape.clone();
    let Some(window) = window(node, &stored.shape[2..], &val.shape, &y_shape)? else { return Ok(None) };
    let [kh, kw] = window.kernel.map(|k| k as usize);
    let weights = Weights {
        codes: outputs_first(&stored.codes, &stored.shape, groups),
        dims: [channels, kh, kw, stored.shape[0] / groups],
        scales: stored.scales,
        transposed: true,
    };
    let (x, _) = l.feature_map(y_name, &val)?;
    let name = node_name(node);
    let out = Out::Codes(&target);
    let y = l.conv_step(&name, (x, &x_quant), &weights, &bias, out, (window, groups), map_dims(&y_shape));
    finish_map(l, &target, y, &y_shape);
    Ok(Some(true))
}

/// `ConvTranspose` with constant weights.
pub(super) fn conv_transpose(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y = output(node)?;
    let Some((values, shape)) = l.float_constant(need(node, 1)?)? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "weights" });
    };
    let groups = int(node, "group").unwrap_or(1) as usize;
    let y_shape = l.fact(y)?.shape.clone();
    let auto = text(node, "auto_pad").is_some_and(|a| a != "NOTSET");
    let ranks = (3..=4).contains(&shape.len()) && y_shape.len() == shape.len();
    if !ranks || groups == 0 || !shape[0].is_multiple_of(groups) || auto || ints(node, "output_shape").is_some() {
        return l.refuse(Unsupported::Shape { what: "auto_pad, output_shape, or a kernel of other than 1 or 2 axes" });
    }
    if l.integer
        && let Some(done) = integer(l, node, groups)?
    {
        return Ok(done);
    }
    let o = shape[1];
    let taps: usize = shape[2..].iter().product();
    let bias = match input(node, 2) {
        None => vec![0.0; o * groups],
        Some(name) => match l.float_constant(name)? {
            Some((values, _)) => values,
            None => return l.refuse(Unsupported::NotConstant { input: 2, what: "bias" }),
        },
    };
    let val = l.value(need(node, 0)?)?;
    let Some(window) = window(node, &shape[2..], &val.shape, &y_shape)? else {
        return l.refuse(Unsupported::Rank { axes: y_shape.len(), supported: "3 or 4" });
    };
    let per_group = shape[0] / groups;
    let out = outputs_first(&values, &shape, groups);
    let [kh, kw] = window.kernel.map(|k| k as usize);
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let name = node_name(node);
    let (x, _) = l.feature_map(y, &val)?;
    let w = l.graph.constant(&format!("{name}.weights"), DType::F32, &[o * groups, kh, kw, per_group], bytes(&out));
    let b = l.graph.constant(&format!("{name}.bias"), DType::F32, &[bias.len()], bytes(&bias));
    let end = l.activation(y);
    let id = l.graph.tensor(&end.name, DType::F32, &map_dims(&y_shape));
    let params = ConvFloat { window, groups: groups as u32, bounds: end.bounds };
    let macs = (val.shape.iter().product::<usize>() * o * taps) as u64;
    l.graph.step(&name, Op::ConvTransposeFloat, &[x, w, b], id, &params).macs = macs;
    l.set_map(&end.name, id, &y_shape, false);
    l.fuse(&end);
    Ok(true)
}
