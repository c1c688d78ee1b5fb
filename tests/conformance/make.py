#!/usr/bin/env python3
"""Writes cases.npz: small models of each operator with inputs and the outputs of ONNX Runtime's integer kernels.

    pip install numpy onnx==1.23.2 onnxruntime==1.32.0
    python3 tests/conformance/make.py

Keys are CASE/model (bytes of the ONNX file), CASE/in{k}_{i} and CASE/out{k}_{i} for sample k, and CASE/rule: 0 when
every element has to agree, otherwise the largest relative difference of a float. Sample 0 is random, sample 1 lies on
halves of a step (ties), sample 2 saturates.
"""
import os

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
I8, U8, F32 = np.int8, np.uint8, np.float32
cases = {}


class Graph:
    """A graph under construction; every value is named by what made it."""

    def __init__(self, name, opset=17):
        self.name, self.opset = name, opset
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []
        self.random = np.random.default_rng(list(name.encode()))

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op, *inputs, outputs=1, domain="", **attributes):
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, name=f"{op}{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def input(self, shape, dtype=F32):
        name = f"x{len(self.inputs)}"
        self.inputs.append((name, tuple(shape), np.dtype(dtype)))
        return name

    def quantize(self, x, scale, zero, dtype):
        return self.node("QuantizeLinear", x, F32(scale), dtype(zero))

    def dequantize(self, q, scale, zero, dtype):
        return self.node("DequantizeLinear", q, F32(scale), dtype(zero))

    def both(self, x, scale, zero, dtype):
        """QuantizeLinear and DequantizeLinear."""
        return self.dequantize(self.quantize(x, scale, zero, dtype), scale, zero, dtype)

    def weights(self, shape, scale, dtype=I8, axis=0, zero=0, lo=-127, hi=127):
        """Dequantized weights; a list of scales is one for each index of the axis."""
        scale = np.asarray(scale, F32)
        codes = self.random.integers(lo, hi + 1, shape).astype(dtype)
        zeros = np.full(scale.shape, zero, dtype)
        if scale.ndim == 0:
            return self.node("DequantizeLinear", codes, scale, zeros)
        return self.node("DequantizeLinear", codes, scale, zeros, axis=axis)

    def bias(self, n, scale, size=3000):
        """A bias of int32 with its own DequantizeLinear."""
        scale = np.asarray(scale, F32)
        codes = self.random.integers(-size, size, n).astype(np.int32)
        if scale.ndim == 0:
            return self.node("DequantizeLinear", codes, scale, np.int32(0))
        return self.node("DequantizeLinear", codes, scale, np.zeros(n, np.int32), axis=0)

    def finish(self, *outputs, rule=0.0, spread=(2.0, 1 / 16, 100.0)):
        """Runs ONNX Runtime on three samples and keeps the case."""
        graph_inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(d), s) for n, s, d in self.inputs
        ]
        value_infos = [helper.make_empty_tensor_value_info(o) for o in outputs]
        graph = helper.make_graph(self.nodes, self.name, graph_inputs, value_infos, self.constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)],
            ir_version=8,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        # The types of the outputs are those that ONNX Runtime found.
        for info, found in zip(graph.output, session.get_outputs()):
            kind = {"tensor(float)": T.FLOAT, "tensor(int8)": T.INT8, "tensor(uint8)": T.UINT8}
            kind |= {"tensor(int32)": T.INT32, "tensor(int64)": T.INT64}
            info.CopyFrom(helper.make_tensor_value_info(info.name, kind[found.type], found.shape))
        model.graph.CopyFrom(graph)
        assert self.name not in cases, self.name
        case = cases[self.name] = {"model": np.frombuffer(model.SerializeToString(), U8), "rule": F32(rule)}
        for k in range(3):
            feed = {}
            for i, (name, shape, dtype) in enumerate(self.inputs):
                if dtype == F32:
                    x = self.random.standard_normal(shape) * spread[k]
                    if k == 1:
                        # Multiples of half a step of the scales that are powers of two.
                        x = self.random.integers(-80, 80, shape) * spread[1]
                    feed[name] = x.astype(F32)
                elif dtype == np.bool_:
                    feed[name] = self.random.integers(0, 2, shape).astype(bool)
                else:
                    info = np.iinfo(dtype)
                    lo, hi = max(info.min, -128), min(info.max, 255)
                    feed[name] = self.random.integers(lo, hi + 1, shape).astype(dtype)
                case[f"in{k}_{i}"] = feed[name]
            for i, y in enumerate(session.run(None, feed)):
                case[f"out{k}_{i}"] = y


S = 0.125  # a power of two, so that ties occur
TYPES = [("s8", I8, -3), ("u8", U8, 121)]


def convolutions():
    for tag, t, z in TYPES:
        def conv(name, x, w, scales=0.0078125, groups=1, relu=False, bias=True, wtype=I8, wzero=0, out=0.5, **attributes):
            g = Graph(f"conv_{name}_{tag}")
            v = g.both(g.input(x), S, z, t)
            lo, hi = (-127, 127) if wtype == I8 else (0, 255)
            scales = np.asarray(scales, F32)
            if scales.ndim:
                scales = np.linspace(0.003, 0.02, w[0]).astype(F32)
            parts = [v, g.weights(w, scales, wtype, zero=wzero, lo=lo, hi=hi)]
            if bias:
                parts.append(g.bias(w[0], F32(S) * scales))
            y = g.node("Conv", *parts, group=groups, **attributes)
            zero = z
            if relu:
                # Redundant beside the saturation, so that ONNX Runtime fuses it.
                y, zero = g.node("Relu", y), -128 if t == I8 else 0
            g.finish(g.both(y, out, zero, t))

        conv("plain", [1, 3, 7, 8], [5, 3, 3, 3], pads=[1, 1, 1, 1])
        conv("axis", [1, 3, 7, 8], [5, 3, 3, 3], scales=[1], pads=[0, 1, 1, 0], strides=[2, 1])
        conv("relu", [1, 4, 6, 6], [9, 4, 1, 1], scales=[1], relu=True)
        conv("dilated", [1, 3, 9, 9], [4, 3, 3, 2], dilations=[2, 3])
        conv("groups", [2, 6, 5, 5], [4, 3, 2, 3], groups=2, scales=[1])
        conv("depthwise", [1, 17, 6, 7], [17, 1, 3, 3], groups=17, scales=[1], pads=[1, 1, 1, 1])
        conv("depthwise_stride", [1, 8, 9, 9], [8, 1, 5, 5], groups=8, pads=[2, 2, 1, 1], strides=[2, 2], relu=True)
        conv("multiplier", [1, 4, 5, 5], [8, 1, 3, 3], groups=4)
        conv("no_bias", [1, 3, 5, 5], [4, 3, 3, 3], bias=False)
        conv("row", [1, 5, 20], [6, 5, 5], strides=[3], pads=[2, 1])
        conv("same", [1, 2, 7, 7], [3, 2, 4, 4], auto_pad="SAME_UPPER", strides=[2, 2])
        conv("same_lower", [1, 2, 7, 7], [3, 2, 2, 4], auto_pad="SAME_LOWER")
        conv("valid", [1, 2, 7, 7], [3, 2, 3, 4], auto_pad="VALID")
        if t == U8:
            conv("u8_weights", [1, 3, 6, 6], [4, 3, 3, 3], wtype=U8, wzero=128)
            conv("u8_far", [1, 3, 6, 6], [4, 3, 3, 3], wtype=U8, wzero=97)
            conv("u8_far_depthwise", [1, 5, 6, 6], [5, 1, 3, 3], groups=5, wtype=U8, wzero=150, pads=[1, 1, 1, 1])

        g = Graph(f"conv_float_bias_{tag}")
        v = g.both(g.input([1, 3, 5, 5]), S, z, t)
        w = g.weights([4, 3, 3, 3], 0.01)
        g.finish(g.both(g.node("Conv", v, w, g.random.standard_normal(4).astype(F32)), 0.25, z, t))

        g = Graph(f"conv_chain_{tag}")
        v = g.both(g.input([1, 3, 8, 8]), S, z, t)
        for i, o in [(3, 8), (8, 8), (8, 4)]:
            v = g.node("Conv", v, g.weights([o, i, 3, 3], 0.01), g.bias(o, F32(S) * F32(0.01)), pads=[1, 1, 1, 1])
            v = g.both(v, S, z, t)
        g.finish(v)

        # The result's integers are the output.
        g = Graph(f"conv_codes_{tag}")
        q = g.input([1, 3, 6, 6], t)
        v = g.dequantize(q, S, z, t)
        g.finish(g.quantize(g.node("Conv", v, g.weights([4, 3, 3, 3], 0.01)), 0.5, z, t))

        g = Graph(f"conv_transpose_{tag}")
        v = g.both(g.input([1, 6, 4, 5]), S, z, t)
        y = g.node("ConvTranspose", v, g.weights([6, 3, 3, 3], 0.01), g.bias(3, F32(S) * F32(0.01)), strides=[2, 2], pads=[1, 1, 0, 0])
        g.finish(g.both(y, 0.25, z, t))

    g = Graph("conv_transpose_float")
    y = g.node("ConvTranspose", g.input([1, 130, 3, 3]), g.random.standard_normal((130, 4, 2, 2)).astype(F32), strides=[2, 2])
    g.finish(y, spread=(1.0, 1 / 16, 10.0))
    g = Graph("conv_float")
    y = g.node("Conv", g.input([1, 4, 6, 6]), g.random.standard_normal((8, 2, 3, 3)).astype(F32), g.random.standard_normal(8).astype(F32), group=2, pads=[1, 1, 1, 1])
    y = g.node("Clip", y, F32(-1), F32(4))
    y = g.node("Conv", y, g.random.standard_normal((8, 1, 3, 3)).astype(F32), g.random.standard_normal(8).astype(F32), group=8, strides=[2, 2])
    g.finish(g.node("Conv", g.node("Relu", y), g.random.standard_normal((3, 8, 1, 1)).astype(F32)), rule=1e-5)


def products():
    for tag, t, z in TYPES:
        g = Graph(f"gemm_{tag}")
        v = g.both(g.input([3, 20]), S, z, t)
        y = g.node("Gemm", v, g.weights([20, 7], 0.01), g.bias(7, F32(S) * F32(0.01)))
        g.finish(g.both(y, 0.25, z, t))

        g = Graph(f"gemm_transposed_axis_{tag}")
        v = g.both(g.input([2, 33]), S, z, t)
        scales = np.linspace(0.003, 0.02, 17).astype(F32)
        y = g.node("Gemm", v, g.weights([17, 33], scales, axis=0), g.bias(17, F32(S) * scales), transB=1)
        g.finish(g.both(y, 0.25, z, t))

        g = Graph(f"matmul_{tag}")
        v = g.both(g.input([2, 3, 16]), S, z, t)
        g.finish(g.both(g.node("MatMul", v, g.weights([16, 5], 0.0078125)), 0.5, z, t))

        g = Graph(f"matmul_two_{tag}")
        a, b = g.both(g.input([2, 3, 4, 9]), S, z, t), g.both(g.input([2, 3, 9, 5]), S, z + 4, t)
        g.finish(g.both(g.node("MatMul", a, b), 0.5, z, t))

        g = Graph(f"qlinear_conv_{tag}")
        q = g.quantize(g.input([1, 3, 6, 6]), S, z, t)
        w = g.random.integers(-127, 128, (5, 3, 3, 3)).astype(I8)
        scales = np.linspace(0.003, 0.02, 5).astype(F32)
        y = g.node("QLinearConv", q, F32(S), t(z), w, scales, np.zeros(5, I8), F32(0.5), t(z), g.random.integers(-900, 900, 5).astype(np.int32), pads=[1, 1, 1, 1])
        g.finish(g.dequantize(y, 0.5, z, t))

        g = Graph(f"qlinear_matmul_{tag}")
        q = g.quantize(g.input([4, 12]), S, z, t)
        w = g.random.integers(-127, 128, (12, 6)).astype(I8)
        y = g.node("QLinearMatMul", q, F32(S), t(z), w, F32(0.0078125), I8(0), F32(0.25), t(z))
        g.finish(g.dequantize(y, 0.25, z, t))

        g = Graph(f"qlinear_matmul_two_{tag}")
        a, b = g.quantize(g.input([4, 12]), S, z, t), g.quantize(g.input([12, 3]), S, z + 1, t)
        y = g.node("QLinearMatMul", a, F32(S), t(z), b, F32(S), t(z + 1), F32(0.5), t(z))
        g.finish(g.dequantize(y, 0.5, z, t))

        for alpha in [1.0, 0.75]:
            for codes in [True, False]:
                g = Graph(f"qgemm_{'codes' if codes else 'floats'}_{alpha}_{tag}")
                q = g.quantize(g.input([3, 10]), S, z, t)
                w = g.random.integers(-127, 128, (10, 6)).astype(I8)
                c = g.random.integers(-500, 500, 6).astype(np.int32)
                parts = [q, F32(S), t(z), w, F32(0.01), I8(0), c]
                y = g.node("QGemm", *parts, *([F32(0.25), t(z)] if codes else []), domain="com.microsoft", alpha=alpha)
                g.finish(g.dequantize(y, 0.25, z, t) if codes else y)

    for tag, t, z in TYPES[1:]:
        g = Graph(f"conv_integer_{tag}")
        g.finish(g.node("ConvInteger", g.input([1, 3, 5, 5], t), g.random.integers(0, 256, (4, 3, 3, 3)).astype(U8), t(z), U8(111), pads=[1, 1, 1, 1]))
        g = Graph(f"matmul_integer_{tag}")
        g.finish(g.node("MatMulInteger", g.input([4, 9], t), g.random.integers(-128, 128, (9, 3)).astype(I8), t(z), I8(0)))
        g = Graph(f"matmul_integer_two_{tag}")
        g.finish(g.node("MatMulInteger", g.input([4, 9], t), g.input([9, 3], t), t(z), t(99)))

    g = Graph("matmul_float")
    g.finish(g.node("MatMul", g.input([2, 3, 8]), g.input([8, 4])), rule=1e-5)
    g = Graph("gemm_float")
    y = g.node("Gemm", g.input([8, 3]), g.input([5, 8]), g.input([3, 5]), transA=1, transB=1, alpha=0.5, beta=2.0)
    g.finish(y, rule=1e-5)
    g = Graph("gemm_float_weights")
    y = g.node("Gemm", g.input([3, 8]), g.random.standard_normal((8, 5)).astype(F32), g.random.standard_normal(5).astype(F32), alpha=0.5, beta=2.0)
    g.finish(g.node("Relu", y), rule=1e-5)


def arithmetic():
    for tag, t, z in TYPES:
        for op in ["Add", "Mul"]:
            for name, a, b in [
                ("same", [1, 4, 5, 3], [1, 4, 5, 3]),
                ("channel", [1, 4, 5, 3], [1, 4, 1, 1]),
                ("row", [2, 4, 5], [5]),
                ("first", [1, 4, 1, 1], [1, 4, 5, 3]),
                ("outer", [4, 1], [1, 5]),
            ]:
                g = Graph(f"{op.lower()}_{name}_{tag}")
                y = g.node(op, g.both(g.input(a), S, z, t), g.both(g.input(b), 0.11, z + 2, t))
                g.finish(g.both(y, 0.25 if op == "Add" else 0.37, z, t))
                g = Graph(f"qlinear_{op.lower()}_{name}_{tag}")
                p, q = g.quantize(g.input(a), S, z, t), g.quantize(g.input(b), 0.11, z + 2, t)
                y = g.node("QLinear" + op, p, F32(S), t(z), q, F32(0.11), t(z + 2), F32(0.25), t(z), domain="com.microsoft")
                g.finish(g.dequantize(y, 0.25, z, t))
        # Powers of two, so that half of the sums are ties.
        g = Graph(f"add_ties_{tag}")
        y = g.node("Add", g.both(g.input([8, 16]), 0.125, z, t), g.both(g.input([8, 16]), 0.125, z, t))
        g.finish(g.both(y, 0.25, z, t))
        # A scale that is a list of one keeps ONNX Runtime's Add in floats.
        g = Graph(f"add_listed_{tag}")
        def listed(x, s):
            q = g.node("QuantizeLinear", x, np.array([s], F32), np.array([z], t))
            return g.node("DequantizeLinear", q, np.array([s], F32), np.array([z], t))
        y = g.node("Add", listed(g.input([2, 3, 4, 5]), 0.1), listed(g.input([2, 3, 4, 5]), 0.07))
        g.finish(listed(g.node("Relu", y), 0.13))
        for op in ["Sub", "Div", "Max", "Min"]:
            g = Graph(f"{op.lower()}_{tag}")
            y = g.node(op, g.both(g.input([3, 7]), S, z, t), g.both(g.input([3, 7]), 0.11, z + 2, t))
            if op == "Div":
                y = g.node("Clip", y, F32(-9), F32(9))
            g.finish(g.both(y, 0.25, z, t), spread=(2.0, 1 / 16, 100.0))
        g = Graph(f"prelu_{tag}")
        y = g.node("PRelu", g.both(g.input([1, 4, 5, 5]), S, z, t), g.random.random((4, 1, 1)).astype(F32))
        g.finish(g.both(y, 0.25, z, t))
        g = Graph(f"mul_constant_{tag}")
        g.finish(g.both(g.node("Mul", g.both(g.input([3, 7]), S, z, t), F32(0.3)), 0.05, z, t))
        # One operand stays a float.
        g = Graph(f"add_mixed_{tag}")
        y = g.node("Add", g.both(g.input([3, 70]), S, z, t), g.input([70]))
        g.finish(g.both(y, 0.25, z, t))
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min"]:
        g = Graph(f"{op.lower()}_float")
        g.finish(g.node(op, g.input([2, 3, 5]), g.input([3, 1])))
    g = Graph("pow_float")
    g.finish(g.node("Pow", g.node("Abs", g.input([2, 3])), F32(1.7)), rule=1e-5)
    g = Graph("batch_normalization")
    c = [g.random.random(4).astype(F32) + 0.5 for _ in range(4)]
    g.finish(g.node("BatchNormalization", g.input([1, 4, 3, 3]), *c), rule=1e-5)


def functions():
    plain = ["Sigmoid", "LeakyRelu", "HardSigmoid", "Tanh", "Relu", "HardSwish", "Exp", "Softplus", "Elu", "Abs", "Neg", "Sqrt", "Erf", "Softsign", "Floor", "Reciprocal"]
    for tag, t, z in TYPES:
        for op in plain:
            g = Graph(f"{op.lower()}_{tag}")
            v = g.both(g.input([1, 3, 10, 11]), 0.0613, z, t)
            if op in ["Sqrt", "Reciprocal"]:
                v = g.both(g.node("Clip", v, F32(0.1), F32(20)), 0.0613, z, t)
            g.finish(g.both(g.node(op, v), 1 / 256 if op in ["Sigmoid", "HardSigmoid"] else 0.043, z, t))
        for op in ["Sigmoid", "LeakyRelu"]:
            g = Graph(f"qlinear_{op.lower()}_{tag}")
            q = g.quantize(g.input([4, 70]), 0.0613, z, t)
            extra = {"alpha": 0.3} if op == "LeakyRelu" else {}
            y = g.node("QLinear" + op, q, F32(0.0613), t(z), F32(1 / 256), t(z), domain="com.microsoft", **extra)
            g.finish(g.dequantize(y, 1 / 256, z, t))
        for opset, axis in [(17, -1), (17, 1), (12, 1)]:
            g = Graph(f"softmax_{opset}_{axis}_{tag}", opset)
            v = g.both(g.input([2, 5, 6]), 0.11, z, t)
            g.finish(g.both(g.node("Softmax", v, axis=axis), 1 / 256, -128 if t == I8 else 0, t))
        g = Graph(f"softmax_saturated_{tag}")
        v = g.both(g.input([3, 10]), 0.5, z, t)
        g.finish(g.both(g.node("Softmax", v), 0.002, -128 if t == I8 else 0, t))
        g = Graph(f"softmax_wide_{tag}")
        v = g.both(g.input([1, 1000]), 0.05, z, t)
        g.finish(g.both(g.node("Softmax", v), 1 / 256, -128 if t == I8 else 0, t))
        g = Graph(f"qlinear_softmax_{tag}")
        q = g.quantize(g.input([3, 10]), 0.11, z, t)
        zero = -128 if t == I8 else 0
        y = g.node("QLinearSoftmax", q, F32(0.11), t(z), F32(1 / 256), t(zero), domain="com.microsoft", axis=-1, opset=13)
        g.finish(g.dequantize(y, 1 / 256, zero, t))
    for op in ["Softmax", "LogSoftmax"]:
        for axis in [0, 1, 2]:
            g = Graph(f"{op.lower()}_float_{axis}")
            g.finish(g.node(op, g.input([3, 4, 5]), axis=axis), rule=1e-5)
    for op in plain + ["Log", "Ceil", "Round", "Selu", "Sign", "Sin", "Cos", "ThresholdedRelu", "Celu"]:
        g = Graph(f"{op.lower()}_float")
        v = g.input([3, 40])
        if op in ["Log", "Sqrt", "Reciprocal"]:
            v = g.node("Add", g.node("Abs", v), F32(0.01))
        g.finish(g.node(op, v), rule=1e-5)


def pools():
    for tag, t, z in TYPES:
        def pool(name, op, x, out=S, zero=z, rule=0.0, **attributes):
            g = Graph(f"{name}_{tag}")
            g.finish(g.both(g.node(op, g.both(g.input(x), S, z, t), **attributes), out, zero, t), rule=rule)

        pool("max_pool", "MaxPool", [1, 5, 7, 8], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
        pool("max_pool_ceil", "MaxPool", [1, 3, 7, 7], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        pool("max_pool_dilated", "MaxPool", [1, 3, 9, 9], kernel_shape=[2, 2], dilations=[2, 3])
        pool("max_pool_row", "MaxPool", [2, 3, 11], kernel_shape=[3], strides=[2], pads=[1, 1])
        pool("average_pool", "AveragePool", [1, 5, 7, 8], out=0.0921, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
        pool("average_pool_border", "AveragePool", [1, 5, 7, 8], out=0.0921, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)
        pool("average_pool_ties", "AveragePool", [1, 5, 8, 8], kernel_shape=[2, 2], strides=[2, 2])
        pool("average_pool_whole", "AveragePool", [1, 5, 4, 4], out=0.0921, kernel_shape=[4, 4])
        pool("global_average_pool", "GlobalAveragePool", [2, 19, 7, 7], out=0.0521, zero=z - 7)
        pool("global_average_pool_ties", "GlobalAveragePool", [2, 19, 4, 4])
        pool("global_max_pool", "GlobalMaxPool", [1, 5, 4, 4])
        for op in ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"]:
            g = Graph(f"{op.lower()}_{tag}", 13)
            v = g.both(g.input([2, 5, 4, 3]), S, z, t)
            extra = [np.array([2, 3], np.int64)] if op == "ReduceSum" else []
            attributes = {} if op == "ReduceSum" else {"axes": [2, 3]}
            y = g.node(op, v, *extra, keepdims=0, **attributes)
            g.finish(g.both(y, S, z, t), rule=0.0)
        g = Graph(f"qlinear_average_pool_{tag}")
        q = g.quantize(g.input([1, 5, 7, 8]), S, z, t)
        y = g.node("QLinearAveragePool", q, F32(S), t(z), F32(0.0921), t(z), domain="com.microsoft", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        g.finish(g.dequantize(y, 0.0921, z, t))
        g = Graph(f"qlinear_global_average_pool_{tag}")
        q = g.quantize(g.input([1, 9, 7, 7]), S, z, t)
        y = g.node("QLinearGlobalAveragePool", q, F32(S), t(z), F32(0.0921), t(z), domain="com.microsoft")
        g.finish(g.dequantize(y, 0.0921, z, t))
    g = Graph("pools_float")
    v = g.node("MaxPool", g.input([1, 4, 9, 9]), kernel_shape=[2, 2])
    v = g.node("AveragePool", v, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    g.finish(g.node("GlobalAveragePool", v), rule=1e-5)
    for op in ["ReduceMean", "ReduceMax", "ReduceMin"]:
        g = Graph(f"{op.lower()}_float", 13)
        g.finish(g.node(op, g.input([3, 4, 5]), axes=[1], keepdims=1), rule=1e-5)


def shapes():
    for tag, t, z in TYPES:
        def moved(name, shape, *steps):
            g = Graph(f"{name}_{tag}")
            v = g.both(g.input(shape), S, z, t)
            for op, extra, attributes in steps:
                v = g.node(op, v, *extra, **attributes)
            g.finish(g.both(v, S, z, t))

        n = lambda *v: np.array(v, np.int64)
        moved("reshape", [2, 3, 4], ("Reshape", [n(4, -1)], {}))
        moved("flatten", [2, 3, 4, 5], ("Flatten", [], {"axis": 2}))
        moved("squeeze", [1, 3, 1, 4], ("Squeeze", [n(0, 2)], {}))
        moved("unsqueeze", [3, 4], ("Unsqueeze", [n(0, 2)], {}))
        moved("transpose", [2, 3, 4, 5], ("Transpose", [], {"perm": [3, 1, 0, 2]}))
        moved("transpose_six", [2, 3, 2, 3, 2, 2], ("Transpose", [], {"perm": [5, 0, 3, 1, 4, 2]}))
        moved("slice", [4, 6, 8], ("Slice", [n(1, 7), n(3, 0), n(0, 2), n(1, -2)], {}))
        moved("slice_steps", [4, 9], ("Slice", [n(-1), n(-10), n(1), n(-3)], {}))
        moved("depth_to_space", [1, 12, 3, 4], ("DepthToSpace", [], {"blocksize": 2}))
        moved("depth_to_space_crd", [1, 12, 3, 4], ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}))
        moved("space_to_depth", [1, 3, 4, 6], ("SpaceToDepth", [], {"blocksize": 2}))
        moved("gather", [5, 4, 3], ("Gather", [n(2, -1, 0, 2)], {"axis": 0}))
        moved("gather_inner", [5, 4, 3], ("Gather", [np.array([[2, 0], [1, 1]], np.int64)], {"axis": 2}))
        moved("pad", [2, 3, 4], ("Pad", [n(0, 1, 2, 1, 0, 3)], {}))
        moved("pad_edge", [2, 3, 4], ("Pad", [n(0, 1, 2, 1, 0, 3)], {"mode": "edge"}))
        moved("pad_reflect", [2, 3, 4], ("Pad", [n(0, 1, 2, 0, 0, 3)], {"mode": "reflect"}))
        moved("pad_map", [1, 3, 4, 4], ("Pad", [n(0, 0, 1, 2, 0, 0, 3, 0), F32(0.5)], {}))
        up = lambda *v: ["", np.array(v, F32)]
        moved("resize_nearest", [1, 3, 4, 5], ("Resize", up(1, 1, 2, 2), {"mode": "nearest"}))
        moved("resize_asymmetric", [1, 3, 4, 5], ("Resize", up(1, 1, 2, 3), {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}))
        moved("resize_down", [1, 3, 7, 8], ("Resize", up(1, 1, 0.6, 0.5), {"mode": "nearest", "coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil"}))
        moved("resize_linear", [1, 3, 4, 5], ("Resize", up(1, 1, 2, 2), {"mode": "linear"}))
        moved("resize_linear_corners", [1, 3, 4, 5], ("Resize", up(1, 1, 2, 1.7), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}))

        g = Graph(f"split_{tag}")
        parts = g.node("Split", g.both(g.input([2, 7]), S, z, t), np.array([3, 4], np.int64), outputs=2, axis=1)
        g.finish(*[g.both(p, S, z, t) for p in parts])
        for name, own in [("same", S), ("other", 0.0913)]:
            g = Graph(f"concat_{name}_{tag}")
            y = g.node("Concat", g.both(g.input([1, 3, 4, 4]), own, z, t), g.both(g.input([1, 5, 4, 4]), S, z, t), axis=1)
            g.finish(g.both(y, S, z, t))
        g = Graph(f"concat_maps_{tag}")
        v = g.both(g.input([1, 3, 6, 6]), S, z, t)
        a = g.both(g.node("Conv", v, g.weights([4, 3, 1, 1], 0.01)), S, z, t)
        b = g.both(g.node("MaxPool", v, kernel_shape=[1, 1]), S, z, t)
        g.finish(g.both(g.node("Concat", a, b, axis=1), S, z, t))
        g = Graph(f"qlinear_concat_{tag}")
        p, q = g.quantize(g.input([2, 3]), 0.0913, z, t), g.quantize(g.input([2, 4]), S, z, t)
        y = g.node("QLinearConcat", F32(S), t(z), p, F32(0.0913), t(z), q, F32(S), t(z), domain="com.microsoft", axis=1)
        g.finish(g.dequantize(y, S, z, t))
        for op in ["ArgMax", "ArgMin"]:
            g = Graph(f"{op.lower()}_{tag}")
            g.finish(g.node(op, g.both(g.input([3, 9, 4]), S, z, t), axis=1, keepdims=0))
        g = Graph(f"requantize_{tag}")
        g.finish(g.both(g.both(g.input([3, 50]), S, z, t), 0.0913, z + 5, t), rule=1.0)
        g = Graph(f"codes_{tag}")
        g.finish(g.quantize(g.input([3, 50]), S, z, t))
        g = Graph(f"identity_{tag}")
        g.finish(g.node("Identity", g.input([3, 5], t)))
    g = Graph("resize_linear_float")
    g.finish(g.node("Resize", g.input([1, 2, 5, 6]), "", np.array([1, 1, 1.5, 0.8], F32), mode="linear"), rule=1e-5)
    g = Graph("concat_float")
    g.finish(g.node("Concat", g.input([2, 3]), g.input([2, 1]), axis=1))
    g = Graph("argmax_float")
    g.finish(g.node("ArgMax", g.input([3, 9]), axis=1, keepdims=1))


def elsewhere():
    """Operators that run in tract."""
    g = Graph("cumsum")
    y = g.node("CumSum", g.node("Relu", g.input([3, 5])), np.int64(1))
    g.finish(g.both(y, S, -3, I8), rule=1e-5)
    g = Graph("lstm", 14)
    w = [g.random.standard_normal(s).astype(F32) for s in [(1, 16, 6), (1, 16, 4), (1, 32)]]
    y = g.node("LSTM", g.input([3, 1, 6]), *w, outputs=3, hidden_size=4)[1]
    g.finish(y, rule=1e-4)
    g = Graph("dynamic_quantize")
    q, s, z = g.node("DynamicQuantizeLinear", g.input([4, 8]), outputs=3)
    acc = g.node("MatMulInteger", q, g.random.integers(0, 256, (8, 5)).astype(U8), z, U8(120))
    y = g.node("Mul", g.node("Cast", acc, to=T.FLOAT), g.node("Mul", s, F32(0.01)))
    g.finish(y, rule=1e-5)


convolutions()
products()
arithmetic()
functions()
pools()
shapes()
elsewhere()
flat = {f"{name}/{key}": value for name, case in cases.items() for key, value in case.items()}
np.savez_compressed(os.path.join(HERE, "cases.npz"), **flat)
print(len(cases), "cases,", os.path.getsize(os.path.join(HERE, "cases.npz")), "bytes")
