//! Resize of height and width.

use dunlin_package::op::{Coordinate, Nearest, Op, Resize, ResizeKind};
use tract_onnx::pb::NodeProto;

use super::attributes::{attribute, input, int, need, output, text};
use super::layout::map_dims;
use super::{Lowering, Val, elements};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// `Resize` and `Upsample`: nearest on any type, linear on floats.
pub(super) fn resize(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (x, y) = (need(node, 0)?, output(node)?.to_owned());
    let (shape, y_shape) = (l.fact(x)?.shape.clone(), l.fact(&y)?.shape.clone());
    let upsample = node.op_type == "Upsample" || l.imported.opset < 11;
    let kind = match text(node, "mode").as_deref() {
        None | Some("nearest") => ResizeKind::Nearest,
        Some("linear") => ResizeKind::Linear,
        _ => return l.refuse(attribute(node, "mode", "nearest, linear")),
    };
    let coordinate = match text(node, "coordinate_transformation_mode").as_deref() {
        _ if upsample => Coordinate::Asymmetric,
        None | Some("half_pixel") => Coordinate::HalfPixel,
        Some("asymmetric") => Coordinate::Asymmetric,
        Some("align_corners") => Coordinate::AlignCorners,
        Some("pytorch_half_pixel") => Coordinate::PytorchHalfPixel,
        Some("half_pixel_symmetric") => Coordinate::HalfPixelSymmetric,
        _ => {
            return l.refuse(attribute(
                node,
                "coordinate_transformation_mode",
                "half_pixel, asymmetric, align_corners, pytorch_half_pixel, half_pixel_symmetric",
            ));
        }
    };
    let nearest = match text(node, "nearest_mode").as_deref() {
        _ if upsample => Nearest::Floor,
        None | Some("round_prefer_floor") => Nearest::RoundPreferFloor,
        Some("round_prefer_ceil") => Nearest::RoundPreferCeil,
        Some("floor") => Nearest::Floor,
        Some("ceil") => Nearest::Ceil,
        _ => return l.refuse(attribute(node, "nearest_mode", "round_prefer_floor, round_prefer_ceil, floor, ceil")),
    };
    let spatial = shape.len() == 4 && shape[..2] == y_shape[..2];
    if !spatial || int(node, "antialias").unwrap_or(0) != 0 || y_shape.contains(&0) || shape.contains(&0) {
        return l.refuse(Unsupported::Shape {
            what: "resizing of other axes than height and width of 4, antialias, or a tensor without elements",
        });
    }
    if text(node, "keep_aspect_ratio_policy").is_some_and(|p| p != "stretch") {
        return l.refuse(attribute(node, "keep_aspect_ratio_policy", "stretch"));
    }
    // Scales as given, on all axes or on those named; sizes give the ratio.
    let at = if upsample { 1 } else { 2 };
    let given = match input(node, at).and_then(|n| l.constant(n)) {
        Some(value) => elements::<f32>(&value)?,
        None => Vec::new(),
    };
    let ratio = |a: usize| y_shape[a] as f32 / shape[a] as f32;
    let scale = match given.len() {
        4 => [given[2], given[3]],
        0 => [ratio(2), ratio(3)],
        _ => return l.refuse(Unsupported::Count { what: "scales", count: given.len(), supported: "4" }),
    };
    if kind == ResizeKind::Linear && l.quant_of(x).is_none() && l.fact(x)?.dtype != tract_onnx::prelude::DatumType::F32
    {
        return l.refuse(l.unfit(x, "input 0", "float32")?);
    }
    let params = Resize { kind: kind as u32, coordinate: coordinate as u32, nearest: nearest as u32, scale };
    let name = node_name(node);
    let step = |l: &mut Lowering<'_>, val: &Val| -> Result<Val, CompileError> {
        let (map, _) = l.feature_map(&y, val)?;
        let source = l.graph.tensors[map].clone();
        let id = l.graph.tensor(&y, source.dtype, &map_dims(&y_shape));
        (l.graph.tensors[id].scale, l.graph.tensors[id].zero_point) = (source.scale, source.zero_point);
        l.graph.step(&name, Op::Resize, &[map], id, &params);
        Ok(Val { id, shape: y_shape.clone(), perm: vec![0, 2, 3, 1], unsigned: val.unsigned })
    };
    if kind == ResizeKind::Nearest {
        return l.moved(node, step);
    }
    let val = l.value(x)?;
    let resized = step(l, &val)?;
    l.set(&y, resized);
    Ok(true)
}
