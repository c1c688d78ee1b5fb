//! What to know about a compiled model before it goes to a device: float arithmetic, dynamic quantization.

use dunlin::DType;
use dunlin::onnx::{Compiled, Unsupported, groups};
use dunlin::package::op::Op;
use serde_json::{Value, json};

use crate::output;
use crate::table::grouped;

/// How ONNX Runtime quantizes a model so that this engine gives its exact results.
const QUANTIZE: &str = "quantize it statically with ONNX Runtime: quantize_static('float.onnx', 'int8.onnx', calibration_reader, quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True, extra_options={'WeightSymmetric': True, 'ActivationSymmetric': False})";

/// Something that is allowed and seldom meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub text: String,
    /// What to do.
    pub hint: String,
}

impl Warning {
    /// Writes it to standard error.
    pub fn show(&self) {
        output::report("warning", &format!("{}\n  hint: {}", self.text, self.hint));
    }

    /// It as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"text": self.text, "hint": self.hint})
    }
}

/// Whether a target is a microcontroller.
#[must_use]
pub fn is_board(target: &str) -> bool {
    target.starts_with("cortex-") || matches!(target, "riscv32" | "xtensa")
}

fn in_float(op: Op) -> bool {
    matches!(op, Op::ConvFloat | Op::ConvTransposeFloat | Op::MatMulFloat)
}

/// Bytes of constants by type: floats, and everything else.
fn constants(compiled: &Compiled) -> (usize, usize) {
    let constant = compiled.graph.tensors.iter().filter(|t| t.data.is_some());
    constant.fold(
        (0, 0),
        |(float, other), t| {
            if t.dtype == DType::F32 { (float + t.bytes(), other) } else { (float, other + t.bytes()) }
        },
    )
}

fn float_arithmetic(compiled: &Compiled, target: &str) -> Option<Warning> {
    if !is_board(target) {
        return None;
    }
    let steps = &compiled.graph.steps;
    let all: u64 = steps.iter().map(|s| s.macs).sum();
    let float: Vec<_> = steps.iter().filter(|s| in_float(s.op)).collect();
    let macs: u64 = float.iter().map(|s| s.macs).sum();
    if macs == 0 || macs * 20 < all {
        return None;
    }
    let (bytes, memory) = (compiled.package.len(), compiled.arena_bytes + compiled.scratch_bytes);
    let share = 100.0 * macs as f64 / all.max(1) as f64;
    if macs * 2 < all {
        let first = float.first().map_or("", |s| s.node.as_str());
        return Some(Warning {
            text: format!(
                "{share:.1} % of the multiply-accumulates are in float, in {} steps; the first is '{first}'",
                float.len()
            ),
            hint:
                "quantize these nodes too: their inputs, weights and outputs need QuantizeLinear and DequantizeLinear"
                    .to_owned(),
        });
    }
    let (float_bytes, other) = constants(compiled);
    let (small, arena) =
        (float_bytes / 4 + other + (bytes - (float_bytes + other).min(bytes)), compiled.arena_bytes / 4);
    Some(Warning {
        text: format!(
            "this is a float model: {} bytes of flash and {} bytes of memory on {target}; quantized to int8 it would take about {} and {}, and run several times as fast",
            grouped(bytes as u64),
            grouped(memory as u64),
            grouped(small as u64),
            grouped(arena as u64)
        ),
        hint: QUANTIZE.to_owned(),
    })
}

fn dynamic_quantization(compiled: &Compiled) -> Option<Warning> {
    let all = groups(&compiled.missing);
    let group = all.iter().find(|group| *group.reason == Unsupported::DynamicQuantization)?;
    Some(Warning {
        text: format!("{group}; these nodes run in tract, on hosts only, and not in the integer engine"),
        hint: group.reason.advice().unwrap_or(QUANTIZE).to_owned(),
    })
}

/// Returns what to know about a model for a target.
#[must_use]
pub fn warnings(compiled: &Compiled, target: &str) -> Vec<Warning> {
    dynamic_quantization(compiled).into_iter().chain(float_arithmetic(compiled, target)).collect()
}
