"""numpy reference of ONNX Runtime 1.32 CPU (x86-64, AVX2/AVX512) integer operators, bit for bit.
Written from the observed behaviour; see ort-formulas.md.  s*/z* = scale/zero point; dtype of x decides s8/u8."""
import math
import numpy as np
f32 = np.float32
f64 = np.float64


def lim(dt):
    i = np.iinfo(dt)
    return int(i.min), int(i.max)


def fma32(a, b, c):
    """float32 fused multiply-add with one rounding (f64 + TwoSum + round to odd)."""
    a, b, c = (np.asarray(v, f32).astype(f64) for v in (a, b, c))
    a, b, c = np.broadcast_arrays(a, b, c)
    p = a * b                                   # exact (24+24 bits)
    s = p + c
    bb = s - p
    e = (p - (s - bb)) + (c - bb)               # exact error of s
    u = np.ascontiguousarray(s).view(np.int64).copy() if s.ndim else np.array(s).reshape(1).view(np.int64).copy()
    s1, e1 = (s, e) if s.ndim else (s.reshape(1), e.reshape(1))
    fix = (e1 != 0) & ((u & 1) == 0)
    u = np.where(fix, np.where((e1 > 0) == (s1 > 0), u + 1, u - 1), u)
    r = u.view(f64).astype(f32)
    return r if s.ndim else r[0]


def _sat(r, dt):
    """cvtps2dq then saturating packs: anything outside int32 (or NaN) becomes INT_MIN, i.e. the LOW limit."""
    lo, hi = lim(dt)
    r = np.where(np.abs(r) < f32(2.0 ** 31), r, f32(-2.0 ** 31))
    return np.clip(r, lo, hi).astype(dt)


# ---------------------------------------------------------------- QLinearAdd
def qlinear_add_vv(a, sa, za, b, sb, zb, sc, zc):
    """both operands vary along the innermost span (equal shapes; also [N,C]+[C])."""
    ra, rb = f32(f32(sa) / f32(sc)), f32(f32(sb) / f32(sc))
    F = f32(f32(zc) - fma32(ra, f32(za), f32(rb * f32(zb))))
    t = fma32(b.astype(f32), rb, F)
    return _sat(np.rint(fma32(a.astype(f32), ra, t)), a.dtype)


def qlinear_add_vs(a, sa, za, b, sb, zb, sc, zc):
    """a: the spanning operand (whichever input that is), b: the operand constant along the innermost span
    (scalar, or [N,C,1,1] against [N,C,H,W]; b broadcast here to a.shape by numpy)."""
    ra, rb = f32(f32(sa) / f32(sc)), f32(f32(sb) / f32(sc))
    F = f32(f32(zc) - fma32(ra, f32(za), f32(rb * f32(zb))))
    F = fma32(np.asarray(b).astype(f32), rb, F)
    return _sat(np.rint(fma32(a.astype(f32), ra, F)), a.dtype)


# ---------------------------------------------------------------- QLinearMul
def qlinear_mul(a, sa, za, b, sb, zb, sc, zc):
    ratio = f32(f32(f32(sa) * f32(sb)) / f32(sc))
    p = (a.astype(np.int32) - int(za)) * (b.astype(np.int32) - int(zb))
    r = p.astype(f32) * ratio + f32(zc)          # two roundings, no FMA; zp added BEFORE rounding
    return _sat(np.rint(r), a.dtype)


# ---------------------------------------------------------------- requantize of an i32 accumulator
def requant(acc, scale, zp, dt):
    lo, hi = lim(dt)
    v = acc.astype(np.int32).astype(f32) * np.asarray(scale, f32)
    v = np.clip(v, f32(lo - int(zp)), f32(hi - int(zp)))
    return (np.rint(v).astype(np.int32) + int(zp)).astype(dt)


# ---------------------------------------------------------------- QLinearGlobalAveragePool
def qlinear_global_average_pool(x, sx, zx, sy, zy, channels_last=0):
    ax = tuple(range(1, x.ndim - 1)) if channels_last else tuple(range(2, x.ndim))
    n = int(np.prod([x.shape[i] for i in ax]))
    acc = x.astype(np.int64).sum(ax, keepdims=True) - int(zx) * n
    return requant(acc, f32(f32(sx) / f32(f32(sy) * f32(n))), zy, x.dtype)


# ---------------------------------------------------------------- QLinearAveragePool (NCHW, 2-D)
def qlinear_average_pool(x, sx, zx, sy, zy, kernel, strides=(1, 1), pads=(0, 0, 0, 0), count_include_pad=0,
                         out_hw=None):
    N, C, Hh, W = x.shape
    if (Hh, W) == tuple(kernel) and not any(pads):
        return qlinear_global_average_pool(x, sx, zx, sy, zy)
    d = (x.astype(np.int32) - int(zx)).astype(f32) * f32(sx)
    if out_hw is None:
        out_hw = ((Hh + pads[0] + pads[2] - kernel[0]) // strides[0] + 1,
                  (W + pads[1] + pads[3] - kernel[1]) // strides[1] + 1)
    y = np.zeros((N, C) + tuple(out_hw), f32)
    for i in range(out_hw[0]):
        h0 = i * strides[0] - pads[0]; h1 = min(h0 + kernel[0], Hh); h0 = max(h0, 0)
        for j in range(out_hw[1]):
            w0 = j * strides[1] - pads[1]; w1 = min(w0 + kernel[1], W); w0 = max(w0, 0)
            s = np.zeros((N, C), f32)
            for h in range(h0, h1):
                for w in range(w0, w1):
                    s = s + d[:, :, h, w]           # f32, row major order
            cnt = kernel[0] * kernel[1] if count_include_pad else (h1 - h0) * (w1 - w0)
            y[:, :, i, j] = s / f32(cnt)
    return _sat(np.rint(y / f32(sy) + f32(int(zy))), x.dtype)   # zp added in f32 BEFORE rounding


# ---------------------------------------------------------------- QLinearSoftmax (rows along last axis)
def qlinear_softmax_table(sx, D):
    q = f32(np.finfo(f32).max / f32(D))
    shift = max(0.0, float(np.log(q)) - 5.0) / float(f32(sx))          # log in f32 (logf), the rest in f64
    return np.array([math.exp((i - 255 + shift) * float(f32(sx))) for i in range(256)]).astype(f32)


def qlinear_softmax(x, sx, sy, zy):
    """opset >= 13: rows along the last axis (other axes: transpose); opset < 13: flatten [axis:] into the row."""
    D = x.shape[-1]
    T = qlinear_softmax_table(sx, D)
    X = x.reshape(-1, D).astype(np.int32)
    e = T[X - X.max(1, keepdims=True) + 255]          # f32
    s = np.zeros(len(X), f32)
    for k in range(D):
        s = s + e[:, k]                               # sequential f32 sum
    r = math.floor(f32(f32(1) / f32(sy)))             # reciprocal of the output scale, FLOORED (1/0.0123 -> 81)
    q = np.rint(e.astype(f64) * r / s.astype(f64)[:, None]).astype(np.int64) + int(zy)     # in f64
    return np.clip(q, *lim(x.dtype)).astype(x.dtype).reshape(x.shape)


# ---------------------------------------------------------------- QuantizeLinear / DequantizeLinear
def quantize_linear(x, s, z, dt):
    lo, hi = lim(dt)
    with np.errstate(all="ignore"):
        v = np.asarray(x, f32) / f32(s)
    # maxps(v,min): NaN -> min
    v = np.where(np.isnan(v), f32(lo - int(z)), v)
    v = np.clip(v, f32(lo - int(z)), f32(hi - int(z)))
    return (np.rint(v).astype(np.int32) + int(z)).astype(dt)


def dequantize_linear(x, s, z):
    return (x.astype(np.int64) - int(z)).astype(f32) * np.asarray(s, f32)


# ---------------------------------------------------------------- table operators
def _codes(dt):
    return np.arange(256, dtype=np.uint8).view(dt)


def _lookup(x, table):
    return table[x.view(np.uint8)]


def qlinear_concat(xs, sy, zy, axis):
    """xs: list of (x, s, z)"""
    o = []
    for x, s, z in xs:
        if f32(s) == f32(sy) and int(z) == int(zy):
            o.append(x)
        else:
            o.append(_lookup(x, quantize_linear(dequantize_linear(_codes(x.dtype), s, z), sy, zy, x.dtype)))
    return np.concatenate(o, axis)


def qlinear_leaky_relu(x, sx, zx, sy, zy, alpha=0.01):
    d = dequantize_linear(_codes(x.dtype), sx, zx)
    d = np.where(d >= 0, d, f32(alpha) * d)
    return _lookup(x, quantize_linear(d, sy, zy, x.dtype))


def logistic(x):
    """MLAS f32 sigmoid (FMA3 kernel); also the float Sigmoid operator."""
    A = [4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01]
    Bq = [6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01,
          9.93151921023180e-01]
    x = np.clip(np.asarray(x, f32), f32(-18), f32(18))
    x2 = x * x
    p = fma32(x2, f32(A[0]), f32(A[1]))
    for c in A[2:]:
        p = fma32(p, x2, f32(c))
    p = p * x
    q = fma32(x2, f32(Bq[0]), f32(Bq[1]))
    for c in Bq[2:]:
        q = fma32(q, x2, f32(c))
    return np.maximum(p / q + f32(0.5), f32(0))       # lower clamp only


def qlinear_sigmoid(x, sx, zx, sy, zy):
    return _lookup(x, quantize_linear(logistic(dequantize_linear(_codes(x.dtype), sx, zx)), sy, zy, x.dtype))


def qlinear_where(c, x, sx, zx, y, sy, zy, sz, zz):
    tx = quantize_linear(dequantize_linear(_codes(x.dtype), sx, zx), sz, zz, x.dtype)
    ty = quantize_linear(dequantize_linear(_codes(x.dtype), sy, zy), sz, zz, x.dtype)
    return np.where(c, _lookup(x, tx), _lookup(y, ty))


# ---------------------------------------------------------------- matrix / convolution
def matmul_integer(a, za, b, zb):
    return ((a.astype(np.int64) - np.asarray(za, np.int64)) @ (b.astype(np.int64) - np.asarray(zb, np.int64))).astype(np.int32)


def qlinear_matmul(a, sa, za, b, sb, zb, sy, zy):
    return requant(matmul_integer(a, za, b, zb), f32(f32(sa) * np.asarray(sb, f32)) / f32(sy), zy, a.dtype)


def qgemm(a, sa, za, b, sb, zb, c=None, sy=None, zy=None, alpha=1.0, transA=0, transB=0):
    a = a.T if transA else a
    b = b.T if transB else b
    acc = matmul_integer(a, za, b, zb)
    if c is not None:
        acc = acc + np.asarray(c, np.int32)                # NOT multiplied by beta; alpha scales bias too
    k = (f32(alpha) * f32(sa)) * np.asarray(sb, f32)       # (alpha*sa)*sb[i]
    if sy is None:
        return acc.astype(f32) * k
    return requant(acc, k / f32(sy), zy, a.dtype)


def matmul_integer_to_float(a, sa, za, b, sb, zb, bias=None):
    k = f32(sa) * np.asarray(sb, f32)
    y = matmul_integer(a, za, b, zb).astype(f32) * k
    return y if bias is None else y + np.asarray(bias, f32)


def dynamic_quantize_linear(x):
    x = np.asarray(x, f32)
    mn, mx = min(f32(x.min()), f32(0)), max(f32(x.max()), f32(0))
    s = f32(1) if mx == mn else f32(f32(mx - mn) / f32(255))
    z = np.uint8(np.rint(np.clip(f32(f32(0) - f32(mn / s)), f32(0), f32(255))))
    return quantize_linear(x, s, z, np.uint8), s, z


def hard_sigmoid(x, alpha=0.2, beta=0.5):
    return np.maximum(f32(0), np.minimum(f32(1), f32(alpha) * np.asarray(x, f32) + f32(beta)))


def conv_integer(x, zx, w, zw, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1):
    """NCHW int32 accumulators; padding contributes 0 (i.e. x = zx)."""
    x = x.astype(f64) - int(zx)
    w = w.astype(f64) - np.asarray(zw, f64).reshape(-1, 1, 1, 1)
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    N, C, Hh, W = x.shape
    M, Cg, kh, kw = w.shape
    oh = (Hh - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    ow = (W - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    y = np.zeros((N, group, M // group, oh, ow))
    xg = x.reshape(N, group, Cg, Hh, W)
    wg = w.reshape(group, M // group, Cg, kh, kw)
    for i in range(kh):
        for j in range(kw):
            v = xg[:, :, :, i * dilations[0]:i * dilations[0] + (oh - 1) * strides[0] + 1:strides[0],
                   j * dilations[1]:j * dilations[1] + (ow - 1) * strides[1] + 1:strides[1]]
            if Cg == 1:
                y += v * wg[None, :, :, 0, i, j, None, None]
            else:
                y += np.einsum("ngchw,gmc->ngmhw", v, wg[:, :, :, i, j], optimize=True)
    return y.reshape(N, M, oh, ow).astype(np.int64).astype(np.int32)


def qlinear_conv(x, sx, zx, w, sw, zw, sy, zy, bias=None, **kw):
    acc = conv_integer(x, zx, w, zw, **kw)
    if bias is not None:
        acc = acc + np.asarray(bias, np.int32).reshape(1, -1, 1, 1)       # int32, before the f32 conversion
    k = (f32(sx) * np.asarray(sw, f32)) / f32(sy)                          # per tensor or per output channel
    k = np.asarray(k, f32)
    return requant(acc, k.reshape(1, -1, 1, 1) if k.size > 1 else k.reshape(()), zy, x.dtype)


def sgemm_kblock(N, K):
    """length of one FMA chain of the MLAS f32 GEMM [M,K]x[K,N] (unpacked B)."""
    sn, sk = 128, 128
    if N >= K:
        while sk // 2 >= K:
            sn, sk = sn * 2, sk // 2
    else:
        while sn > 16 and sn // 2 >= N:
            sk, sn = sk * 2, sn // 2
    return sk


def conv_transpose_f32(x, w, b=None, strides=(1, 1), pads=(0, 0, 0, 0), output_padding=(0, 0)):
    """float ConvTranspose, group 1: GEMM [M*kh*kw, Cin] x [Cin, H*W] (FMA chain over Cin from 0; chains of
    sgemm_kblock channels are added in order), then col2im adds (kh major, kw minor) into 0, then + bias."""
    N, C, Hh, W = x.shape
    _, M, kh, kw = w.shape
    kb = sgemm_kblock(Hh * W, C)
    tot = None
    for c0 in range(0, C, kb):
        acc = np.zeros((N, M, kh, kw, Hh, W), f32)
        for c in range(c0, min(C, c0 + kb)):
            acc = fma32(x[:, None, None, None, c], w[None, c, :, :, :, None, None], acc)
        tot = acc if tot is None else tot + acc
    OH = (Hh - 1) * strides[0] + kh + output_padding[0]
    OW = (W - 1) * strides[1] + kw + output_padding[1]
    y = np.zeros((N, M, OH, OW), f32)
    for i in range(kh):
        for j in range(kw):
            y[:, :, i:i + (Hh - 1) * strides[0] + 1:strides[0], j:j + (W - 1) * strides[1] + 1:strides[1]] += tot[:, :, i, j]
    y = y[:, :, pads[0]:OH - pads[2], pads[1]:OW - pads[3]]
    return y if b is None else y + np.asarray(b, f32).reshape(1, -1, 1, 1)
