"""From a trained network to the files of models/artifacts: int8 ONNX, golden vectors, test slice, and its record.

The oracle is ONNX Runtime with `session.qdqisint8allowed`, which runs the quantize/dequantize graph on its integer
kernels; everything committed about a model (golden outputs, scores) comes from it.
"""

import hashlib
import io
import json
import logging
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import network

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"


def replace(path, data):
    """Write beside the file, then rename: an interrupted build leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def npz(arrays):
    """An npz with stored (not compressed) members and fixed dates: the same arrays give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
            archive.writestr(zipfile.ZipInfo(name + ".npy"), member.getvalue())
    return out.getvalue()


def decode(x, scale, offset):
    """Stored test values to model inputs, in f32: one multiplication, one addition."""
    return x.astype(np.float32) * np.float32(scale) + np.float32(offset)


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(model, x):
    """One run per item: the graphs have batch 1."""
    run = session(model)
    return np.concatenate([run.run(None, {"input": item[None]})[0] for item in x])


def accuracy(x, y, out):
    return float((out.argmax(1) == y).mean())


def errors(x, out):
    """Mean squared reconstruction error of each item."""
    return ((x.reshape(len(x), -1).astype(np.float64) - out.reshape(len(x), -1)) ** 2).mean(1)


def auc(x, y, out):
    """Chance that an anomalous item (label 1) has the larger error than a normal one; ties count half."""
    score = errors(x, out)
    bad, good = score[y == 1][:, None], score[y == 0][None]
    return float((bad > good).mean() + 0.5 * (bad == good).mean())


METRICS = dict(accuracy=accuracy, auc=auc)


class Samples(CalibrationDataReader):
    def __init__(self, x):
        self.items = iter(x)

    def get_next(self):
        item = next(self.items, None)
        return None if item is None else {"input": item[None]}


def quantize(float_path, path, calibration, per_channel=True):
    """QDQ, int8 activations, int8 symmetric weights with a scale per output channel, or one for all."""
    # Folding and fusing, which the quantizer asks for beforehand, `network.to_onnx` has done already.
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        str(float_path), str(path), Samples(calibration),
        quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        per_channel=per_channel, extra_options=dict(WeightSymmetric=True, ActivationSymmetric=False),
    )
    model = onnx.load(path)
    del model.metadata_props[:]
    kept = [entry for entry in model.opset_import if entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def write_test(name, stored, labels):
    """The committed slice of a test set, under a model's name; shared by all of its versions."""
    replace(ARTIFACTS / f"{name}.test.npz", npz(dict(x=stored, y=labels.astype(np.int64))))


def publish(name, version, title, layers, trained, calibration, stored, truth, scale, offset, whole, metric, **record):
    """Write NAME-VERSION.onnx, its golden vectors and its record.

    `stored` and `truth` are the committed slice (inputs as `decode` reads them), `whole` is the full test set
    (x, y), `calibration` the float inputs that the activation ranges are taken from.
    """
    identity = f"{name}-{version}"
    measure = METRICS[metric]
    x = decode(stored, scale, offset)
    with tempfile.TemporaryDirectory() as folder:
        float_path, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        network.to_onnx(layers, trained, x.shape[1:], identity, float_path)
        model = quantize(float_path, path, calibration)
        float_model = float_path.read_bytes()
    exact = network.infer(layers, trained, x[:20])
    drift = np.abs(outputs(float_model, x[:20]) - exact).max()
    if drift > 1e-3 * max(1.0, np.abs(exact).max()):
        raise SystemExit(f"{identity}: the ONNX graph differs from the trained network by {drift}; fix network.to_onnx")

    golden = {}
    for k in range(3):
        item = x[k * (len(x) // 3)][None]
        golden[f"in{k}_0"] = item
        golden[f"out{k}_0"] = session(model).run(None, {"input": item})[0]
    replace(ARTIFACTS / f"{identity}.onnx", model)
    replace(ARTIFACTS / f"{identity}.golden.npz", npz(golden))

    int8, exact = outputs(model, x), outputs(float_model, x)
    result = dict(
        name=name, version=str(version), title=title, onnx=f"{identity}.onnx", golden=f"{identity}.golden.npz",
        test=f"{name}.test.npz", input_scale=float(np.float32(scale)), input_offset=float(np.float32(offset)),
        input_shape=[1, *x.shape[1:]], metric=metric,
        reference=round(measure(x, truth, int8), 6), float_reference=round(measure(x, truth, exact), 6),
        whole_test=dict(
            items=len(whole[0]),
            int8=round(measure(*whole, outputs(model, whole[0])), 6),
            float=round(measure(*whole, outputs(float_model, whole[0])), 6),
        ),
        parameters=network.parameters(trained), test_items=len(truth), **record,
    )
    replace(ARTIFACTS.parent / "build" / "records" / f"{identity}.json", (json.dumps(result, indent=2) + "\n").encode())
    print(
        f"  {identity}: {len(model)} bytes, {metric} on the slice: float {result['float_reference']}, "
        f"int8 {result['reference']}; whole test: {result['whole_test']}", flush=True,
    )
    return result


def digest(path):
    data = path.read_bytes()
    return dict(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
