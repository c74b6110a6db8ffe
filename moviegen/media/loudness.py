"""Loudness as broadcasters measure it (ITU-R BS.1770-4, integrated; EBU R128), and gains that bring sounds to one.

Sound is float32 [C, N] with one or two channels.
"""

from __future__ import annotations

import numpy as np

ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU below the mean of what passes the absolute gate
SILENCE_DB, SILENCE_SECONDS = -60.0, 0.1  # a tenth of a second below this level of full scale is silent
BLOCK_SECONDS, OVERLAP = 0.4, 0.75
PEAK = 0.891  # -1 dB of full scale: what a gain may raise the highest sample to


def silence_share(audio: np.ndarray, sample_rate_hz: int) -> float:
    """Share of tenths of a second of sound [C, N] below -60 dB of full scale; 1 for no sound at all."""
    flat = np.atleast_2d(audio).mean(axis=0, dtype=np.float64)
    if not flat.size:
        return 1.0
    size = min(max(1, round(SILENCE_SECONDS * sample_rate_hz)), len(flat))
    power = np.square(flat[: len(flat) // size * size].reshape(-1, size)).mean(axis=1)
    return float((10 * np.log10(power + 1e-20) < SILENCE_DB).mean())


def loudness_lufs(audio: np.ndarray, sample_rate_hz: int) -> float | None:
    """Integrated loudness; None for silence. Sound shorter than a block of 0.4 s is one block."""
    meter = LoudnessMeter(sample_rate_hz)
    meter.add(audio)
    return meter.lufs()


class LoudnessMeter:
    """Integrated loudness of a sound that comes in pieces, in memory that grows by a number a tenth of a second."""

    def __init__(self, sample_rate_hz: int):
        self.rate, self.peak = sample_rate_hz, 0.0
        self._states: list[np.ndarray] | None = None  # of the two filters
        self._hop = max(1, round(round(BLOCK_SECONDS * sample_rate_hz) * (1 - OVERLAP)))
        self._sums: list[float] = []  # of squares, a hop each
        self._rest = np.zeros(0)

    def add(self, audio: np.ndarray) -> None:
        """Hear the next piece, float [C, N]."""
        self.peak = max(self.peak, float(np.abs(audio).max(initial=0)))
        squares = np.concatenate([self._rest, (self._weighted(audio.astype(np.float64)) ** 2).sum(axis=0)])
        whole = len(squares) // self._hop * self._hop
        self._sums += squares[:whole].reshape(-1, self._hop).sum(axis=1).tolist()
        self._rest = squares[whole:]

    def lufs(self) -> float | None:
        """Loudness of what was heard; None for silence. Less than a block of 0.4 s counts as one."""
        blocks = round(1 / (1 - OVERLAP))
        sums = np.array(self._sums)
        if len(sums) < blocks:
            count = len(sums) * self._hop + len(self._rest)
            powers = np.array([(sums.sum() + self._rest.sum()) / count]) if count else np.zeros(0)
        else:
            powers = np.convolve(sums, np.ones(blocks), "valid") / (blocks * self._hop)
        return _gated(powers)

    def gain(self, target_lufs: float, max_db: float = np.inf) -> float:
        """What brings it to a loudness, or to less where a sample would be above -1 dB; 1 for silence.

        With `max_db` it raises no more than that, so that the noise of what is all but silent stays low.
        """
        level = self.lufs()
        if level is None:
            return 1.0
        return min(10 ** (min(target_lufs - level, max_db) / 20), PEAK / self.peak)

    def _weighted(self, audio: np.ndarray) -> np.ndarray:
        """K-weighting: a high shelf for the head, then a high pass, made for the rate from analog prototypes."""
        from scipy.signal import lfilter  # here: few who read or write media measure loudness

        filters = (_shelf(self.rate), _high_pass(self.rate))
        states = self._states or [np.zeros((len(audio), 2)) for _ in filters]
        self._states = []
        for (numerator, denominator), state in zip(filters, states, strict=True):
            audio, last = lfilter(numerator, denominator, audio, axis=1, zi=state)
            self._states.append(last)
        return audio


def _gated(powers: np.ndarray) -> float | None:
    """Loudness of blocks, those left out that are very quiet, or much quieter than the others."""
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
