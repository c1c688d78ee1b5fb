//! Our own quantization operators, registered in the place of tract's.
//!
//! tract's own fold int8 weights into floats before anybody sees them, round by the reciprocal of the scale, and turn
//! Softmax between DequantizeLinear and QuantizeLinear into a wrong table. Ours are opaque: they are evaluated only when
//! the graph runs (`runs_out_of_plan` and `not_out_of_plan!` are both needed for that), and they divide.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Puts ours in the register.
pub(super) fn register(onnx: &mut tract_onnx::Onnx) {
    onnx.op_register.insert("QuantizeLinear", |_, node| linear(node, true));
    onnx.op_register.insert("DequantizeLinear", |_, node| linear(node, false));
    for name in ["QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"] {
        onnx.op_register.insert(name, |_, node| shaped(node, Form::Same));
    }
    for name in ["QLinearAdd", "QLinearMul"] {
        onnx.op_register.insert(name, |_, node| shaped(node, Form::Broadcast { other: place(node, 3)? }));
    }
    onnx.op_register.insert("QLinearGlobalAveragePool", |_, node| {
        let last = node.get_attr_opt::<i64>("channels_last")?.unwrap_or(0) == 1;
        shaped(node, Form::GlobalPool { last })
    });
    onnx.op_register.insert("QLinearAveragePool", average_pool);
    onnx.op_register.insert("QLinearConcat", |_, node| {
        let axis = node.get_attr("axis")?;
        let parts: TractResult<Vec<usize>> = (2..node.input.len()).step_by(3).map(|i| place(node, i)).collect();
        shaped(node, Form::Concat { axis, parts: parts? })
    });
    onnx.op_register.insert("QGemm", |_, node| {
        let flag = |name| Ok::<_, TractError>(node.get_attr_opt::<i64>(name)?.unwrap_or(0) == 1);
        let form = Form::Gemm {
            left: flag("transA")?,
            right: flag("transB")?,
            other: place(node, 3)?,
            quantized: place(node, 7).is_ok(),
        };
        shaped(node, form)
    });
}

/// tract leaves out the inputs that are absent: where input `i` is then.
fn place(node: &NodeProto, i: usize) -> TractResult<usize> {
    let given = |name: &&String| !name.is_empty();
    ensure!(node.input.get(i).as_ref().is_some_and(given), "input {i} is absent");
    Ok(node.input.iter().take(i).filter(given).count())
}

fn linear(node: &NodeProto, quantize: bool) -> Built {
    let block = node.get_attr_opt::<i64>("block_size")?.unwrap_or(0);
    ensure!(block == 0, "blocked quantization (block_size {block}) is not supported");
    let axis = node.get_attr_opt("axis")?.unwrap_or(1);
    let wanted = node.get_attr_opt::<i64>("output_dtype")?.unwrap_or(0);
    let zero_point = node.input.get(2).is_some_and(|n| !n.is_empty());
    let output = match (quantize, wanted) {
        (_, 0) => None,
        (true, 2) => Some(DatumType::U8),
        (true, 3) => Some(DatumType::I8),
        (false, 1) => Some(DatumType::F32),
        (_, other) => bail!("output_dtype {other} is not supported: only int8, uint8 and float are"),
    };
    Ok((expand(Linear { quantize, axis, zero_point, output }), vec![]))
}

/// `QuantizeLinear` or `DequantizeLinear`.
#[derive(Clone, Debug)]
struct Linear {
    quantize: bool,
    axis: i64,
    zero_point: bool,
    output: Option<DatumType>,
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        if self.quantize { "DunlinQuantize" } else { "DunlinDequantize" }.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.zero_point))?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        if !self.quantize {
            return s.equals(&outputs[0].datum_type, f32::datum_type());
        }
        match self.output {
            Some(dt) => s.equals(&outputs[0].datum_type, dt),
            None if self.zero_point => s.equals(&outputs[0].datum_type, &inputs[2].datum_type),
            None => s.equals(&outputs[0].datum_type, u8::datum_type()),
        }
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let constant = |i: usize, what: &str| {
            let fact = model.outlet_fact(inputs[i])?;
            fact.konst.clone().with_context(|| format!("{what} has to be constant"))
        };
        let scale = constant(1, "the scale")?.cast_to::<f32>()?.into_owned();
        let (zero_point, stored) = if self.zero_point {
            let tensor = constant(2, "the zero point")?;
            (tensor.cast_to::<i32>()?.into_owned(), Some(tensor.datum_type()))
        } else {
            (tensor1(&vec![0i32; scale.len()]), None)
        };
        let output = if self.quantize { self.output.or(stored).unwrap_or(DatumType::U8) } else { DatumType::F32 };
        ensure!(
            matches!(output, DatumType::U8 | DatumType::I8 | DatumType::F32),
            "{output:?} quantization is not supported: only int8 and uint8 are"
        );
        let op = OpaqueLinear {
            quantize: self.quantize,
            axis: self.axis,
            scale: scale.to_plain_array_view::<f32>()?.iter().map(|s| s.to_bits()).collect(),
            zero_point: zero_point.to_plain_array_view::<i32>()?.iter().copied().collect(),
            output,
        };
        model.wire_node(prefix, op, &inputs[..1])
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }
}

/// The typed form, which nothing sees through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OpaqueLinear {
    quantize: bool,
    axis: i64,
    scale: Vec<u32>,
    zero_point: Vec<i32>,
    output: DatumType,
}

impl Op for OpaqueLinear {
    fn name(&self) -> StaticName {
        if self.quantize { "DunlinQuantize" } else { "DunlinDequantize" }.into()
    }

    op_as_typed_op!();
}

impl EvalOp for OpaqueLinear {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let shape = input.shape().to_vec();
        let inner: usize = if self.scale.len() == 1 {
            1
        } else {
            let axis = if self.axis < 0 { self.axis + shape.len() as i64 } else { self.axis };
            shape.iter().skip(usize::try_from(axis)? + 1).product()
        };
        let params = |i: usize| {
            let at = if self.scale.len() == 1 { 0 } else { i / inner % self.scale.len() };
            (f32::from_bits(self.scale[at]), self.zero_point[at.min(self.zero_point.len() - 1)])
        };
        let output = if self.quantize {
            let view = input.to_plain_array_view::<f32>()?;
            let (lo, hi) = if self.output == DatumType::I8 { (-128, 127) } else { (0, 255) };
            let codes: Vec<i32> = view
                .iter()
                .enumerate()
                .map(|(i, &x)| {
                    let (scale, zero_point) = params(i);
                    ((x / scale).round_ties_even() as i32).saturating_add(zero_point).clamp(lo, hi)
                })
                .collect();
            tensor1(&codes).into_shape(&shape)?.cast_to_dt(self.output)?.into_owned()
        } else {
            let codes = input.cast_to::<i32>()?;
            let values: Vec<f32> = codes
                .to_plain_array_view::<i32>()?
                .iter()
                .enumerate()
                .map(|(i, &q)| {
                    let (scale, zero_point) = params(i);
                    q.wrapping_sub(zero_point) as f32 * scale
                })
                .collect();
            tensor1(&values).into_shape(&shape)?
        };
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for OpaqueLinear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(self.output.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

/// Shapes of the quantized operators that tract does not know.
#[derive(Clone, Debug)]
enum Form {
    Same,
    Broadcast { other: usize },
    GlobalPool { last: bool },
    Concat { axis: i64, parts: Vec<usize> },
    Gemm { left: bool, right: bool, other: usize, quantized: bool },
}

/// An operator of which only the shape is known here: the compiler lowers it, tract never runs it.
#[derive(Clone, Debug)]
struct Shaped {
    op: String,
    form: Form,
}

fn shaped(node: &NodeProto, form: Form) -> Built {
    Ok((expand(Shaped { op: node.op_type.clone(), form }), vec![]))
}

impl Expansion for Shaped {
    fn name(&self) -> StaticName {
        self.op.clone().into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let y = &outputs[0];
        match &self.form {
            Form::Same => {
                s.equals(&y.datum_type, &inputs[0].datum_type)?;
                s.equals(&y.shape, &inputs[0].shape)?;
            }
            Form::Broadcast { other } => {
                s.equals(&y.datum_type, &inputs[0].datum_type)?;
                s.given_2(&inputs[0].shape, &inputs[*other].shape, move |s, a, b| {
                    s.equals(&y.shape, tract_onnx::tract_core::broadcast::multi_broadcast(&[&a, &b])?)
                })?;
            }
            Form::GlobalPool { last } => {
                let last = *last;
                s.equals(&y.datum_type, &inputs[0].datum_type)?;
                s.given(&inputs[0].shape, move |s, x| {
                    ensure!(x.len() > 2, "its input has {} axes", x.len());
                    let channels = if last { x.len() - 1 } else { 1 };
                    let keep = |(i, d): (usize, &TDim)| if i == 0 || i == channels { d.clone() } else { 1.to_dim() };
                    let shape: TVec<TDim> = x.iter().enumerate().map(keep).collect();
                    s.equals(&y.shape, shape)
                })?;
            }
            Form::Concat { axis, parts } => {
                let axis = *axis;
                let Some(&first) = parts.first() else { bail!("it joins nothing") };
                s.equals(&y.datum_type, &inputs[first].datum_type)?;
                let shapes: Vec<_> = parts.iter().map(|&i| &inputs[i].shape).collect();
                s.given_all(shapes, move |s, shapes: Vec<TVec<TDim>>| {
                    let axis = usize::try_from(if axis < 0 { axis + shapes[0].len() as i64 } else { axis })?;
                    ensure!(shapes.iter().all(|s| axis < s.len()), "axis {axis} is out of range");
                    let mut shape = shapes[0].clone();
                    shape[axis] = shapes.iter().map(|s| s[axis].clone()).sum();
                    s.equals(&y.shape, shape)
                })?;
            }
            Form::Gemm { left, right, other, quantized } => {
                let (left, right) = (*left, *right);
                if *quantized {
                    s.equals(&y.datum_type, &inputs[0].datum_type)?;
                } else {
                    s.equals(&y.datum_type, f32::datum_type())?;
                }
                s.given_2(&inputs[0].shape, &inputs[*other].shape, move |s, a, b| {
                    ensure!(a.len() == 2 && b.len() == 2, "its operands are no matrices");
                    s.equals(&y.shape, tvec!(a[usize::from(left)].clone(), b[usize::from(!right)].clone()))
                })?;
            }
        }
        Ok(())
    }

    fn wire(&self, _: &str, _: &mut TypedModel, _: &[OutletId]) -> TractResult<TVec<OutletId>> {
        bail!("{} has no form in tract", self.op)
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }
}

/// tract's own average pool knows the shape: it is asked about the one input that is no parameter.
fn average_pool(context: &ParsingContext, node: &NodeProto) -> Built {
    let mut plain = node.clone();
    plain.op_type = "AveragePool".into();
    plain.input.truncate(1);
    let build = context.framework.op_register.0.get("AveragePool").context("tract without AveragePool")?;
    let (op, closures) = build(context, &plain)?;
    Ok((expand(Pooled { op }), closures))
}

#[derive(Clone, Debug)]
struct Pooled {
    op: Box<dyn InferenceOp>,
}

impl Expansion for Pooled {
    fn name(&self) -> StaticName {
        "QLinearAveragePool".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let op = self.op.as_op().downcast_ref::<Box<dyn Expansion>>().context("AveragePool in another form")?;
        op.as_ref().rules(s, &inputs[..1], outputs)
    }

    fn wire(&self, _: &str, _: &mut TypedModel, _: &[OutletId]) -> TractResult<TVec<OutletId>> {
        bail!("QLinearAveragePool has no form in tract")
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }
}
