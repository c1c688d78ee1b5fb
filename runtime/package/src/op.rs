//! The operators of a plan, and the parameters that each one stores.
//!
//! An operator is a number in the file, so numbers are never reused. Parameters are 32-bit words, in the order of the
//! struct's fields; `FORMAT.md` gives each operator's arithmetic.

mod params;

pub use params::*;

/// The operators of version 1, in the order of their numbers.
///
/// "Feature map" means rank 4, in the order batch, height, width, channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Op {
    /// Integer convolution, also Gemm and MatMul by constant weights: `x:i8, w:i8, bias:i32, scale:f32 -> y:i8|i32|f32`.
    Conv = 1,
    /// Float convolution, also Gemm and MatMul by constant weights: `x:f32, w:f32, bias:f32 -> y:f32`.
    ConvFloat = 2,
    /// Integer transposed convolution: `x:i8, w:i8, bias:i32, scale:f32 -> y:i8|i32|f32`.
    ConvTranspose = 3,
    /// Float transposed convolution: `x:f32, w:f32, bias:f32 -> y:f32`.
    ConvTransposeFloat = 4,
    /// Integer product of two activations: `a:i8, b:i8 -> y:i8|i32|f32`.
    MatMul = 5,
    /// Float product of two activations: `a:f32, b:f32 -> y:f32`.
    MatMulFloat = 6,
    /// Quantized addition and subtraction with broadcast: `a:i8, b:i8 -> y:i8`.
    Add = 7,
    /// Quantized multiplication with broadcast: `a:i8, b:i8 -> y:i8`.
    Mul = 8,
    /// Float arithmetic with broadcast, on the values of quantized tensors too: `a:f32|i8, b:f32|i8 -> y:f32|i8`.
    Binary = 9,
    /// Any function of one byte: `x:i8|u8, table:u8[256] -> y:i8|u8`; with a table of `256 * C`, one for each channel.
    Map = 10,
    /// A float function of one element: `x:f32 -> y:f32`.
    Unary = 11,
    /// Maximum over windows of a feature map: `x -> y`, i8 or f32.
    MaxPool = 12,
    /// Mean over windows of a feature map: `x -> y`, i8 or f32.
    AveragePool = 13,
    /// Sum, mean, maximum or minimum over one run of axes: `x -> y`, i8 or f32.
    Reduce = 14,
    /// Quantized softmax over the last axis: `x:i8, table:f32[256] -> y:i8`.
    Softmax = 15,
    /// Float softmax or its logarithm over one axis: `x:f32 -> y:f32`.
    SoftmaxFloat = 16,
    /// Joins along one axis: `x... -> y`, any one type.
    Concat = 17,
    /// A strided part: `x -> y`, any type.
    Slice = 18,
    /// Constant, edge or reflected border: `x -> y`, i8 or f32.
    Pad = 19,
    /// Picks along an axis by constant or computed indices: `x, index:i64|i32 -> y`.
    Gather = 20,
    /// Reorders axes: `x -> y`, any type.
    Transpose = 21,
    /// Nearest or linear resampling of a feature map: `x -> y`, i8 or f32.
    Resize = 22,
    /// Index of the maximum or minimum along an axis: `x -> y:i64`.
    ArgMax = 23,
    /// `f32 -> i8`.
    Quantize = 24,
    /// `i8|i32 -> f32`.
    Dequantize = 25,
    /// The same bytes in another place: `x -> y`.
    Copy = 26,
    /// A subgraph that another executor runs: any inputs, any outputs.
    Foreign = 27,
}

impl Op {
    /// Every operator, in the order of the numbers.
    pub const ALL: &'static [Self] = &[
        Self::Conv,
        Self::ConvFloat,
        Self::ConvTranspose,
        Self::ConvTransposeFloat,
        Self::MatMul,
        Self::MatMulFloat,
        Self::Add,
        Self::Mul,
        Self::Binary,
        Self::Map,
        Self::Unary,
        Self::MaxPool,
        Self::AveragePool,
        Self::Reduce,
        Self::Softmax,
        Self::SoftmaxFloat,
        Self::Concat,
        Self::Slice,
        Self::Pad,
        Self::Gather,
        Self::Transpose,
        Self::Resize,
        Self::ArgMax,
        Self::Quantize,
        Self::Dequantize,
        Self::Copy,
        Self::Foreign,
    ];

    /// The operator of a stored number.
    #[must_use]
    pub fn from_u8(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// The name as `inspect` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "Conv",
            Self::ConvFloat => "ConvFloat",
            Self::ConvTranspose => "ConvTranspose",
            Self::ConvTransposeFloat => "ConvTransposeFloat",
            Self::MatMul => "MatMul",
            Self::MatMulFloat => "MatMulFloat",
            Self::Add => "Add",
            Self::Mul => "Mul",
            Self::Binary => "Binary",
            Self::Map => "Map",
            Self::Unary => "Unary",
            Self::MaxPool => "MaxPool",
            Self::AveragePool => "AveragePool",
            Self::Reduce => "Reduce",
            Self::Softmax => "Softmax",
            Self::SoftmaxFloat => "SoftmaxFloat",
            Self::Concat => "Concat",
            Self::Slice => "Slice",
            Self::Pad => "Pad",
            Self::Gather => "Gather",
            Self::Transpose => "Transpose",
            Self::Resize => "Resize",
            Self::ArgMax => "ArgMax",
            Self::Quantize => "Quantize",
            Self::Dequantize => "Dequantize",
            Self::Copy => "Copy",
            Self::Foreign => "Foreign",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Op;

    #[test]
    fn numbers_are_dense_and_round_trip() {
        for (i, &op) in Op::ALL.iter().enumerate() {
            assert_eq!(op as usize, i + 1);
            assert_eq!(Op::from_u8(op as u8), Some(op));
        }
        assert_eq!(Op::from_u8(0), None);
        assert_eq!(Op::from_u8(200), None);
    }
}
