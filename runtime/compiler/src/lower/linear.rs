//! QuantizeLinear and DequantizeLinear.

use dunlin_package::DType;
use dunlin_package::op::{Affine, Map, Op};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::DatumType;

use super::attributes::{input, int, need, output};
use super::{Lowering, Quant, Val, elements};
use crate::error::{CompileError, ErrorKind};
use crate::unsupported::Unsupported;

impl Lowering<'_> {
    /// A node's scale and zero point when they are one constant each.
    pub(super) fn linear_params(&self, node: &NodeProto) -> Result<Option<Quant>, CompileError> {
        let quantize = node.op_type == "QuantizeLinear";
        let name = if quantize { output(node)? } else { need(node, 0)? };
        let integers = self.fact(name)?.dtype;
        let scale = self.fact(need(node, 1)?)?.dtype;
        if scale != DatumType::F32 {
            let kind = if scale == DatumType::F16 { ErrorKind::Unsupported } else { ErrorKind::InvalidGraph };
            return Err(CompileError::new(kind, format!("the scale '{}' has type {scale:?}", need(node, 1)?))
                .hint("export the model with float scales"));
        }
        if let Some(name) = input(node, 2) {
            let zero_point = self.fact(name)?.dtype;
            if zero_point != integers {
                return Err(CompileError::invalid(format!(
                    "the zero point '{name}' has type {zero_point:?}, the integers have {integers:?}"
                )));
            }
        }
        let unsigned = match integers {
            DatumType::U8 => true,
            DatumType::I8 => false,
            _ => return Ok(None),
        };
        self.quant(need(node, 1)?, input(node, 2), unsigned)
    }

    /// A scale and a zero point by name.
    pub(super) fn quant(
        &self,
        scale: &str,
        zero_point_name: Option<&str>,
        unsigned: bool,
    ) -> Result<Option<Quant>, CompileError> {
        let Some(value) = self.constant(scale) else { return Ok(None) };
        let scales = elements::<f32>(&value)?;
        let zero_points = match zero_point_name {
            None => vec![0],
            Some(name) => match self.constant(name) {
                Some(value) => elements::<i32>(&value)?,
                None => return Ok(None),
            },
        };
        let (&[scale_value], &[zero_point]) = (&scales[..], &zero_points[..]) else { return Ok(None) };
        check_scale(scale_value, scale)?;
        let zero_point = if unsigned { zero_point - 128 } else { zero_point };
        if !(-128..=127).contains(&zero_point) {
            return Err(CompileError::new(ErrorKind::Quantization, "the zero point is outside the type"));
        }
        let rank = |name: Option<&str>| name.and_then(|n| self.constant(n)).map_or(0, |t| t.rank());
        let scalar = value.rank() == 0 && rank(zero_point_name) == 0;
        Ok(Some(Quant { scale: scale_value, zero_point, unsigned, scalar }))
    }
}

/// Refuses scales that no arithmetic can use.
pub(super) fn check_scale(scale: f32, name: &str) -> Result<(), CompileError> {
    if scale.is_finite() && scale > 0.0 {
        return Ok(());
    }
    Err(CompileError::new(ErrorKind::Quantization, format!("the scale '{name}' is {scale}"))
        .hint("a scale has to be positive and finite; calibrate the model again"))
}

/// `DequantizeLinear`: only noted, until somebody needs the floats.
pub(super) fn dequantize(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (from, to) = (need(node, 0)?, output(node)?);
    if let Some(quant) = l.linear_params(node)? {
        l.set_dequantized(to, from, quant);
        return Ok(true);
    }
    // Constants are read by the operators that they are weights of.
    let Some(tensor) = l.constant(from) else {
        return l.refuse(Unsupported::Quantization {
            what: "integers that are not int8 or uint8, or scales that are not constant",
        });
    };
    let fact = l.fact(from)?;
    let scales = match l.constant(need(node, 1)?) {
        Some(scale) => elements::<f32>(&scale)?,
        None => return l.refuse(Unsupported::NotConstant { input: 1, what: "scale" }),
    };
    for &scale in &scales {
        check_scale(scale, need(node, 1)?)?;
    }
    let zero_points = match input(node, 2).map(|n| l.constant(n)) {
        None => vec![0],
        Some(Some(value)) => elements::<i32>(&value)?,
        Some(None) => return l.refuse(Unsupported::NotConstant { input: 2, what: "zero point" }),
    };
    if scales.is_empty() || zero_points.is_empty() {
        return Err(CompileError::new(ErrorKind::Quantization, "no scale or no zero point"));
    }
    let inner: usize = if scales.len() == 1 {
        1
    } else {
        let axis = super::attributes::axis(int(node, "axis").unwrap_or(1), fact.shape.len())?;
        if fact.shape[axis] != scales.len() {
            return Err(CompileError::new(
                ErrorKind::Quantization,
                format!("{} scales for an axis of {}", scales.len(), fact.shape[axis]),
            ));
        }
        fact.shape[axis + 1..].iter().product()
    };
    let values: Vec<u8> = elements::<i32>(&tensor)?
        .iter()
        .enumerate()
        .flat_map(|(i, &q)| {
            let c = if scales.len() == 1 { 0 } else { i / inner % scales.len() };
            let zero = zero_points[c.min(zero_points.len() - 1)];
            (q.wrapping_sub(zero) as f32 * scales[c]).to_le_bytes()
        })
        .collect();
    let shape = fact.shape.clone();
    let id = l.graph.constant(to, DType::F32, &shape, values);
    l.define(to, id, &shape, false);
    Ok(true)
}

/// `QuantizeLinear` of floats, or of integers to other integers.
pub(super) fn quantize(l: &mut Lowering<'_>, node: &NodeProto) -> Result<bool, CompileError> {
    let (from, to) = (need(node, 0)?, output(node)?);
    let Some(quant) = l.linear_params(node)? else {
        return l.refuse(Unsupported::Quantization {
            what: "several scales, scales that are not constant, or integers other than int8 and uint8",
        });
    };
    if let Some((val, own)) = l.integers(from)? {
        if own.same(&quant) {
            l.set(to, val);
            return Ok(true);
        }
        let table = super::table::table(own, quant, |x| x);
        let id = l.table_step(to, &val, table, "requantize");
        l.describe(id, &quant);
        l.set(to, Val { id, unsigned: quant.unsigned, ..val });
        return Ok(true);
    }
    let mut val = l.value(from)?;
    let dims = l.graph.tensors[val.id].dims.clone();
    match l.fact(from)?.dtype {
        DatumType::F32 => {}
        DatumType::I32 => {
            let floats = l.graph.tensor(from, DType::F32, &dims);
            l.graph.step(to, Op::Dequantize, &[val.id], floats, &Affine { scale: 1.0, zero_point: 0 });
            val.id = floats;
        }
        other => {
            return Err(CompileError::unsupported(format!("quantizes '{from}' of type {other:?}"))
                .hint("cast it to float first"));
        }
    }
    let id = l.graph.tensor(to, DType::I8, &dims);
    let params = Affine { scale: quant.scale, zero_point: quant.zero_point };
    l.graph.step(to, Op::Quantize, &[val.id], id, &params);
    l.describe(id, &quant);
    l.set(to, Val { id, unsigned: quant.unsigned, ..val });
    Ok(true)
}

impl Lowering<'_> {
    /// A `Map` step over a value.
    pub(super) fn table_step(&mut self, node: &str, val: &Val, table: Vec<u8>, note: &str) -> crate::graph::Id {
        let dims = self.graph.tensors[val.id].dims.clone();
        let id = self.graph.tensor(node, DType::I8, &dims);
        let table = self.graph.constant("table", DType::U8, &[256], table);
        self.graph.step(node, Op::Map, &[val.id, table], id, &Map { channels: 0 }).note = note.into();
        id
    }
}
