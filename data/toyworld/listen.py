"""The oracle's ears: when something struck, and with which shape's timbre.

Each timbre has its own partials, so each gets its own envelope from a short-time spectrum; an impact is a
step of that envelope which lasts. Two impacts at once are heard apart when their shapes differ.
"""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.sound import PEAK, TIMBRES
from numpy.typing import NDArray
from scipy.fft import rfft

WINDOW_SECONDS = 1024 / 48_000
HOP_SECONDS = 0.0025
MIN_STEP = 0.3  # of a full strike
MIN_PURITY = 0.35  # share of the sound's energy after a strike that its timbre explains
MIN_SEPARATION_SECONDS = 0.06


@dataclass(frozen=True)
class Heard:
    """One impact in the sound."""

    seconds: float
    timbre: str  # the shape that sounds so


def hear(audio: NDArray[np.floating], sample_rate_hz: int) -> tuple[Heard, ...]:
    """Impacts in a sound [1, N] or [N] in order of time; none in silence, noise or a broken array."""
    sound = np.asarray(audio)
    if sound.ndim == 2 and len(sound):
        sound = sound.mean(axis=0)
    window, hop = round(WINDOW_SECONDS * sample_rate_hz), round(HOP_SECONDS * sample_rate_hz)
    if sound.ndim != 1 or len(sound) < 2 * window or hop < 1 or not np.isfinite(sound).all():
        return ()
    sound = np.pad(sound.astype(np.float32), (window // 2, window))
    shape = np.hanning(window).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[::hop] * shape
    spectrum = np.abs(np.asarray(rfft(frames, axis=1))) * (2 / shape.sum())  # amplitudes of partials
    heard = [
        Heard(float(frame * HOP_SECONDS), name)
        for name in TIMBRES
        for frame in _strikes(spectrum, name, sample_rate_hz / window)
    ]
    return tuple(sorted(heard, key=lambda event: event.seconds))


def _strikes(spectrum: NDArray[np.float32], name: str, bin_hz: float) -> list[int]:
    """Spectrum frames [T, bins] at which a timbre sets in."""
    partials = TIMBRES[name].partials
    bins = [round(frequency / bin_hz) for frequency, _ in partials]
    if max(bins) + 2 >= spectrum.shape[1]:
        return []
    levels = np.stack([spectrum[:, b - 1 : b + 2].max(axis=1) for b in bins], axis=1)
    nominal = PEAK * np.array([a for _, a in partials]) / sum(a for _, a in partials)
    envelope = np.minimum(levels / nominal, 1.5).min(axis=1)  # every partial must sound
    energy = np.square(spectrum).sum(axis=1)
    own = np.sum([np.square(spectrum[:, max(b - 2, 0) : b + 3]).sum(axis=1) for b in bins], axis=0)
    ahead, behind = 6, 4  # hops: the window lies past the onset, and before it
    step = np.zeros_like(envelope)
    step[behind:-ahead] = envelope[ahead + behind :] - envelope[: -(ahead + behind)]
    pure = np.zeros(len(step), dtype=bool)
    pure[:-ahead] = own[ahead:] > MIN_PURITY * np.maximum(energy[ahead:], 1e-12)
    rise = np.zeros_like(envelope)
    rise[2:-2] = envelope[4:] - envelope[:-4]
    found: list[int] = []
    wait = round(MIN_SEPARATION_SECONDS / HOP_SECONDS)
    for frame in np.argsort(-step):
        if step[frame] < MIN_STEP:
            break
        if not pure[frame]:
            continue
        start = max(frame - 6, 0)
        onset = start + int(rise[start : frame + 10].argmax())
        if all(abs(onset - other) >= wait for other in found):
            found.append(onset)
    return found
