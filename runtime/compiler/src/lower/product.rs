//! Products of matrices: by constant weights, which is a convolution with one tap, and of two activations.

use dunlin_package::DType;
use dunlin_package::op::{BinaryKind, MatMul, MatMulFloat, Op, Range, Window};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::arithmetic::float_params;
use super::attributes::{attribute, float, input, int, need, output};
use super::conv::{Out, Stored, Weights, conv_float_step, qlinear_ends};
use super::{Activation, Lowering, Quant, Target, Val};
use crate::error::CompileError;
use crate::graph::Id;
use crate::import::node_name;
use crate::unsupported::Unsupported;

const ONE_TAP: Window = Window { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad: [0; 4] };

/// How a Gemm reads its factors.
#[derive(Clone, Copy)]
struct Form {
    left_transposed: bool,
    right_transposed: bool,
    alpha: f32,
    beta: f32,
}

const PLAIN: Form = Form { left_transposed: false, right_transposed: false, alpha: 1.0, beta: 1.0 };

fn form(node: &NodeProto) -> Form {
    let flag = |name| int(node, name).unwrap_or(0) == 1;
    let factor = |name| float(node, name).unwrap_or(1.0);
    Form {
        left_transposed: flag("transA"),
        right_transposed: flag("transB"),
        alpha: factor("alpha"),
        beta: factor("beta"),
    }
}

/// Weights with the outputs first: `(values, outputs, inputs)`.
fn rows<T: Copy>(values: &[T], shape: &[usize], transposed: bool) -> (Vec<T>, usize, usize) {
    let (a, b) = (shape[0], shape[1]);
    if transposed {
        return (values.to_vec(), a, b);
    }
    let mut out = Vec::with_capacity(values.len());
    for n in 0..b {
        out.extend((0..a).map(|k| values[k * b + n]));
    }
    (out, b, a)
}

/// A matrix by its other axis first.
fn turned(val: &Val) -> Val {
    let last = val.shape.len() - 1;
    let other = |a: usize| {
        if a == last {
            last - 1
        } else if a + 1 == last {
            last
        } else {
            a
        }
    };
    let mut shape = val.shape.clone();
    shape.swap(last - 1, last);
    Val { shape, perm: val.perm.iter().map(|&a| other(a)).collect(), ..val.clone() }
}

/// Rows of the last axis times constant integer weights.
#[expect(clippy::too_many_arguments, reason = "a product's operands")]
fn by_constant(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    val: &Val,
    x_quant: &Quant,
    stored: Stored,
    transposed: bool,
    bias: &[i32],
    out: Out<'_>,
) -> Result<bool, CompileError> {
    let name = node_name(node);
    let val = l.logical(&name, val);
    let (codes, n, k) = rows(&stored.codes, &stored.shape, transposed);
    let m = val.shape.iter().product::<usize>() / k.max(1);
    let x = l.graph.view(val.id, &[1, 1, m, k]);
    l.describe(x, x_quant);
    let weights = Weights { codes, dims: [n, 1, 1, k], scales: stored.scales, transposed: false };
    let y = l.conv_step(&name, (x, x_quant), &weights, bias, out, (ONE_TAP, 1), [1, 1, m, n]);
    done(l, node, y, out)
}

/// Takes a product that lies in ONNX's order.
fn done(l: &mut Lowering<'_>, node: &NodeProto, y: Id, out: Out<'_>) -> Result<bool, CompileError> {
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let y = l.graph.view(y, &y_shape);
    let perm: Vec<usize> = (0..y_shape.len()).collect();
    match out {
        Out::Codes(target) => l.finish(target, y, &y_shape, &perm),
        Out::Accumulators(name) | Out::Floats(name) => l.define(name, y, &y_shape, false),
    }
    Ok(true)
}

/// `Gemm`.
pub(super) fn gemm(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    product(l, node, form(node), input(node, 2))
}

/// `MatMul`.
pub(super) fn mat_mul(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    product(l, node, PLAIN, None)
}

fn product(l: &mut Lowering<'_>, node: &NodeProto, form: Form, bias: Option<&str>) -> Result<bool, CompileError> {
    let (a, b, y) = (need(node, 0)?, need(node, 1)?, output(node)?);
    if l.fact(y)?.dtype != DatumType::F32 || l.fact(y)?.shape.contains(&0) {
        return l.refuse(l.unfit(y, "the output", "float32")?);
    }
    let matrix = l.fact(b)?.shape.len() == 2 && l.fact(a)?.shape.len() >= 2;
    if matrix && !form.left_transposed && form.alpha == 1.0 && (bias.is_none() || form.beta == 1.0) {
        let quantized = l.quant_of(a).zip(l.target(y)?).zip(l.dequantized_weights(b)?);
        let outputs_axis = usize::from(!form.right_transposed);
        let fits = |s: &Stored| s.scales.len() == 1 || s.axis == outputs_axis;
        if let Some(((x_quant, target), stored)) = quantized.filter(|(_, s)| fits(s)) {
            let n = stored.shape[outputs_axis];
            let row = bias.is_none_or(|name| l.fact(name).is_ok_and(|f| is_row(&f.shape, n)));
            let bias = if row { l.bias(bias, &x_quant, &stored.scales, n)? } else { None };
            if let (Some(bias), Some((val, _))) = (bias, l.integers(a)?) {
                return by_constant(l, node, &val, &x_quant, stored, form.right_transposed, &bias, Out::Codes(&target));
            }
        }
    }
    if bias.is_none()
        && l.float_constant(b)?.is_none()
        && let (Some(a_quant), Some(b_quant), Some(target)) = (l.quant_of(a), l.quant_of(b), l.target(y)?)
        && let (Some((a_val, _)), Some((b_val, _))) = (l.integers(a)?, l.integers(b)?)
    {
        return of_integers(l, node, (&a_val, &a_quant), (&b_val, &b_quant), Out::Codes(&target));
    }
    on_floats(l, node, form, bias, matrix)
}

/// Whether a term is one number, or one for each column.
fn is_row(shape: &[usize], n: usize) -> bool {
    let len: usize = shape.iter().product();
    len == 1 || (len == n && shape.last() == Some(&n))
}

fn on_floats(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    form: Form,
    bias: Option<&str>,
    matrix: bool,
) -> Result<bool, CompileError> {
    let (a, b, y_name) = (need(node, 0)?, need(node, 1)?, output(node)?);
    let name = node_name(node);
    let y_shape = l.fact(y_name)?.shape.clone();
    let mut left = l.value(a)?;
    if form.left_transposed {
        left = turned(&left);
    }
    // A term for each column can begin the sums, when the factors are those of the sums.
    let n = y_shape.last().copied().unwrap_or(1);
    let constant_term = match bias {
        None => None,
        Some(term) => l.float_constant(term)?.filter(|(_, shape)| is_row(shape, n)).map(|(values, _)| values),
    };
    let end = match (bias, &constant_term) {
        (Some(_), None) => Activation::none(&format!("{name}.product")),
        _ => l.activation(y_name),
    };
    let weights = if matrix { l.float_constant(b)? } else { None };
    let by_weights = weights.is_some();
    let y = if let Some((mut values, shape)) = weights {
        values.iter_mut().for_each(|w| *w *= form.alpha);
        let (values, n, k) = rows(&values, &shape, form.right_transposed);
        let terms: Vec<f32> = match &constant_term {
            None => vec![0.0; n],
            Some(t) => (0..n).map(|i| form.beta * t[i.min(t.len() - 1)]).collect(),
        };
        let val = l.logical(&name, &left);
        let m = val.shape.iter().product::<usize>() / k.max(1);
        let x = l.graph.view(val.id, &[1, 1, m, k]);
        conv_float_step(l, &name, &end, x, (&values, [n, 1, 1, k]), &terms, (ONE_TAP, 1), [1, 1, m, n])
    } else {
        let mut right = l.value(b)?;
        if form.right_transposed {
            right = turned(&right);
        }
        let Some((left, right, dims)) = matrices(l, &name, &left, &right, &y_shape) else {
            return l.refuse(Unsupported::Shape { what: "factors of more than 6 axes, or without elements" });
        };
        let plain = constant_term.is_none() && end.bounds == [f32::NEG_INFINITY, f32::INFINITY];
        let id = l.graph.tensor(if plain { &end.name } else { &name }, DType::F32, &dims);
        let k = l.graph.tensors[left].dims.last().copied().unwrap_or(1);
        l.graph.step(&name, Op::MatMulFloat, &[left, right], id, &MatMulFloat { alpha: form.alpha }).macs =
            (dims.iter().product::<usize>() * k) as u64;
        if let Some(terms) = &constant_term {
            let bytes = terms.iter().flat_map(|t| (form.beta * t).to_le_bytes()).collect();
            let term = l.graph.constant(&format!("{name}.bias"), DType::F32, &[terms.len()], bytes);
            add(l, &name, id, term, &dims, y_name)
        } else {
            id
        }
    };
    let y = l.graph.view(y, &y_shape);
    if let (Some(term), None) = (bias, &constant_term) {
        let val = l.value(term)?;
        let val = l.logical(&name, &val);
        let mut term = val.id;
        if form.beta != 1.0 {
            let scaled = l.graph.tensor(&format!("{name}.beta"), DType::F32, &val.shape);
            let beta = l.graph.constant("beta", DType::F32, &[], form.beta.to_le_bytes().to_vec());
            l.graph.step(&name, Op::Binary, &[term, beta], scaled, &float_params(BinaryKind::Mul));
            term = scaled;
        }
        let sum = add(l, &name, y, term, &y_shape, y_name);
        l.define(y_name, sum, &y_shape, false);
        return Ok(true);
    }
    // Only a product by constants takes its activation with it.
    if by_weights {
        l.define(&end.name, y, &y_shape, false);
        l.fuse(&end);
    } else {
        l.define(y_name, y, &y_shape, false);
    }
    Ok(true)
}

fn add(l: &mut Lowering<'_>, node: &str, a: Id, b: Id, dims: &[usize], name: &str) -> Id {
    let y = l.graph.tensor(name, DType::F32, dims);
    l.graph.step(node, Op::Binary, &[a, b], y, &float_params(BinaryKind::Add));
    y
}

/// Both factors as stacks of matrices, and the result's extents; a list is a row on the left, a column on the right.
fn matrices(l: &mut Lowering<'_>, node: &str, a: &Val, b: &Val, y_shape: &[usize]) -> Option<(Id, Id, Vec<usize>)> {
    let (a, b) = (l.logical(node, a), l.logical(node, b));
    let mut dims = y_shape.to_vec();
    let mut left = a.shape.clone();
    let mut right = b.shape.clone();
    if right.len() == 1 {
        right.push(1);
        dims.push(1);
    }
    if left.len() == 1 {
        left.insert(0, 1);
        dims.insert(dims.len() - 1, 1);
    }
    let fits = left.len() >= 2 && right.len() >= 2 && dims.len() <= 6 && !left.contains(&0) && !right.contains(&0);
    fits.then(|| (l.graph.view(a.id, &left), l.graph.view(b.id, &right), dims))
}

/// A product of two activations' integers.
fn of_integers(
    l: &mut Lowering<'_>,
    node: &NodeProto,
    (a, a_quant): (&Val, &Quant),
    (b, b_quant): (&Val, &Quant),
    out: Out<'_>,
) -> Result<bool, CompileError> {
    let y_shape = l.fact(output(node)?)?.shape.clone();
    let name = node_name(node);
    let Some((left, right, dims)) = matrices(l, &name, a, b, &y_shape) else {
        return l.refuse(Unsupported::Shape { what: "factors of more than 6 axes, or without elements" });
    };
    let (to, dtype, range, unit) = match out {
        Out::Codes(target) => (target.name.as_str(), DType::I8, target.range(), target.quant.scale),
        Out::Accumulators(name) => (name, DType::I32, Range::default(), 1.0),
        Out::Floats(name) => (name, DType::F32, Range::default(), 1.0),
    };
    let y = l.graph.tensor(to, dtype, &dims);
    let params = MatMul {
        a_zero_point: a_quant.zero_point,
        b_zero_point: b_quant.zero_point,
        scale: a_quant.scale * b_quant.scale / unit,
        range,
    };
    let k = l.graph.tensors[left].dims.last().copied().unwrap_or(1);
    l.graph.step(&name, Op::MatMul, &[left, right], y, &params).macs = (dims.iter().product::<usize>() * k) as u64;
    done(l, node, y, out)
}

/// `QLinearMatMul`: a, its scale and zero point, b, its scale and zero point, y's scale and zero point.
pub(super) fn qlinear(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (a, b) = (need(node, 0)?, need(node, 3)?);
    let Some((x_quant, target)) = qlinear_ends(l, node, 0, 6)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let val = l.value(a)?;
    if l.fact(b)?.shape.len() == 2
        && val.shape.len() >= 2
        && let Some(stored) = l.stored(b, Some(need(node, 4)?), input(node, 5), 1)?
    {
        let bias = vec![0; stored.shape[1]];
        return by_constant(l, node, &val, &x_quant, stored, false, &bias, Out::Codes(&target));
    }
    let Some((b_quant, _)) = qlinear_ends(l, node, 3, 6)? else {
        return l.refuse(Unsupported::Quantization { what: "scales or zero points that are not one constant each" });
    };
    let right = l.value(b)?;
    of_integers(l, node, (&val, &x_quant), (&right, &b_quant), Out::Codes(&target))
}

/// `MatMulInteger`: a, b and their zero points; the result is the accumulators.
pub(super) fn integer(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (a, b, y) = (need(node, 0)?, need(node, 1)?, output(node)?);
    let Some(a_quant) = l.unscaled(a, input(node, 2))? else {
        return l.refuse(Unsupported::NotConstant { input: 2, what: "zero point" });
    };
    let val = l.value(a)?;
    if l.fact(b)?.shape.len() == 2
        && val.shape.len() >= 2
        && let Some(stored) = l.stored(b, None, input(node, 3), 1)?
    {
        let bias = vec![0; stored.shape[1]];
        return by_constant(l, node, &val, &a_quant, stored, false, &bias, Out::Accumulators(y));
    }
    let Some(b_quant) = l.unscaled(b, input(node, 3))? else {
        return l.refuse(Unsupported::NotConstant { input: 3, what: "zero point" });
    };
    let right = l.value(b)?;
    of_integers(l, node, (&val, &a_quant), (&right, &b_quant), Out::Accumulators(y))
}

/// `QGemm`: a, its scale and zero point, b, its scale and zero point, bias, y's scale and zero point; floats without
/// the last two. The bias is in the accumulator's unit, so that alpha is a factor of it too.
pub(super) fn qgemm(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let form = form(node);
    let (a, y) = (need(node, 0)?, output(node)?);
    let unsigned = l.fact(a)?.dtype == DatumType::U8;
    let Some(mut x_quant) = l.quant(need(node, 1)?, input(node, 2), unsigned)? else {
        return l.refuse(Unsupported::NotConstant { input: 1, what: "scale" });
    };
    x_quant.scale *= form.alpha;
    let target: Option<Target> = match input(node, 7) {
        None => None,
        Some(_) => match qlinear_ends(l, node, 0, 7)? {
            Some((_, target)) => Some(target),
            None => {
                return l.refuse(Unsupported::Quantization {
                    what: "scales or zero points that are not one constant each",
                });
            }
        },
    };
    let outputs_axis = usize::from(!form.right_transposed);
    let stored = l.stored(need(node, 3)?, Some(need(node, 4)?), input(node, 5), outputs_axis)?;
    let Some(stored) = stored.filter(|_| !form.left_transposed) else {
        return l.refuse(if form.left_transposed {
            attribute(node, "transA", "0")
        } else {
            Unsupported::NotConstant { input: 3, what: "weights" }
        });
    };
    let n = stored.shape[outputs_axis];
    if let Some(term) = input(node, 6)
        && !is_row(&l.fact(term)?.shape, n)
    {
        return l.refuse(Unsupported::Shape { what: "a bias that is not one number, or one for each column" });
    }
    let Some(bias) = l.bias(input(node, 6), &x_quant, &stored.scales, n)? else {
        return l.refuse(Unsupported::NotConstant { input: 6, what: "bias" });
    };
    let val = l.value(a)?;
    let out = target.as_ref().map_or(Out::Floats(y), Out::Codes);
    by_constant(l, node, &val, &x_quant, stored, form.right_transposed, &bias, out)
}
