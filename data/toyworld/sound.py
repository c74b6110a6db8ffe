"""The sound track: 48 kHz mono, one struck note at every impact, whose timbre tells the actor's shape.

Between impacts there is only a faint noise floor. Each timbre is a fixed set of partials (Hz, relative
amplitude) and a decay time; no two share a partial.
"""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.scene import Event
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 48_000
NOISE_LEVEL = 5e-4  # standard deviation of the floor, full scale 1
PEAK = 0.5
ATTACK_SECONDS = 0.002


@dataclass(frozen=True)
class Timbre:
    partials: tuple[tuple[float, float], ...]
    decay_seconds: float


TIMBRES: dict[str, Timbre] = {
    "circle": Timbre(((220.0, 1.0), (440.0, 0.4)), 0.14),
    "square": Timbre(((622.0, 1.0), (1010.0, 0.8), (1480.0, 0.4)), 0.05),
    "triangle": Timbre(((1975.0, 1.0), (2960.0, 0.6)), 0.16),
    "star": Timbre(((4186.0, 1.0), (5588.0, 0.8), (7459.0, 0.5)), 0.09),
}


def strike(shape: str, num_samples: int) -> NDArray[np.float32]:
    """One impact [num_samples], peak amplitude about `PEAK`."""
    timbre = TIMBRES[shape]
    seconds = np.arange(num_samples, dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)
    tone = np.zeros(num_samples, dtype=np.float32)
    for frequency, amplitude in timbre.partials:
        tone += np.float32(amplitude) * np.sin(np.float32(2 * np.pi * frequency) * seconds)
    envelope = np.minimum(seconds / np.float32(ATTACK_SECONDS), 1) * np.exp(
        -seconds / np.float32(timbre.decay_seconds)
    )
    return np.float32(PEAK / sum(a for _, a in timbre.partials)) * envelope * tone


def render_sound(events: list[Event], duration_seconds: float, noise_seed: int) -> NDArray[np.float32]:
    """Sound [1, N] of a clip with the given impacts, in [-1, 1]."""
    num_samples = round(duration_seconds * SAMPLE_RATE_HZ)
    rng = np.random.default_rng(noise_seed)
    sound = np.float32(NOISE_LEVEL) * rng.standard_normal(num_samples, dtype=np.float32)
    for event in events:
        start = round(event.seconds * SAMPLE_RATE_HZ)
        length = min(num_samples - start, SAMPLE_RATE_HZ)
        if length > 0:
            sound[start : start + length] += strike(event.shape, length)
    return np.clip(sound, -1, 1)[None]
