"""Anomalies in a rotating machine's vibration: an autoencoder that has seen only healthy spectra.

The signals are synthesised: an accelerometer on the housing of a machine with a gear and a rolling bearing. A faulty
bearing gives impulses at the frequencies of its geometry, which ring the housing's resonance; imbalance raises the
shaft's frequency; looseness adds its halves and multiples.
"""

import numpy as np

import artifact
from network import dense, fit, squared_error

SEED = 20240613
SLICE = 240
RATE = 12_800
SAMPLES = 8192
BLOCK = 1024
BANDS = 128
LIMIT = 5.0  # features are stored in int8 from -LIMIT to LIMIT
LABELS = ["normal", "anomaly"]
# Impulses per turn of the shaft: outer race, inner race, ball.
BEARING = dict(outer=3.585, inner=5.415, ball=4.714)
FAULTS = [*BEARING, "imbalance", "looseness"]
SOURCE = "signals synthesised, trained and quantized by models/build/vibration.py; no recordings"
LICENCE = "MIT OR Apache-2.0"


def ring(n, frequency, damping):
    t = np.arange(n) / RATE
    return np.exp(-damping * t) * np.sin(2 * np.pi * frequency * t)


def filtered(x, response):
    n = len(x) + len(response)
    return np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(response, n), n)[: len(x)]


def signal(fault, rng):
    """0.64 s of acceleration. `fault`: None or one of FAULTS, at a random severity."""
    t = np.arange(SAMPLES) / RATE
    shaft = rng.uniform(26, 32)
    load = rng.uniform(0.5, 1.0)
    drift = rng.uniform(-0.005, 0.005)
    turns = shaft * (t + drift * t * t)

    def tone(order, amplitude):
        return amplitude * np.sin(2 * np.pi * (order * turns + rng.random()))

    severity = rng.uniform(0.3, 1.0)
    first = 0.30 * rng.uniform(0.7, 1.3)
    if fault == "imbalance":
        first *= 1 + 8 * severity
    x = tone(1, first)
    for order, amplitude in ((2, 0.12), (3, 0.06), (4, 0.03), (5, 0.02)):
        x += tone(order, amplitude * rng.uniform(0.8, 1.2))
    for harmonic in (1, 2):
        mesh = 0.25 * load / harmonic
        for side, part in ((-2, 0.15), (-1, 0.35), (0, 1.0), (1, 0.35), (2, 0.15)):
            x += tone(23 * harmonic + side, mesh * part * rng.uniform(0.85, 1.15))
    if fault == "looseness":
        for order in (0.5, 1.5, 2.5, 3.5, *range(2, 16)):
            x += tone(order, 0.15 * severity * rng.uniform(0.3, 1.2) / np.sqrt(order))

    # Rolling noise excites the housing; so do the impulses of a fault.
    push = rng.normal(size=SAMPLES) * 0.05 * load
    if fault in BEARING:
        phase = BEARING[fault] * turns + rng.random()
        # Rollers slip: no impulse comes exactly when it is due.
        hits = np.flatnonzero(np.diff(np.floor(phase)) > 0) + rng.integers(-4, 5, int(np.diff(np.floor(phase)).sum()))
        hits = hits[(hits >= 0) & (hits < SAMPLES)]
        strength = 2.4 * severity * load * rng.uniform(0.8, 1.2, len(hits))
        if fault != "outer":
            # The spot turns with the shaft (or the cage), in and out of the loaded zone.
            zone = turns[hits] * (1 if fault == "inner" else 0.4)
            strength *= 0.5 + 0.5 * np.cos(2 * np.pi * zone)
        np.add.at(push, hits, strength)
    housing = ring(256, 3100 * rng.uniform(0.98, 1.02), 900) + 0.5 * ring(256, 1450 * rng.uniform(0.98, 1.02), 700)
    x += filtered(push, housing)
    x += rng.normal(size=SAMPLES) * rng.uniform(0.02, 0.035)
    return x * rng.uniform(0.85, 1.15)


def spectrum(x):
    """Logarithm of the mean power in 128 bands of 50 Hz, over half-overlapping blocks."""
    blocks = np.lib.stride_tricks.sliding_window_view(x, BLOCK)[:: BLOCK // 2] * np.hanning(BLOCK)
    power = (np.abs(np.fft.rfft(blocks)) ** 2).mean(0)[: BLOCK // 2]
    return np.log10(power.reshape(BANDS, -1).mean(1) + 1e-6)


def main():
    rng = np.random.default_rng(SEED)
    x = np.stack([spectrum(signal(None, rng)) for _ in range(6000)])
    mean, deviation = float(np.round(x.mean(), 4)), float(np.round(x.std(), 4))
    step = np.float32(LIMIT / 127)

    def code(values):
        return np.clip(np.rint((values - mean) / deviation / step), -127, 127).astype(np.int8)

    x = artifact.decode(code(x), step, 0)
    kinds = [None if i % 2 else FAULTS[i // 2 % len(FAULTS)] for i in range(2000)]
    stored = code(np.stack([spectrum(signal(kind, rng)) for kind in kinds]))
    y = np.array([int(kind is not None) for kind in kinds])
    artifact.write_test("vibration", stored[:SLICE], y[:SLICE])
    layers = [dense(64, relu=True), dense(12, relu=True), dense(64, relu=True), dense(BANDS)]
    trained = fit(layers, x, None, squared_error, 40, SEED, decay=0)
    whole = (artifact.decode(stored, step, 0), y)
    artifact.publish(
        "vibration", 1, "anomalies in a machine's vibration spectrum", layers, trained, x[:600], stored[:SLICE],
        y[:SLICE], step, 0, whole, "auc", labels=LABELS, source=SOURCE, licence=LICENCE,
        features=dict(
            kind="log10 power of 128 bands of 50 Hz, see models/build/vibration.py; less `mean`, divided by `deviation`",
            mean=mean, deviation=deviation,
        ),
        note="synthesised signals: shows the method, knows no real machine",
    )
    out = artifact.outputs((artifact.ARTIFACTS / "vibration-1.onnx").read_bytes(), whole[0])
    score = artifact.errors(whole[0], out)
    print(f"    error of normal windows: {np.percentile(score[y == 0], [5, 50, 95]).round(4)}")
    for fault in FAULTS:
        one = np.array([k is None or k == fault for k in kinds])
        print(f"    {fault:10} AUC {artifact.auc(whole[0][one], y[one], out[one]):.4f}")


if __name__ == "__main__":
    main()
