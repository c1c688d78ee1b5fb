//! Quantized addition and multiplication, to the bits of ONNX Runtime's kernels.

use dunlin_package::DType;
use dunlin_package::op::{Affine, Arithmetic, Binary, BinaryKind, Op, Range};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::attributes::{need, output};
use super::conv::qlinear_ends;
use super::{Lowering, Quant, Target, Val};
use crate::error::CompileError;
use crate::graph::Id;
use crate::import::node_name;
use crate::unsupported::Unsupported;

/// `a * b + c` with one rounding.
fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// The terms of an addition. ONNX Runtime folds both zero points into one constant; `a` is the operand that spans.
pub(super) fn add_terms(a: &Quant, b: &Quant, target: &Target) -> Arithmetic {
    let y = &target.quant;
    let zero = |q: &Quant| (q.zero_point + q.shift()) as f32;
    let (a_scale, b_scale) = (a.scale / y.scale, b.scale / y.scale);
    Arithmetic {
        a_offset: a.shift(),
        b_offset: b.shift(),
        a_scale,
        b_scale,
        constant: zero(y) - fma(a_scale, zero(a), b_scale * zero(b)),
        range: shifted(target),
    }
}

/// The terms of a multiplication: the product of the integers without their zero points, scaled once.
pub(super) fn mul_terms(a: &Quant, b: &Quant, target: &Target) -> Arithmetic {
    let y = &target.quant;
    Arithmetic {
        a_offset: -a.zero_point,
        b_offset: -b.zero_point,
        a_scale: a.scale * b.scale / y.scale,
        b_scale: 1.0,
        constant: (y.zero_point + y.shift()) as f32,
        range: shifted(target),
    }
}

/// The zero point is in the formula already; what is left is the way from uint8 to int8.
fn shifted(target: &Target) -> Range {
    Range { zero_point: -target.quant.shift(), ..target.range() }
}

/// The engine's function of two floats for a node.
fn binary_kind(op: &str) -> Option<BinaryKind> {
    Some(match op {
        "Add" | "Sum" => BinaryKind::Add,
        "Sub" => BinaryKind::Sub,
        "Mul" => BinaryKind::Mul,
        "Div" => BinaryKind::Div,
        "Max" => BinaryKind::Max,
        "Min" => BinaryKind::Min,
        "Pow" => BinaryKind::Pow,
        "PRelu" => BinaryKind::PRelu,
        _ => return None,
    })
}

/// Arithmetic of two values: on integers where ONNX Runtime has a kernel for them, as a table where one of them is one
/// constant, on floats otherwise.
pub(super) fn binary(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some(kind) = binary_kind(&node.op_type) else { return l.refuse(Unsupported::Operator) };
    if node.input.len() != 2 {
        return l.refuse(Unsupported::Count { what: "inputs", count: node.input.len(), supported: "2" });
    }
    let (a, b, y) = (need(node, 0)?, need(node, 1)?, output(node)?);
    if l.fact(y)?.dtype != DatumType::F32 {
        return l.refuse(l.unfit(y, "the output", "float32")?);
    }
    let target = l.target(y)?;
    if let (BinaryKind::Add | BinaryKind::Mul, Some(target)) = (kind, &target)
        && let (Some(a_quant), Some(b_quant)) = (l.quant_of(a), l.quant_of(b))
    {
        let quants = [&a_quant, &b_quant, &target.quant];
        let kernel = quants.iter().all(|q| q.scalar && q.unsigned == a_quant.unsigned) && target.whole();
        if kernel {
            let (Some((a_val, _)), Some((b_val, _))) = (l.integers(a)?, l.integers(b)?) else {
                return l.refuse(Unsupported::Quantization { what: "this pair of scales, zero points and types" });
            };
            return integer(l, node, (a_val, a_quant), (b_val, b_quant), target);
        }
    }
    if let Some(target) = &target {
        for (x, constant, swapped) in [(a, b, false), (b, a, true)] {
            let one = l.float_constant(constant)?.filter(|(values, _)| values.len() == 1);
            let (Some((values, _)), Some(quant)) = (one, l.quant_of(x)) else { continue };
            if l.fact(x)?.shape != l.fact(y)?.shape {
                continue;
            }
            let Some((val, _)) = l.integers(x)? else { continue };
            let c = values[0];
            let f = |v: f32| {
                let (p, q) = if swapped { (c, v) } else { (v, c) };
                dunlin_engine::ops::binary::apply(kind, p, q)
            };
            return super::table::apply(l, node, &val, &quant, target, f);
        }
    }
    float(l, node, kind, target.as_ref())
}

/// `QLinearAdd` and `QLinearMul`: a, its scale and zero point, b, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let Some((a_quant, target)) = qlinear_ends(l, node, 0, 6)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let Some((b_quant, _)) = qlinear_ends(l, node, 3, 6)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let (a, b) = (l.value(need(node, 0)?)?, l.value(need(node, 3)?)?);
    l.describe(a.id, &a_quant);
    l.describe(b.id, &b_quant);
    integer(l, node, (a, a_quant), (b, b_quant), &target)
}

fn integer(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    a: (Val, Quant),
    b: (Val, Quant),
    target: &Target,
) -> Result<bool, CompileError> {
    let y_shape = l.fact(output(node)?)?.shape.clone();
    if y_shape.len() > 6 {
        return l.refuse(Unsupported::Rank { axes: y_shape.len(), supported: "1 to 6" });
    }
    // The operand that spans the innermost run is the first of the formula.
    let spans = |val: &Val| val.shape.iter().product::<usize>() == y_shape.iter().product::<usize>();
    let (a, b) = if !spans(&a.0) && spans(&b.0) { (b, a) } else { (a, b) };
    let ((a_val, a_quant), (b_val, b_quant)) = (a, b);
    let name = node_name(node);
    let perm = common_order(&a_val, &b_val, &y_shape);
    let (a_id, b_id) = (l.broadcast(&name, &a_val, &perm), l.broadcast(&name, &b_val, &perm));
    let dims: Vec<usize> = perm.iter().map(|&i| y_shape[i]).collect();
    let y = l.graph.tensor(&target.name, DType::I8, &dims);
    let (op, params) = if node.op_type.ends_with("Add") {
        (Op::Add, add_terms(&a_quant, &b_quant, target))
    } else {
        (Op::Mul, mul_terms(&a_quant, &b_quant, target))
    };
    l.graph.step(&name, op, &[a_id, b_id], y, &params);
    l.finish(target, y, &y_shape, &perm);
    Ok(true)
}

/// The order in which most of the operands lie already.
fn common_order(a: &Val, b: &Val, shape: &[usize]) -> Vec<usize> {
    for val in [a, b] {
        if val.shape == shape {
            return val.perm.clone();
        }
    }
    (0..shape.len()).collect()
}

impl Lowering<'_> {
    /// A value with as many axes as the result, in the result's order.
    fn broadcast(&mut self, node: &str, val: &Val, perm: &[usize]) -> Id {
        let missing = perm.len() - val.shape.len();
        let mut wide = val.clone();
        wide.shape = std::iter::repeat_n(1, missing).chain(val.shape.iter().copied()).collect();
        wide.perm = (0..missing).chain(val.perm.iter().map(|p| p + missing)).collect();
        let dims: Vec<usize> = wide.perm.iter().map(|&i| wide.shape[i]).collect();
        wide.id = self.graph.view(val.id, &dims);
        self.arranged(node, &wide, perm).id
    }
}

/// A float function of two values, neither of which nor the result has to be floats in memory.
pub(super) fn float(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    kind: BinaryKind,
    target: Option<&Target>,
) -> Result<bool, CompileError> {
    let y_name = output(node)?;
    let y_fact = l.fact(y_name)?;
    if y_fact.dtype != DatumType::F32 || y_fact.shape.len() > 6 || y_fact.shape.contains(&0) {
        return l.refuse(l.unfit(y_name, "the output", "float32")?);
    }
    for name in &node.input {
        if l.fact(name)?.dtype != DatumType::F32 {
            return l.refuse(l.unfit(name, "an input", "float32")?);
        }
    }
    let y_shape = y_fact.shape.clone();
    let (a, a_meaning) = l.codes_or_floats(need(node, 0)?)?;
    let (b, b_meaning) = l.codes_or_floats(need(node, 1)?)?;
    let name = node_name(node);
    let perm = common_order(&a, &b, &y_shape);
    let (a_id, b_id) = (l.broadcast(&name, &a, &perm), l.broadcast(&name, &b, &perm));
    let dims: Vec<usize> = perm.iter().map(|&i| y_shape[i]).collect();
    let mut params = float_params(kind);
    (params.a, params.b) = (a_meaning, b_meaning);
    let Some(target) = target else {
        let y = l.graph.tensor(y_name, DType::F32, &dims);
        l.graph.step(&name, Op::Binary, &[a_id, b_id], y, &params).note = node.op_type.clone();
        l.set(y_name, Val { id: y, shape: y_shape, perm, unsigned: false });
        return Ok(true);
    };
    params.y = Affine { scale: target.quant.scale, zero_point: target.quant.zero_point };
    params.bounds = [target.lo, target.hi];
    let y = l.graph.tensor(&target.name, DType::I8, &dims);
    l.graph.step(&name, Op::Binary, &[a_id, b_id], y, &params).note = node.op_type.clone();
    l.finish(target, y, &y_shape, &perm);
    Ok(true)
}

/// Parameters of a function of floats.
pub(super) fn float_params(kind: BinaryKind) -> Binary {
    Binary { kind: kind as u32, ..Binary::default() }
}

impl Lowering<'_> {
    /// A value as the integers it is known as, with their meaning, or as floats.
    fn codes_or_floats(&mut self, name: &str) -> Result<(Val, Affine), CompileError> {
        match self.integers(name)? {
            Some((val, quant)) => Ok((val, Affine { scale: quant.scale, zero_point: quant.zero_point })),
            None => Ok((self.value(name)?, Affine::default())),
        }
    }
}
