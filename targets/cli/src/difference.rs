//! How far two tensors are apart.

use dunlin::DType;

/// One output beside what it has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Elements compared.
    pub elements: usize,
    /// Elements that differ.
    pub differing: usize,
    /// The largest absolute difference.
    pub largest: f64,
    /// The largest difference over the largest expected magnitude (at least 1e-3).
    pub relative: f64,
}

impl Difference {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            elements: self.elements + other.elements,
            differing: self.differing + other.differing,
            largest: self.largest.max(other.largest),
            relative: self.relative.max(other.relative),
        }
    }
}

/// Elements as floats, which hold every value but the widest of `i64`.
#[must_use]
pub fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::I8 => bytes.iter().map(|b| f64::from(b.cast_signed())).collect(),
        DType::U8 | DType::Bool => bytes.iter().map(|&b| f64::from(b)).collect(),
        DType::I32 => bytes.as_chunks().0.iter().map(|c| f64::from(i32::from_le_bytes(*c))).collect(),
        DType::F32 => bytes.as_chunks().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
        DType::I64 => bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c) as f64).collect(),
    }
}

/// Compares elements of a type. Two NaNs are equal; another number of elements differs in all of them.
#[must_use]
pub fn compare(dtype: DType, got: &[u8], expected: &[u8]) -> Difference {
    let (got, expected) = (values(dtype, got), values(dtype, expected));
    let scale = expected.iter().filter(|v| v.is_finite()).fold(1e-3f64, |m, v| m.max(v.abs()));
    let mut difference = Difference { elements: expected.len(), ..Difference::default() };
    if got.len() != expected.len() {
        return Difference {
            differing: expected.len().max(1),
            largest: f64::INFINITY,
            relative: f64::INFINITY,
            ..difference
        };
    }
    for (g, e) in got.iter().zip(&expected) {
        if g == e || (g.is_nan() && e.is_nan()) {
            continue;
        }
        let by = if g.is_finite() && e.is_finite() { (g - e).abs() } else { f64::INFINITY };
        difference.differing += 1;
        difference.largest = difference.largest.max(by);
        difference.relative = difference.relative.max(by / scale);
    }
    difference
}
