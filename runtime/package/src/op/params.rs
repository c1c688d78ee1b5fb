//! What each operator stores beside its tensors.

/// Something that is a fixed number of 32-bit words in a plan.
pub trait Words: Sized {
    /// How many words.
    const LEN: usize;
    /// Calls `put` for each word in order.
    fn put(&self, put: &mut dyn FnMut(u32));
    /// Reads it from words; `None` when there are too few.
    fn get(words: &mut dyn Iterator<Item = u32>) -> Option<Self>;
}

impl Words for u32 {
    const LEN: usize = 1;
    fn put(&self, put: &mut dyn FnMut(u32)) {
        put(*self);
    }
    fn get(words: &mut dyn Iterator<Item = u32>) -> Option<Self> {
        words.next()
    }
}

impl Words for i32 {
    const LEN: usize = 1;
    fn put(&self, put: &mut dyn FnMut(u32)) {
        put(self.cast_unsigned());
    }
    fn get(words: &mut dyn Iterator<Item = u32>) -> Option<Self> {
        words.next().map(u32::cast_signed)
    }
}

impl Words for f32 {
    const LEN: usize = 1;
    fn put(&self, put: &mut dyn FnMut(u32)) {
        put(self.to_bits());
    }
    fn get(words: &mut dyn Iterator<Item = u32>) -> Option<Self> {
        words.next().map(Self::from_bits)
    }
}

impl<T: Words + Copy + Default, const N: usize> Words for [T; N] {
    const LEN: usize = N * T::LEN;
    fn put(&self, put: &mut dyn FnMut(u32)) {
        for value in self {
            value.put(put);
        }
    }
    fn get(words: &mut dyn Iterator<Item = u32>) -> Option<Self> {
        let mut all = [T::default(); N];
        for slot in &mut all {
            *slot = T::get(words)?;
        }
        Some(all)
    }
}

macro_rules! params {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl Words for $name {
            const LEN: usize = 0 $(+ <$type as Words>::LEN)*;
            fn put(&self, _put: &mut dyn FnMut(u32)) {
                $(self.$field.put(_put);)*
            }
            fn get(_words: &mut dyn Iterator<Item = u32>) -> Option<Self> {
                Some(Self { $($field: <$type as Words>::get(_words)?,)* })
            }
        }
    )*};
}

params! {
    /// The geometry of a window that slides over a feature map.
    Window {
        /// Height and width.
        kernel: [u32; 2],
        /// Step down and right.
        stride: [u32; 2],
        /// Distance between taps.
        dilation: [u32; 2],
        /// Border: top, left, bottom, right.
        pad: [u32; 4],
    }

    /// Where a requantized result lies.
    Range {
        /// The zero point of the result.
        zero_point: i32,
        /// The least value it takes.
        lo: i32,
        /// The greatest value it takes.
        hi: i32,
    }

    /// `Conv` and `ConvTranspose`. The bias already holds `-x_zero_point * sum(w)`.
    Conv {
        /// Kernel, stride, dilation, border.
        window: Window,
        /// Groups of channels that do not mix.
        groups: u32,
        /// The zero point of `x`, which the border takes.
        x_zero_point: i32,
        /// Unused when `y` is not i8.
        range: Range,
    }

    /// `ConvFloat` and `ConvTransposeFloat`.
    ConvFloat {
        /// Kernel, stride, dilation, border.
        window: Window,
        /// Groups of channels that do not mix.
        groups: u32,
        /// Least and greatest value of the result.
        bounds: [f32; 2],
    }

    /// `MatMul`: `y[b] = a[b] * b[b]`, the last two axes are matrices, those before them are batches.
    MatMul {
        /// Zero point of the left factor.
        a_zero_point: i32,
        /// Zero point of the right factor.
        b_zero_point: i32,
        /// From the accumulator to the result.
        scale: f32,
        /// Unused when `y` is not i8.
        range: Range,
    }

    /// `MatMulFloat`.
    MatMulFloat {
        /// Factor of the whole product.
        alpha: f32,
    }

    /// `Add` and `Mul`: the terms of the formula of `FORMAT.md`.
    Arithmetic {
        /// Added to `a` before it becomes a float.
        a_offset: i32,
        /// Added to `b` before it becomes a float.
        b_offset: i32,
        /// Factor of `a`.
        a_scale: f32,
        /// Factor of `b`.
        b_scale: f32,
        /// Constant term.
        constant: f32,
        /// Where the result lies.
        range: Range,
    }

    /// `Binary`.
    Binary {
        /// A [`BinaryKind`].
        kind: u32,
        /// The meaning of `a`, where it is i8.
        a: Affine,
        /// The meaning of `b`, where it is i8.
        b: Affine,
        /// The meaning of `y`, where it is i8.
        y: Affine,
        /// The least and the greatest value that `y` takes, where it is i8.
        bounds: [i32; 2],
    }

    /// `Unary`.
    Unary {
        /// A [`UnaryKind`].
        kind: u32,
        /// The function's own parameters, zero where it has none.
        alpha: f32,
        /// See `alpha`.
        beta: f32,
    }

    /// `Map`: how many elements share a table before the next begins; 0 for one table.
    Map {
        /// Channels that have tables of their own, 0 for one table for all.
        channels: u32,
    }

    /// `MaxPool`.
    MaxPool {
        /// Kernel, stride, dilation, border.
        window: Window,
    }

    /// `AveragePool`.
    AveragePool {
        /// Kernel, stride, dilation, border.
        window: Window,
        /// 1 when the border counts in the divisor.
        count_border: u32,
        /// The zero point of `x`.
        x_zero_point: i32,
        /// Value of one step of `x`.
        x_scale: f32,
        /// Value of one step of `y`.
        y_scale: f32,
        /// Added as a float before rounding: the zero point as ONNX has it.
        offset: f32,
        /// What is added after rounding, and the bounds.
        range: Range,
    }

    /// `Reduce` over the middle of `outer x axis x inner`.
    Reduce {
        /// A [`ReduceKind`].
        kind: u32,
        /// Elements before the reduced axes.
        outer: u32,
        /// Elements of the reduced axes.
        axis: u32,
        /// Elements after them.
        inner: u32,
        /// The zero point of `x`.
        x_zero_point: i32,
        /// From the sum to the result.
        scale: f32,
        /// Where the result lies.
        range: Range,
    }

    /// `Softmax` over rows of `axis` elements.
    Softmax {
        /// Elements of a row.
        axis: u32,
        /// The whole part of the reciprocal of the result's scale.
        factor: f32,
        /// The integer that means zero, as ONNX has it.
        zero_point: i32,
        /// 1 when ONNX has uint8 here.
        unsigned: u32,
    }

    /// `SoftmaxFloat` over the middle of `outer x axis x inner`.
    SoftmaxFloat {
        /// 1 for the logarithm.
        log: u32,
        /// Elements before the axis.
        outer: u32,
        /// Elements of the axis.
        axis: u32,
        /// Elements after it.
        inner: u32,
    }

    /// `Concat` along one axis: each input is `outer` runs of bytes.
    Concat {
        /// Runs of each input.
        outer: u32,
    }

    /// `Slice`.
    Slice {
        /// First index on each axis.
        start: [u32; 6],
        /// Step on each axis, negative for backwards.
        step: [i32; 6],
    }

    /// `Pad`.
    Pad {
        /// A [`PadKind`].
        kind: u32,
        /// Elements put before each axis; negative crops.
        before: [i32; 6],
        /// The constant's bits, for i8 in the low byte.
        value: u32,
    }

    /// `Gather` on the middle of `outer x axis x inner`.
    Gather {
        /// Elements before the axis.
        outer: u32,
        /// Elements of the axis.
        axis: u32,
        /// Elements after it.
        inner: u32,
    }

    /// `Transpose`: axis `i` of the result is axis `order[i]` of the input.
    Transpose {
        /// The order.
        order: [u32; 6],
    }

    /// `Resize` of height and width.
    Resize {
        /// A [`ResizeKind`].
        kind: u32,
        /// A [`Coordinate`] transformation.
        coordinate: u32,
        /// A [`Nearest`] rounding.
        nearest: u32,
        /// Result size over input size, as given.
        scale: [f32; 2],
    }

    /// `ArgMax` on the middle of `outer x axis x inner`.
    ArgMax {
        /// 1 for the minimum.
        least: u32,
        /// 1 when the last of equals wins.
        last: u32,
        /// Elements before the axis.
        outer: u32,
        /// Elements of the axis.
        axis: u32,
        /// Elements after it.
        inner: u32,
    }

    /// `Quantize` and `Dequantize` by one scale.
    Affine {
        /// Value of one step.
        scale: f32,
        /// The integer that means zero.
        zero_point: i32,
    }

    /// `Copy`, which needs nothing.
    Nothing {}

    /// `Foreign`: which subgraph of the section.
    Foreign {
        /// Its index.
        index: u32,
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $($(#[$variant_meta])* $variant = $value,)* }

        impl $name {
            /// The kind of a stored number.
            #[must_use]
            pub const fn from_u32(value: u32) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }

            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    )*};
}

kinds! {
    /// Functions of two floats.
    BinaryKind {
        /// `a + b`
        Add = 0,
        /// `a - b`
        Sub = 1,
        /// `a * b`
        Mul = 2,
        /// `a / b`
        Div = 3,
        /// The greater; NaN wins.
        Max = 4,
        /// The lesser; NaN wins.
        Min = 5,
        /// `a` to the power of `b`
        Pow = 6,
        /// `a` where positive, else `a * b`
        PRelu = 7,
    }

    /// Functions of one float.
    UnaryKind {
        /// `clamp(x, alpha, beta)`
        Clip = 0,
        /// `x` where positive, else `alpha * x`
        LeakyRelu = 1,
        /// `1 / (1 + exp(-x))`
        Sigmoid = 2,
        /// Hyperbolic tangent.
        Tanh = 3,
        /// `clamp(alpha * x + beta, 0, 1)`
        HardSigmoid = 4,
        /// `x * HardSigmoid(x)` with 1/6 and 1/2
        HardSwish = 5,
        /// `x / 2 * (1 + erf(x / sqrt(2)))`
        Gelu = 6,
        /// Exponential.
        Exp = 7,
        /// Natural logarithm.
        Log = 8,
        /// Square root.
        Sqrt = 9,
        /// `1 / x`
        Reciprocal = 10,
        /// Absolute value.
        Abs = 11,
        /// `-x`
        Neg = 12,
        /// `x` where positive, else `alpha * (exp(x) - 1)`
        Elu = 13,
        /// `log(1 + exp(x))`
        Softplus = 14,
        /// `x / (1 + |x|)`
        Softsign = 15,
        /// Error function.
        Erf = 16,
        /// Towards minus infinity.
        Floor = 17,
        /// Towards infinity.
        Ceil = 18,
        /// To the nearest, ties to even.
        Round = 19,
        /// `beta * (x where positive, else alpha * (exp(x) - 1))`
        Selu = 20,
        /// `x * tanh(softplus(x))`
        Mish = 21,
        /// -1, 0 or 1.
        Sign = 22,
        /// Sine.
        Sin = 23,
        /// Cosine.
        Cos = 24,
        /// `x` where greater than alpha, else 0
        ThresholdedRelu = 25,
        /// `x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`
        GeluTanh = 26,
        /// `max(0, x) + alpha * min(0, exp(x / alpha) - 1)`
        Celu = 27,
    }

    /// What a reduction keeps.
    ReduceKind {
        /// The sum divided by the count.
        Mean = 0,
        /// The sum.
        Sum = 1,
        /// The greatest.
        Max = 2,
        /// The least.
        Min = 3,
    }

    /// What lies in a border.
    PadKind {
        /// One value.
        Constant = 0,
        /// The nearest element.
        Edge = 1,
        /// The mirrored elements, without the edge.
        Reflect = 2,
    }

    /// How a resized element is found.
    ResizeKind {
        /// The nearest element.
        Nearest = 0,
        /// Weighted by distance on two axes.
        Linear = 1,
    }

    /// From a place in the result to a place in the input, named as in ONNX.
    Coordinate {
        /// `(x + 0.5) / scale - 0.5`
        HalfPixel = 0,
        /// `x / scale`
        Asymmetric = 1,
        /// `x * (in - 1) / (out - 1)`
        AlignCorners = 2,
        /// As `HalfPixel`, but 0 where the result has one element.
        PytorchHalfPixel = 3,
        /// As `HalfPixel`, corrected for a scale that does not give a whole size.
        HalfPixelSymmetric = 4,
    }

    /// Which element is nearest, named as in ONNX.
    Nearest {
        /// Ties down.
        RoundPreferFloor = 0,
        /// Ties up.
        RoundPreferCeil = 1,
        /// Down.
        Floor = 2,
        /// Up.
        Ceil = 3,
    }
}
