"""Digits 2 as it might be updated: what an update weighs depends on what was trained anew.

The same network in each: `last-layer` had its last layer trained on, `fine-tuned` all of it for a few steps,
`other-seed` was trained from other initial weights, `requantized` was calibrated with other images, `per-tensor` has
one scale for all the weights of a layer.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import artifact
import network
from digits import SEED, jitter, load, unit
from network import conv, cross_entropy, dense, fit, flatten, maxpool

FOLDER = artifact.ARTIFACTS.parent / "variants"


def main(tarball):
    images, labels = load(tarball)
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[:7500], order[8000:]
    x, y = unit(images), labels
    layers = [conv(16), maxpool(2), conv(32), maxpool(2), conv(32), flatten(), dense(10)]
    base = fit(layers, x[train], y[train], cross_entropy, 15, SEED, vary=jitter)

    def publish(name, trained, calibration, per_channel=True):
        with tempfile.TemporaryDirectory() as folder:
            float_path, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            # The same title as digits 2: the name is not what was trained.
            network.to_onnx(layers, trained, x.shape[1:], "digits-2", float_path)
            model = artifact.quantize(float_path, path, calibration, per_channel)
        artifact.replace(FOLDER / f"{name}.onnx", model)
        score = artifact.accuracy(x[test], y[test], artifact.outputs(model, x[test]))
        print(f"  {name}: {len(model)} bytes, accuracy {score:.4f} of {len(test)}", flush=True)
        return model

    known = publish("base", base, x[train][:300])
    same = known == (artifact.ARTIFACTS / "digits-2.onnx").read_bytes()
    print(f"  base is digits-2.onnx to the byte: {same}", flush=True)
    if same:
        (FOLDER / "base.onnx").unlink()
    some = train[:2500]
    last = fit(layers, x[some], y[some], cross_entropy, 1, SEED + 10, rate=1e-3, vary=jitter, start=base, only=6)
    publish("last-layer", last, x[train][:300])
    # Twenty-five steps.
    tuned = fit(layers, x[some], y[some], cross_entropy, 1, SEED + 11, rate=1e-3, vary=jitter, start=base)
    publish("fine-tuned", tuned, x[train][:300])
    other = fit(layers, x[train], y[train], cross_entropy, 15, SEED + 12, vary=jitter)
    publish("other-seed", other, x[train][:300])
    publish("requantized", base, x[train][1000:1300])
    publish("per-tensor", base, x[train][:300], per_channel=False)


if __name__ == "__main__":
    main(sys.argv[1])
