//! Functions of one element: a table of 256 on integers, a step on floats.

use dunlin_package::DType;
use dunlin_package::op::{Op, Unary, UnaryKind};
use tract_onnx::pb::NodeProto;

use super::attributes::{clip_bounds, float, need, output, text};
use super::{Lowering, Quant, Target, Val};
use crate::error::CompileError;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// Bytes of the function from integers of one meaning to integers of another.
pub(super) fn table(from: Quant, to: Quant, f: impl Fn(f32) -> f32) -> Vec<u8> {
    (0..=255u8)
        .map(|byte| {
            let x = (i32::from(byte.cast_signed()) - from.zero_point) as f32 * from.scale;
            let code = (f(x) / to.scale).round_ties_even() as i32;
            (code.saturating_add(to.zero_point).clamp(-128, 127) as i8).cast_unsigned()
        })
        .collect()
}

/// A function of one element on integers, its fused activation in the table too.
pub(super) fn apply(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    quant: &Quant,
    target: &Target,
    f: impl Fn(f32) -> f32,
) -> Result<bool, CompileError> {
    let bounded = |b: u8| i32::from(b.cast_signed()).clamp(target.lo, target.hi) as u8;
    let table = table(*quant, target.quant, f).into_iter().map(bounded).collect();
    let id = l.table_step(&node_name(node), val, table, &node.op_type);
    l.finish(target, id, &val.shape, &val.perm);
    Ok(true)
}

/// `QLinearSigmoid` and `QLinearLeakyRelu`: x, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((quant, target)) = super::conv::qlinear_ends(l, node, 0, 3)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let params = match node.op_type.as_str() {
        "QLinearSigmoid" => Unary { kind: UnaryKind::Sigmoid as u32, ..Unary::default() },
        _ => Unary { kind: UnaryKind::LeakyRelu as u32, alpha: float(node, "alpha").unwrap_or(0.01), beta: 0.0 },
    };
    let val = l.value(need(node, 0)?)?;
    l.describe(val.id, &quant);
    apply(l, node, &val, &quant, &target, |x| dunlin_engine::ops::unary::apply(&params, x))
}

/// The engine's function of a node, with its parameters.
fn function(l: &Lowering<'_>, node: &NodeProto) -> Option<Unary> {
    let alpha = |none: f32| float(node, "alpha").unwrap_or(none);
    let plain = |kind| (kind, 0.0, 0.0);
    let (kind, alpha, beta) = match node.op_type.as_str() {
        "Relu" => (UnaryKind::Clip, 0.0, f32::INFINITY),
        "Clip" => {
            let (lo, hi) = clip_bounds(l, node)?;
            (UnaryKind::Clip, lo, hi)
        }
        "LeakyRelu" => (UnaryKind::LeakyRelu, alpha(0.01), 0.0),
        "Sigmoid" => plain(UnaryKind::Sigmoid),
        "Tanh" => plain(UnaryKind::Tanh),
        "HardSigmoid" => (UnaryKind::HardSigmoid, alpha(0.2), float(node, "beta").unwrap_or(0.5)),
        "HardSwish" => plain(UnaryKind::HardSwish),
        "Gelu" if text(node, "approximate").as_deref() == Some("tanh") => plain(UnaryKind::GeluTanh),
        "Gelu" => plain(UnaryKind::Gelu),
        "Exp" => plain(UnaryKind::Exp),
        "Log" => plain(UnaryKind::Log),
        "Sqrt" => plain(UnaryKind::Sqrt),
        "Reciprocal" => plain(UnaryKind::Reciprocal),
        "Abs" => plain(UnaryKind::Abs),
        "Neg" => plain(UnaryKind::Neg),
        "Elu" => (UnaryKind::Elu, alpha(1.0), 0.0),
        "Softplus" => plain(UnaryKind::Softplus),
        "Softsign" => plain(UnaryKind::Softsign),
        "Erf" => plain(UnaryKind::Erf),
        "Floor" => plain(UnaryKind::Floor),
        "Ceil" => plain(UnaryKind::Ceil),
        "Round" => plain(UnaryKind::Round),
        "Selu" => (UnaryKind::Selu, alpha(1.673_263_2), float(node, "gamma").unwrap_or(1.050_701)),
        "Mish" => plain(UnaryKind::Mish),
        "Sign" => plain(UnaryKind::Sign),
        "Sin" => plain(UnaryKind::Sin),
        "Cos" => plain(UnaryKind::Cos),
        "ThresholdedRelu" => (UnaryKind::ThresholdedRelu, alpha(1.0), 0.0),
        "Celu" => (UnaryKind::Celu, alpha(1.0), 0.0),
        _ => return None,
    };
    Some(Unary { kind: kind as u32, alpha, beta })
}

/// Returns the reason that [`function`] has none for a node.
fn without_function(node: &NodeProto) -> Unsupported {
    match node.op_type.as_str() {
        "Clip" => Unsupported::NotConstant { input: 1, what: "bounds" },
        op if op.starts_with("Dynamic") => Unsupported::DynamicQuantization,
        _ => Unsupported::Operator,
    }
}

/// Any function of one element.
pub(super) fn unary(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some(params) = function(l, node) else { return l.refuse(without_function(node)) };
    let (x, y) = (need(node, 0)?, output(node)?);
    if l.fact(y)?.dtype != tract_onnx::prelude::DatumType::F32 {
        return l.refuse(l.unfit(y, "the output", "float32")?);
    }
    let name = node_name(node);
    if let (Some(quant), Some(target)) = (l.quant_of(x), l.target(y)?) {
        let Some((val, _)) = l.integers(x)? else {
            return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
        };
        return apply(l, node, &val, &quant, &target, |x| dunlin_engine::ops::unary::apply(&params, x));
    }
    let val = l.value(x)?;
    let dims = l.graph.tensors[val.id].dims.clone();
    let id = l.graph.tensor(y, DType::F32, &dims);
    l.graph.step(&name, Op::Unary, &[val.id], id, &params).note = node.op_type.clone();
    l.set(y, Val { id, ..val });
    Ok(true)
}
