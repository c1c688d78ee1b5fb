//! Values that a quantized model's float inputs can have, and data that leave them.

use dunlin::DType;
use dunlin::Package;
use dunlin::package::op::{Affine, Op};
use dunlin::package::plan::Plan;

use crate::output;
use crate::table::significant;

/// What a float input's scale and zero point can represent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lowest value.
    pub low: f32,
    /// Highest value.
    pub high: f32,
    /// Value of one step.
    pub scale: f32,
}

impl Range {
    /// Returns the range of an input that the model quantizes at once; `None` for inputs that stay floats, or are integers.
    #[must_use]
    pub fn of_input(plan: &Plan<'_>, input: usize) -> Option<Self> {
        let tensor = plan.input(input).and_then(|id| plan.tensor(id))?;
        if tensor.dtype != DType::F32 {
            return None;
        }
        // Views of a tensor have numbers of their own, at its place; later steps may put other tensors there.
        let reads = |id: Option<u16>| id.and_then(|id| plan.tensor(id)).is_some_and(|t| t.place == tensor.place);
        let first = plan.steps().find(|step| (0..step.input_count()).any(|i| reads(step.input(i))))?;
        if first.op != Op::Quantize {
            return None;
        }
        let Affine { scale, zero_point } = first.params()?;
        let value = |code: i32| (code - zero_point) as f32 * scale;
        Some(Self { low: value(-128), high: value(127), scale })
    }
}

/// Counts the values of one input that lie outside of its range.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    range: Range,
    values: u64,
    outside: u64,
    lowest: f32,
    highest: f32,
}

/// Share of values outside that is worth a warning: calibration leaves out outliers on purpose.
const MOST: f64 = 0.01;

impl Outside {
    /// Counters of a package's inputs; `None` for inputs without a range.
    #[must_use]
    pub fn of_package(package: &Package<'_>) -> Vec<Option<Self>> {
        let Ok(plan) = Plan::read(package.plan_bytes()) else { return Vec::new() };
        let counter = |i: usize| {
            let range = Range::of_input(&plan, i)?;
            Some(Self { range, values: 0, outside: 0, lowest: f32::INFINITY, highest: f32::NEG_INFINITY })
        };
        (0..plan.input_count()).map(counter).collect()
    }

    /// Counts little-endian floats.
    pub fn add(&mut self, bytes: &[u8]) {
        let half = self.range.scale / 2.0;
        for value in bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)) {
            self.values += 1;
            self.outside += u64::from(!(self.range.low - half..=self.range.high + half).contains(&value));
            self.lowest = self.lowest.min(value);
            self.highest = self.highest.max(value);
        }
    }

    /// Share of the values that lie outside.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.outside as f64 / self.values.max(1) as f64
    }

    /// Returns a warning when many values lie outside of the range, with the option that would bring them into it.
    #[must_use]
    pub fn warning(&self, input: &str) -> Option<String> {
        if self.share() <= MOST {
            return None;
        }
        let number = |value: f32| significant(f64::from(value));
        let Range { low, high, .. } = self.range;
        let hint = if self.lowest >= 0.0 && self.highest > high && high > 0.0 {
            // Stored bytes are the usual case; a data set need not have the greatest.
            let most = if self.highest > 128.0 && self.highest <= 255.0 { 255.0 } else { self.highest };
            format!("scale the data as the model was trained: --scale {}", number(high / most))
        } else {
            "scale the data as the model was trained: --scale and --offset".to_owned()
        };
        Some(format!(
            "{:.1} % of the values of input '{input}' are outside of {} to {}, the range that the model was quantized for; they are {} to {}\n  hint: {hint}",
            100.0 * self.share(),
            number(low),
            number(high),
            number(self.lowest),
            number(self.highest)
        ))
    }
}

/// Warns of every input whose values leave its range.
pub fn report(package: &Package<'_>, counters: &[Option<Outside>]) {
    for (port, counter) in package.manifest().inputs().zip(counters) {
        if let Some(text) = counter.as_ref().and_then(|counter| counter.warning(port.name)) {
            output::report("warning", &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_are_counted_and_the_scale_is_named() {
        let range = Range { low: 0.0, high: 1.0, scale: 1.0 / 255.0 };
        let counter = || Outside { range, values: 0, outside: 0, lowest: f32::INFINITY, highest: f32::NEG_INFINITY };
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut good = counter();
        good.add(&bytes(&[0.0, 0.5, 1.0, 1.001]));
        assert_eq!(good.warning("x"), None);
        let mut bad = counter();
        bad.add(&bytes(&[0.0, 17.0, 255.0, 254.0]));
        assert_eq!(bad.share(), 0.75);
        let text = bad.warning("x").expect("a warning");
        assert!(text.contains("75.0 %") && text.contains("--scale 0.003922"), "{text}");
        let mut negative = counter();
        negative.add(&bytes(&[-1.0, 1.0]));
        assert!(negative.warning("x").is_some_and(|text| text.contains("--offset")));
    }
}
