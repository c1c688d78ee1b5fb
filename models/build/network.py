"""Small feed-forward networks: one list of layers, trained with JAX and written as an ONNX graph.

A network is a list of dicts, in order. Activations are NCHW. Kinds of layer:

    conv    out, kernel (kh, kw), stride, depthwise; followed by batch normalisation if `norm`, by Relu if `relu`
    maxpool size
    average the mean over all positions
    flatten
    dense   out; followed by Relu if `relu`
"""

import os

# One thread, and one order of summation: a second run on the same processor gives the same weights.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from jax import lax

NORM_EPSILON = 1e-3
OPSET = 17


def conv(out=None, kernel=(3, 3), stride=(1, 1), depthwise=False, norm=True, relu=True):
    return dict(kind="conv", out=out, kernel=kernel, stride=stride, depthwise=depthwise, norm=norm, relu=relu)


def dense(out, relu=False):
    return dict(kind="dense", out=out, relu=relu)


def maxpool(size=2):
    return dict(kind="maxpool", size=size)


def average():
    return dict(kind="average")


def flatten():
    return dict(kind="flatten")


def padding(layer):
    """Zeros before and after each axis: as many outputs as `ceil(input / stride)` for odd kernels."""
    return [((k - 1) // 2, k // 2) for k in layer["kernel"]]


def initial(layers, shape, seed):
    """Weights (trained) and running statistics (followed) of a network whose input is `shape`, batch left out."""
    rng = np.random.default_rng(seed)
    weights, statistics = [], []
    for layer in layers:
        w, s = {}, {}
        if layer["kind"] == "conv":
            channels = shape[0]
            out = channels if layer["depthwise"] else layer["out"]
            inner = 1 if layer["depthwise"] else channels
            kh, kw = layer["kernel"]
            deviation = np.sqrt(2.0 / (inner * kh * kw))
            w["kernel"] = rng.normal(0, deviation, (out, inner, kh, kw)).astype(np.float32)
            if layer["norm"]:
                w["gain"], w["shift"] = np.ones(out, np.float32), np.zeros(out, np.float32)
                s["mean"], s["variance"] = np.zeros(out, np.float32), np.ones(out, np.float32)
            else:
                w["bias"] = np.zeros(out, np.float32)
            size = [
                (n + a + b - k) // step + 1
                for n, (a, b), k, step in zip(shape[1:], padding(layer), layer["kernel"], layer["stride"])
            ]
            shape = (out, *size)
        elif layer["kind"] == "maxpool":
            shape = (shape[0], *[n // layer["size"] for n in shape[1:]])
        elif layer["kind"] == "average":
            shape = (shape[0], 1, 1)
        elif layer["kind"] == "flatten":
            shape = (int(np.prod(shape)),)
        elif layer["kind"] == "dense":
            w["kernel"] = rng.normal(0, np.sqrt(2.0 / shape[0]), (shape[0], layer["out"])).astype(np.float32)
            w["bias"] = np.zeros(layer["out"], np.float32)
            shape = (layer["out"],)
        weights.append(w)
        statistics.append(s)
    return weights, statistics


def depthwise(layer, kernel, x):
    """As a sum of shifted products: XLA's grouped convolution is slow on a CPU, its derivative more so."""
    (above, below), (left, right) = padding(layer)
    x = jnp.pad(x, ((0, 0), (0, 0), (above, below), (left, right)))
    kh, kw = layer["kernel"]
    sh, sw = layer["stride"]
    height, width = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    return sum(
        x[:, :, i : i + height : sh, j : j + width : sw] * kernel[:, 0, i, j][:, None, None]
        for i in range(kh)
        for j in range(kw)
    )


def forward(layers, weights, statistics, x, training):
    """The output and the batch's statistics (those handed in, when not training)."""
    seen = []
    for layer, w, s in zip(layers, weights, statistics):
        if layer["kind"] == "conv":
            x = depthwise(layer, w["kernel"], x) if layer["depthwise"] else lax.conv_general_dilated(
                x, w["kernel"], layer["stride"], padding(layer), dimension_numbers=("NCHW", "OIHW", "NCHW"),
            )
            if layer["norm"]:
                if training:
                    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
                    s = dict(mean=0.95 * s["mean"] + 0.05 * mean, variance=0.95 * s["variance"] + 0.05 * variance)
                else:
                    mean, variance = s["mean"], s["variance"]
                scale = w["gain"] * lax.rsqrt(variance + NORM_EPSILON)
                x = x * scale[:, None, None] + (w["shift"] - mean * scale)[:, None, None]
            else:
                x = x + w["bias"][:, None, None]
        elif layer["kind"] == "maxpool":
            n = layer["size"]
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, n, n), (1, 1, n, n), "VALID")
        elif layer["kind"] == "average":
            x = x.mean((2, 3), keepdims=True)
        elif layer["kind"] == "flatten":
            x = x.reshape(x.shape[0], -1)
        elif layer["kind"] == "dense":
            x = x @ w["kernel"] + w["bias"]
        if layer.get("relu"):
            x = jnp.maximum(x, 0)
        seen.append(s)
    return x, seen


def cross_entropy(output, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(output), labels[:, None], 1).mean()


def squared_error(output, target):
    return ((output - target) ** 2).mean()


def fit(layers, x, y, loss, epochs, seed, batch=100, rate=2e-3, decay=1e-5, vary=None, start=None, only=None):
    """Train with Adam and a cosine schedule. `vary(x, rng)` gives each epoch its own variant of the inputs.

    `start` is a trained network to go on from; `only` is the one layer that is trained then, all others stay.
    """
    weights, statistics = initial(layers, x.shape[1:], seed) if start is None else start
    kept = (weights, statistics)
    rng = np.random.default_rng(seed + 1)
    per_epoch = len(x) // batch
    steps = epochs * per_epoch

    def objective(weights, statistics, a, b):
        output, seen = forward(layers, weights, statistics, a, True)
        norm = sum(jnp.sum(w["kernel"] ** 2) for w in weights if "kernel" in w)
        return loss(output, b) + decay * norm, seen

    @jax.jit
    def update(weights, first, second, statistics, a, b, step):
        (value, statistics), slope = jax.value_and_grad(objective, has_aux=True)(weights, statistics, a, b)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slope)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slope)
        now = rate * 0.5 * (1 + jnp.cos(jnp.pi * step / steps)) * jnp.minimum(1.0, (step + 1) / 50)
        m, v = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
        weights = jax.tree.map(
            lambda w, a, b: w - now * (a / m) / (jnp.sqrt(b / v) + 1e-8), weights, first, second
        )
        return weights, first, second, statistics, value

    first = jax.tree.map(np.zeros_like, weights)
    second = jax.tree.map(np.zeros_like, weights)
    step = 0
    for epoch in range(epochs):
        varied = x if vary is None else vary(x, rng)
        target = varied if y is None else y
        order = rng.permutation(len(x))
        total = 0.0
        for k in range(per_epoch):
            pick = order[k * batch : (k + 1) * batch]
            weights, first, second, statistics, value = update(
                weights, first, second, statistics, varied[pick], target[pick], np.float32(step)
            )
            total += value
            step += 1
            if only is not None:
                weights = [w if i == only else old for i, (w, old) in enumerate(zip(weights, kept[0]))]
                statistics = kept[1]
        if (epoch + 1) % max(1, epochs // 5) == 0:
            print(f"    epoch {epoch + 1:3} of {epochs}: loss {float(total) / per_epoch:.4f}", flush=True)
    return jax.tree.map(np.asarray, weights), jax.tree.map(np.asarray, statistics)


def infer(layers, trained, x, batch=500):
    """The trained network's outputs for all of `x`."""
    run = jax.jit(lambda a: forward(layers, *trained, a, False)[0])
    return np.concatenate([np.asarray(run(x[i : i + batch])) for i in range(0, len(x), batch)])


def to_onnx(layers, trained, shape, title, path):
    """Write the float graph, batch 1, batch normalisation folded into the convolutions."""
    weights, statistics = trained
    nodes, constants = [], []
    current, count = "input", 1

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(op, name, inputs, **attributes):
        nonlocal current
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        current = name

    for layer, w, s in zip(layers, weights, statistics):
        name = f"{layer['kind']}{count}"
        count += 1
        if layer["kind"] == "conv":
            kernel = w["kernel"]
            if layer["norm"]:
                scale = w["gain"] / np.sqrt(s["variance"] + np.float32(NORM_EPSILON))
                kernel, bias = kernel * scale[:, None, None, None], w["shift"] - s["mean"] * scale
            else:
                bias = w["bias"]
            pads = padding(layer)
            node(
                "Conv", name,
                [current, constant(f"{name}.weight", kernel), constant(f"{name}.bias", bias)],
                kernel_shape=list(layer["kernel"]), strides=list(layer["stride"]),
                group=kernel.shape[0] if layer["depthwise"] else 1,
                pads=[a for a, _ in pads] + [b for _, b in pads],
            )
        elif layer["kind"] == "maxpool":
            node("MaxPool", name, [current], kernel_shape=[layer["size"]] * 2, strides=[layer["size"]] * 2)
        elif layer["kind"] == "average":
            node("GlobalAveragePool", name, [current])
        elif layer["kind"] == "flatten":
            node("Reshape", name, [current, constant(f"{name}.shape", np.array([1, -1], np.int64))])
        elif layer["kind"] == "dense":
            node("Gemm", name, [current, constant(f"{name}.weight", w["kernel"]), constant(f"{name}.bias", w["bias"])])
        if layer.get("relu"):
            node("Relu", f"{name}.relu", [current])
    nodes[-1].output[0] = "output"
    size = initial_output(layers, shape)
    graph = helper.make_graph(
        nodes, title,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, size])],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="dunlin-models", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def initial_output(layers, shape):
    """Number of values of the last layer, which is dense."""
    return layers[-1]["out"]


def parameters(trained):
    return int(sum(v.size for w in trained[0] for v in w.values()))
