"""Keyword spotting: eight words, spoken by espeak-ng's voices; tested on voices not heard in training."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import artifact
import speech
from network import average, conv, cross_entropy, dense, fit, flatten, infer

SEED = 20240612
SLICE = 160
WORDS = ["yes", "no", "up", "down", "left", "right", "stop", "go"]
OTHERS = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "house", "tree", "water", "window",
    "table", "paper", "green", "yellow", "morning", "bird", "happy", "monday", "music", "bread", "river", "garden",
    "cat", "dog", "open", "close", "light", "sun", "nest", "ride", "step", "cup", "gown", "lift", "road", "goat",
]
LABELS = WORDS + ["silence", "unknown"]
LIMIT = 5.0  # features are stored in int8 from -LIMIT to LIMIT
SOURCE = (
    "words spoken by espeak-ng 1.51 (100 voice variants, 8 English accents), noise synthesised; no recordings; "
    "made, trained and quantized by models/build/kws.py"
)
LICENCE = "Weights and features: MIT OR Apache-2.0 (espeak-ng, GPL-3.0-or-later, was only run; none of it is included)"


def family(variant):
    """Variants of one speaker have one family: klatt and klatt2, anika and anikaRobot; m1 and m2 are two speakers."""
    if variant[0] in "fm" and variant[1:].isdigit():
        return variant
    return variant.rstrip("0123456789").lower().removesuffix("robot").removeprefix("anxious")


def utterances(variants, per_word, others, rng):
    """Spoken words and their labels: each variant says each word `per_word` times and `others` other words."""
    wanted = []
    for variant in variants:
        said = [(word, label) for label, word in enumerate(WORDS) for _ in range(per_word)]
        said += [(str(word), LABELS.index("unknown")) for word in rng.choice(OTHERS, others, replace=False)]
        for word, label in said:
            accent = str(rng.choice(speech.ACCENTS))
            wanted.append((word, label, accent, variant, int(rng.integers(110, 200)), int(rng.integers(20, 80))))
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(lambda w: speech.say(w[0], *w[2:]), wanted))
    return spoken, np.array([w[1] for w in wanted])


def dataset(variants, per_word, others, copies, rng):
    """MFCC (N, 1, 49, 10) and labels: every utterance in `copies` places and noises, a tenth more of silence."""
    spoken, labels = utterances(variants, per_word, others, rng)
    silent = len(spoken) // 10
    items = [(s, label) for s, label in zip(spoken, labels) for _ in range(copies)]
    items += [(None, LABELS.index("silence"))] * (silent * copies)
    items = [items[i] for i in rng.permutation(len(items))]
    x = np.stack([speech.features(speech.place(s, rng)) for s, _ in items])
    return x[:, None].astype(np.float32), np.array([label for _, label in items])


def main():
    rng = np.random.default_rng(SEED)
    variants = speech.variants()
    speakers = rng.permutation(sorted({family(v) for v in variants}))
    unseen = set(speakers[: len(speakers) // 4])
    heard = [v for v in variants if family(v) not in unseen]
    new = [v for v in variants if family(v) in unseen]
    print(f"    {len(heard)} voices to learn from, {len(new)} to test with: {', '.join(new)}", flush=True)
    x, y = dataset(heard, 8, 20, 2, rng)
    test_x, test_y = dataset(new, 3, 5, 1, rng)
    print(f"    {len(x)} items to learn from, {len(test_x)} to test with", flush=True)

    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))
    step = np.float32(LIMIT / 127)

    def code(values):
        return np.clip(np.rint((values - mean) / deviation / step), -127, 127).astype(np.int8)

    x, stored = artifact.decode(code(x), step, 0), code(test_x)
    artifact.write_test("kws", stored[:SLICE], test_y[:SLICE])
    layers = [conv(64, (10, 4), (2, 2))]
    for _ in range(3):
        layers += [conv(depthwise=True), conv(64, (1, 1))]
    layers += [average(), flatten(), dense(len(LABELS))]
    trained = fit(layers, x, y, cross_entropy, 16, SEED, rate=4e-3)
    whole = (artifact.decode(stored, step, 0), test_y)
    guesses = infer(layers, trained, whole[0]).argmax(1)
    for i, label in enumerate(LABELS):
        print(f"    {label:8} {(guesses[test_y == i] == i).mean():.3f}")
    artifact.publish(
        "kws", 1, "keyword spotting: eight words, silence, unknown", layers, trained, x[:400], stored[:SLICE],
        test_y[:SLICE], step, 0, whole, "accuracy", labels=LABELS, source=SOURCE, licence=LICENCE,
        voices=dict(trained=len(heard), test=len(new)),
        features=dict(
            kind="10 MFCC of 49 frames, see models/build/speech.py; less `mean`, divided by `deviation`",
            mean=[round(float(v), 5) for v in mean], deviation=[round(float(v), 5) for v in deviation],
        ),
        note="trained and tested on synthesised speech only: expect less of it on people",
    )


if __name__ == "__main__":
    main()
