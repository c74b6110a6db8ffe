"""Loudness as broadcasters measure it (ITU-R BS.1770-4, integrated), so that no arm wins by being louder.

Sound is float32 [C, N] with one or two channels.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU below the mean of what passes the absolute gate
BLOCK_SECONDS, OVERLAP = 0.4, 0.75
PEAK = 0.891  # -1 dB of full scale: what a gain may raise the highest sample to


def loudness_lufs(audio: np.ndarray, sample_rate_hz: int) -> float | None:
    """Integrated loudness; None for silence. Sound shorter than a block of 0.4 s is one block."""
    powers = _block_powers(_weighted(audio.astype(np.float64), sample_rate_hz), sample_rate_hz)
    for gate in (ABSOLUTE_GATE, None):
        if gate is None:
            gate = _lufs(powers.mean()) + RELATIVE_GATE
        powers = powers[powers > 10 ** ((gate + 0.691) / 10)]
        if not len(powers):
            return None
    return _lufs(powers.mean())


def equal_gains(
    first: tuple[np.ndarray, int], second: tuple[np.ndarray, int], target_lufs: float
) -> tuple[float, float, float | None]:
    """Gains that bring two sounds to one loudness: the target, or lower where a peak would clip. Silence keeps 1.

    Returns both gains and the loudness that was reached (None where both are silent).
    """
    levels = [loudness_lufs(*sound) for sound in (first, second)]
    reachable = [target_lufs]
    for (audio, _), level in zip((first, second), levels, strict=True):
        if level is not None:
            reachable.append(level + 20 * np.log10(PEAK / np.abs(audio).max()))
    reached = float(min(reachable))
    gains = [1.0 if level is None else float(10 ** ((reached - level) / 20)) for level in levels]
    return gains[0], gains[1], None if levels == [None, None] else reached


def _lufs(power: float) -> float:
    return float(-0.691 + 10 * np.log10(power))


def _block_powers(weighted: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Mean square summed over channels, for blocks of 0.4 s every 0.1 s."""
    size = min(round(BLOCK_SECONDS * sample_rate_hz), weighted.shape[1])
    if size == 0:
        return np.zeros(0)
    step = max(1, round(size * (1 - OVERLAP)))
    sums = np.concatenate([[0.0], np.cumsum((weighted**2).sum(axis=0))])
    starts = np.arange(0, weighted.shape[1] - size + 1, step)
    return (sums[starts + size] - sums[starts]) / size


def _weighted(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """K-weighting: a high shelf for the head, then a high pass, made for the given rate from analog prototypes."""
    for numerator, denominator in (_shelf(sample_rate_hz), _high_pass(sample_rate_hz)):
        audio = np.asarray(lfilter(numerator, denominator, audio, axis=1))
    return audio


def _shelf(rate: int) -> tuple[list[float], list[float]]:
    frequency, gain_db, quality = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    k = np.tan(np.pi * frequency / rate)
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / quality + k * k
    b = [
        (high + band * k / quality + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - band * k / quality + k * k) / a0,
    ]
    return b, [1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]


def _high_pass(rate: int) -> tuple[list[float], list[float]]:
    frequency, quality = 38.13547087602444, 0.5003270373238773
    k = np.tan(np.pi * frequency / rate)
    a0 = 1 + k / quality + k * k
    return [1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]
