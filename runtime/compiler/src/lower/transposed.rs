//! Transposed convolution, on floats: ONNX Runtime has no integer kernel for it.

use dunlin_package::DType;
use dunlin_package::op::{ConvFloat, Op};
use tract_onnx::pb::NodeProto;

use super::Lowering;
use super::attributes::{input, int, ints, need, output, text};
use super::conv::window;
use super::layout::map_dims;
use crate::error::CompileError;
use crate::import::node_name;

/// `ConvTranspose` with constant weights.
pub(super) fn conv_transpose(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let y = output(node)?;
    let Some((values, shape)) = l.float_constant(need(node, 1)?)? else { return Ok(false) };
    // Input channel, output channel of a group, kernel.
    let groups = int(node, "group").unwrap_or(1) as usize;
    let y_shape = l.fact(y)?.shape.clone();
    let auto = text(node, "auto_pad").is_some_and(|a| a != "NOTSET");
    if !(3..=4).contains(&shape.len()) || groups == 0 || auto || ints(node, "output_shape").is_some() {
        return Ok(false);
    }
    let (c, o) = (shape[0], shape[1]);
    let taps: usize = shape[2..].iter().product();
    let bias = match input(node, 2) {
        None => vec![0.0; o * groups],
        Some(name) => match l.float_constant(name)? {
            Some((values, _)) => values,
            None => return Ok(false),
        },
    };
    let val = l.value(need(node, 0)?)?;
    let Some(window) = window(node, &shape[2..], &val.shape, &y_shape)? else { return Ok(false) };
    let per_group = c / groups;
    // Output channel, height, width, input channel of its group.
    let mut out = Vec::with_capacity(values.len());
    for channel in 0..o * groups {
        let (group, n) = (channel / o, channel % o);
        for tap in 0..taps {
            out.extend((0..per_group).map(|i| values[((group * per_group + i) * o + n) * taps + tap]));
        }
    }
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
