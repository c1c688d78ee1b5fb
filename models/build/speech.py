"""Spoken words from espeak-ng, and the features that the keyword model reads."""

import subprocess

import numpy as np

RATE = 16_000
FRAME, HOP, FRAMES = 640, 320, 49  # 40 ms, 20 ms; 49 frames make one second
BANDS, COEFFICIENTS = 40, 10
LOW, HIGH = 20.0, 4000.0

ACCENTS = [
    "en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc",
]


def variants():
    """Names of the installed voice variants, sorted."""
    listing = subprocess.run(["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True).stdout
    names = {part[3:] for line in listing.splitlines()[1:] for part in line.split() if part.startswith("!v/")}
    # A name with a blank in it comes out cut, and cannot be asked for.
    return sorted(names - {"Mr"})


def say(word, accent, variant, speed, pitch):
    """The word as f32 at 16 kHz, silence at both ends cut off."""
    command = ["espeak-ng", "-v", f"{accent}+{variant}", "-s", str(speed), "-p", str(pitch), "--stdout", word]
    wave = subprocess.run(command, check=True, capture_output=True).stdout
    rate = int.from_bytes(wave[24:28], "little")
    # espeak-ng cannot know the length when it writes the header to a pipe: everything after it is samples.
    samples = np.frombuffer(wave[44 : len(wave) // 2 * 2], "<i2").astype(np.float32) / 32768
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1]
    # Resampled in the frequency domain, over a length that both rates divide.
    seconds = int(np.ceil(len(samples) / rate))
    spectrum = np.fft.rfft(samples, seconds * rate)[: seconds * RATE // 2 + 1]
    resampled = np.fft.irfft(spectrum, seconds * RATE)[: int(len(samples) * RATE / rate)]
    return (resampled / np.abs(resampled).max()).astype(np.float32)


def noise(rng, n=RATE):
    """Noise of a random colour, from white to brown, sometimes with mains hum; of unit power."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    spectrum *= np.maximum(np.arange(len(spectrum)), 10) ** -rng.uniform(0, 1)
    x = np.fft.irfft(spectrum, n)
    x /= x.std()
    if rng.random() < 0.3:
        t = np.arange(n) / RATE
        mains = rng.choice([50, 60])
        x += sum(rng.uniform(0, 0.6) * np.sin(2 * np.pi * (mains * k * t + rng.random())) for k in (1, 2, 3))
    return x / x.std()


def place(word, rng):
    """One second with the word somewhere in it (`None`: with no word), noise 5 to 30 dB below, at some loudness."""
    second = np.zeros(RATE)
    if word is not None:
        if len(word) > RATE:
            start = (len(word) - RATE) // 2
            word = word[start : start + RATE]
        start = rng.integers(0, RATE - len(word) + 1)
        second[start : start + len(word)] = word
        power = (word**2).mean()
    else:
        power = 0.02
    second += noise(rng) * np.sqrt(power * 10 ** (-rng.uniform(5, 30) / 10))
    return second * rng.uniform(0.1, 0.8)


def mel(hertz):
    return 1127 * np.log1p(hertz / 700)


def filters():
    """Triangles, evenly spaced in mel from LOW to HIGH, over the bins of one frame's spectrum."""
    edges = np.linspace(mel(LOW), mel(HIGH), BANDS + 2)
    bins = mel(np.arange(FRAME // 2 + 1) * RATE / FRAME)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)))


FILTERS = filters()
WINDOW = np.hanning(FRAME)
COSINES = np.cos(np.pi / BANDS * (np.arange(BANDS) + 0.5)[:, None] * np.arange(COEFFICIENTS)) * np.sqrt(2 / BANDS)


def features(second):
    """MFCC of one second: (49, 10)."""
    frames = np.lib.stride_tricks.sliding_window_view(second, FRAME)[::HOP] * WINDOW
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(power @ FILTERS + 1e-6) @ COSINES
