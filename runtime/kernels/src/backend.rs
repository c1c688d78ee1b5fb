//! The loops every backend has.

use crate::{Add, Depthwise, GemmOut, Mul, Pool, Requant, Weights, WeightsF32, Windows, gather, scalar};

/// The inner loops of inference.
///
/// The provided methods are the scalar reference. An implementor is a zero-size
/// token whose existence proves that its instructions can run, and whose
/// overrides give the reference's bits. See the [crate] for the conventions: in
/// particular, a call whose slices are too short computes nothing.
#[allow(clippy::too_many_arguments, reason = "the operands, strides and sizes of a BLAS call")]
pub trait Backend: Copy + Send + Sync + 'static {
    /// A short lower-case name, for logs and tests.
    fn name(self) -> &'static str;

    /// Bytes of packed weights [`gemm`](Self::gemm) wants for `[n][k]` weights;
    /// 0 if it reads the canonical layout.
    #[inline]
    fn gemm_packed_len(self, n: usize, k: usize) -> usize {
        let _ = (n, k);
        0
    }

    /// Packs canonical weights `w[n][k]` into
    /// [`gemm_packed_len`](Self::gemm_packed_len) bytes, of any alignment.
    #[inline]
    fn gemm_pack(self, w: &[i8], n: usize, k: usize, packed: &mut [u8]) {
        let _ = (w, n, k, packed);
    }

    /// Bytes of scratch [`gemm`](Self::gemm) wants; any alignment, any content.
    #[inline]
    fn gemm_scratch_len(self, m: usize, n: usize, k: usize) -> usize {
        let _ = (m, n, k);
        0
    }

    /// `out[i][j] = finish(bias[j] + sum over p of a[i][p] * w[j][p])`.
    ///
    /// `a` is `[m][k]` with a row every `lda` elements (less than `k` lets rows
    /// overlap), `bias` has `n` elements or none, and `out` is `[m][n]` with a
    /// row every `ldc >= n`; elements between its rows are left alone. Sums wrap;
    /// `finish` is what [`GemmOut`] says.
    ///
    /// With too little scratch or no packed weights the result is the same, but
    /// slower.
    #[inline]
    fn gemm(
        self,
        a: &[i8],
        lda: usize,
        m: usize,
        weights: Weights<'_>,
        n: usize,
        k: usize,
        bias: &[i32],
        out: GemmOut<'_>,
        ldc: usize,
        scratch: &mut [u8],
    ) {
        let _ = scratch;
        scalar::gemm::gemm(a, lda, m, weights.canonical, n, k, bias, out, ldc);
    }

    /// Bytes of scratch [`conv`](Self::conv) needs, for `n` output channels; any
    /// alignment, any content.
    #[inline]
    fn conv_scratch_len(self, windows: &Windows, n: usize) -> usize {
        gather::conv_scratch_len(self, windows, n)
    }

    /// Convolution: [`gemm`](Self::gemm) of the rows that `windows` sees in `x`.
    ///
    /// The weights are those of `gemm`, packed by [`gemm_pack`](Self::gemm_pack),
    /// with `k` the length of a row; `out` has a row for each place of the
    /// output. Outside the input `x` is `border`. With too little scratch nothing
    /// is computed.
    #[inline]
    fn conv(
        self,
        x: &[i8],
        windows: &Windows,
        border: i8,
        weights: Weights<'_>,
        n: usize,
        bias: &[i32],
        out: GemmOut<'_>,
        ldc: usize,
        scratch: &mut [u8],
    ) {
        gather::conv(self, x, windows, border, weights, n, bias, out, ldc, scratch);
    }

    /// Bytes of packed weights [`depthwise`](Self::depthwise) wants; 0 if it
    /// reads the canonical layout.
    #[inline]
    fn depthwise_packed_len(self, channels: usize, taps: usize) -> usize {
        let _ = (channels, taps);
        0
    }

    /// Packs canonical weights `w[channels][taps]`, taps in row-major order, into
    /// [`depthwise_packed_len`](Self::depthwise_packed_len) bytes, of any
    /// alignment.
    #[inline]
    fn depthwise_pack(self, w: &[i8], channels: usize, taps: usize, packed: &mut [u8]) {
        let _ = (w, channels, taps, packed);
    }

    /// Depthwise convolution (channel multiplier 1).
    ///
    /// `x` is `[in_h][in_w][channels]`, `y` is `[out_h][out_w][channels]`, the
    /// canonical weights are `[channels][kernel[0] * kernel[1]]` and `bias` has
    /// `channels` elements or none. Taps outside the input read `pad_value`.
    #[inline]
    fn depthwise(
        self,
        x: &[i8],
        weights: Weights<'_>,
        bias: &[i32],
        requant: Requant<'_>,
        y: &mut [i8],
        shape: &Depthwise,
    ) {
        scalar::depthwise::depthwise(x, weights.canonical, bias, requant, y, shape);
    }

    /// `out[i] = a[i] + b[i % b.len()]`, quantised as [`Add`] says.
    ///
    /// `out` is as long as `a`, and the length of `b` divides it: 1 for a scalar,
    /// the number of channels for one value per channel.
    #[inline]
    fn add(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Add) {
        scalar::elementwise::add(a, b, out, p);
    }

    /// [`add`](Self::add) with the result in the place of `a`.
    #[inline]
    fn add_in_place(self, ab: &mut [i8], b: &[i8], p: &Add) {
        scalar::elementwise::add_in_place(ab, b, p);
    }

    /// `out[i] = a[i] * b[i % b.len()]`, quantised as [`Mul`] says; the lengths
    /// are those of [`add`](Self::add).
    #[inline]
    fn mul(self, a: &[i8], b: &[i8], out: &mut [i8], p: &Mul) {
        scalar::elementwise::mul(a, b, out, p);
    }

    /// [`mul`](Self::mul) with the result in the place of `a`.
    #[inline]
    fn mul_in_place(self, ab: &mut [i8], b: &[i8], p: &Mul) {
        scalar::elementwise::mul_in_place(ab, b, p);
    }

    /// `out[i] = table[x[i]]`, by the raw byte; equal lengths.
    #[inline]
    fn map(self, x: &[u8], table: &[u8; 256], out: &mut [u8]) {
        scalar::elementwise::map(x, table, out);
    }

    /// [`map`](Self::map) with the result in the place of `x`.
    #[inline]
    fn map_in_place(self, x: &mut [u8], table: &[u8; 256]) {
        scalar::elementwise::map_in_place(x, table);
    }

    /// `out[i] = clamp(round_half_even(x[i] / scale) + zero_point, -128, 127)`;
    /// equal lengths. A NaN quotient gives -128.
    #[inline]
    fn quantize(self, x: &[f32], scale: f32, zero_point: i32, out: &mut [i8]) {
        scalar::elementwise::quantize(x, scale, zero_point, out);
    }

    /// `out[i] = (x[i] - zero_point) as f32 * scale`; equal lengths.
    #[inline]
    fn dequantize(self, x: &[i8], scale: f32, zero_point: i32, out: &mut [f32]) {
        scalar::elementwise::dequantize(x, scale, zero_point, out);
    }

    /// The largest value under each window, per channel; -128 where a window lies
    /// wholly outside. `x` is `[in_h][in_w][channels]`, `y` is
    /// `[out_h][out_w][channels]`.
    #[inline]
    fn max_pool(self, x: &[i8], y: &mut [i8], shape: &Pool) {
        scalar::pool::max_pool(x, y, shape);
    }

    /// `acc[c] += sum over r of x[r * row_stride + c]`, wrapping, for `rows` rows
    /// of `channels`: the sums of an average pool.
    #[inline]
    fn sum_rows(self, x: &[i8], rows: usize, channels: usize, row_stride: usize, acc: &mut [i32]) {
        scalar::pool::sum_rows(x, rows, channels, row_stride, acc);
    }

    /// Bytes of packed weights [`gemm_f32`](Self::gemm_f32) wants; 0 if it reads
    /// the canonical layout.
    #[inline]
    fn gemm_f32_packed_len(self, n: usize, k: usize) -> usize {
        let _ = (n, k);
        0
    }

    /// Packs canonical weights `w[n][k]` into
    /// [`gemm_f32_packed_len`](Self::gemm_f32_packed_len) bytes, of any alignment.
    #[inline]
    fn gemm_f32_pack(self, w: &[f32], n: usize, k: usize, packed: &mut [u8]) {
        let _ = (w, n, k, packed);
    }

    /// `out[i][j] = bias[j] + a[i][0] * w[j][0] + a[i][1] * w[j][1] + …`.
    ///
    /// Shapes are those of [`gemm`](Self::gemm). The order of the additions is
    /// part of the contract: from the bias (or `+0.0`) through `k` in turn, each
    /// product rounded before it is added.
    #[inline]
    fn gemm_f32(
        self,
        a: &[f32],
        lda: usize,
        m: usize,
        weights: WeightsF32<'_>,
        n: usize,
        k: usize,
        bias: &[f32],
        out: &mut [f32],
        ldc: usize,
    ) {
        scalar::gemm::gemm_f32(a, lda, m, weights.canonical, n, k, bias, out, ldc);
    }

    /// `out[i][j] = fma(a[i][k - 1], w[k - 1][j], … fma(a[i][0], w[0][j], +0.0))`:
    /// chains of fused multiply-adds, each rounded once.
    ///
    /// `a` is `[m][k]` with a row every `lda` elements, `w` is `[k][n]` and `out` is
    /// `[m][n]`.
    #[inline]
    fn chains_f32(self, a: &[f32], lda: usize, m: usize, w: &[f32], n: usize, k: usize, out: &mut [f32]) {
        scalar::gemm::chains_f32(a, lda, m, w, n, k, out);
    }
}
