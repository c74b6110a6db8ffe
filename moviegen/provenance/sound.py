"""The built-in watermark in sound: loudness of bands that swings by a decibel, and says 32 bits.

A period of `SLOTS` slots of 64 ms has a cell for each chip of the code: a band of 400 to 6400 Hz in a slot. The band is
louder in the first half of the slot and softer in the second, or the other way round, by a sign that is drawn from the
key and turned where the chip is -1. The mark repeats for as long as there is sound. The detector takes logarithms, so
that loudness does not matter, folds all periods onto one, and searches the instant at which a period begins.
Silence carries nothing, and a change of speed is not searched.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from moviegen.provenance.code import CHIPS, PUBLIC_KEY, Reading, draw, encode, read, threshold

BANDS, SLOTS = 23, 12
LOWEST_HZ, HIGHEST_HZ = 400.0, 6400.0
SLOT_HOPS = 6  # half of them up, half down
HOP_SECONDS = 0.032 / 3  # 512 samples at 48 kHz
PERIOD = SLOTS * SLOT_HOPS  # hops
DECIBELS = 1.0  # up and down
BLOCK = 4096  # pieces that are marked at once, an even number; bounds memory
LEAST_SECONDS = PERIOD * HOP_SECONDS  # a whole period: 0.77 s
assert BANDS * SLOTS == CHIPS

Sound = NDArray[np.float32]


@lru_cache(maxsize=8)
def _cells(key: str) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Which cell [CHIPS] of slot x band each chip has, and its sign."""
    cells = np.argsort(draw(key, "order of cells", CHIPS), kind="stable")
    signs = np.where(draw(key, "signs of cells", CHIPS) >> np.uint64(63), 1, -1)
    return cells, signs.astype(np.int8)


def swings(payload: int, key: str = PUBLIC_KEY) -> NDArray[np.int8]:
    """+1 where a band is to be louder, -1 where softer, [PERIOD hops, BANDS]."""
    cells, signs = _cells(key)
    grid = np.empty(CHIPS, np.int8)
    grid[cells] = signs * encode(payload)
    slots = grid.reshape(SLOTS, 1, BANDS)
    return np.concatenate([slots.repeat(SLOT_HOPS // 2, 1), -slots.repeat(SLOT_HOPS // 2, 1)], 1).reshape(
        PERIOD, BANDS
    )


def mark_sound(audio: Sound, sample_rate_hz: int, payload: int, key: str = PUBLIC_KEY) -> Sound:
    """Sound float32 [C, N] with the mark of a payload; on disk if the sound itself lies there (`numpy.memmap`)."""
    hop = round(HOP_SECONDS * sample_rate_hz)
    window = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop)).astype(
        np.float32
    )  # its square adds up to 1
    length = audio.shape[1]
    count = -(-length // hop) + 1  # pieces of two hops, each half over the next
    rows = np.round(np.arange(count) * hop / (HOP_SECONDS * sample_rate_hz)).astype(int) % PERIOD
    marks = 10 ** (DECIBELS / 20 * swings(payload, key).astype(np.float32))
    out = _room_like(audio)
    before = np.zeros((len(audio), hop), np.float32)  # what the last piece of a block adds to the next block
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        begin, end = (first - 1) * hop, last * hop  # of these pieces
        inside = audio[:, max(begin, 0) : min(end, length)]
        padded = np.pad(inside, ((0, 0), (max(begin, 0) - begin, end - min(end, length))))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop, axis=1)[:, ::hop]
        parts = _swung(pieces, window, marks[rows[first:last]], sample_rate_hz)
        marked = np.zeros_like(padded)
        for half in (0, 1):  # pieces of even and of odd number do not overlap
            flat = parts[:, half::2].reshape(len(audio), -1)
            marked[:, half * hop : half * hop + flat.shape[1]] += flat
        marked[:, :hop] += before
        before = marked[:, -hop:].copy()
        ready = marked[:, max(begin, 0) - begin : -hop if last < count else None]
        out[:, max(begin, 0) : max(begin, 0) + ready.shape[1]] = ready[:, : length - max(begin, 0)]
    return out


def _room_like(audio: Sound) -> Sound:
    """An array of the same shape, in memory or, like the other, on disk: a file without a name, gone with the array."""
    if not isinstance(audio, np.memmap) or not audio.size:
        return np.empty(audio.shape, np.float32)
    with tempfile.TemporaryFile() as scratch:
        scratch.truncate(4 * audio.size)
        return np.memmap(scratch, np.float32, "r+", shape=audio.shape)


def _swung(pieces: Sound, window: Sound, gains: NDArray[np.float32], sample_rate_hz: int) -> Sound:
    """Pieces [C, n, size] with their bands made louder and softer by gains [n, BANDS], windowed once more."""
    size = pieces.shape[2]
    spectrum = np.fft.rfft(pieces * window, axis=2)
    for band, bins in enumerate(_bands(size, sample_rate_hz)):
        spectrum[:, :, bins] *= gains[None, :, band, None]
    return np.fft.irfft(spectrum, size, axis=2).astype(np.float32) * window


def read_sound_mark(audio: Sound, sample_rate_hz: int, key: str = PUBLIC_KEY) -> Reading:
    """The best reading of the mark in sound float32 [C, N], wherever its period begins."""
    levels = _levels(audio.mean(axis=0), sample_rate_hz)
    folded = np.zeros((PERIOD, BANDS))
    count = np.zeros((PERIOD, 1))
    for begin in range(0, len(levels), PERIOD):
        part = levels[begin : begin + PERIOD]
        folded[: len(part)] += part
        count[: len(part)] += 1
    folded /= np.maximum(np.sqrt(count), 1)
    # Up less down of a slot that would begin at each hop.
    halves = sum(np.roll(folded, -hop, 0) * (1 if hop < SLOT_HOPS // 2 else -1) for hop in range(SLOT_HOPS))
    assert isinstance(halves, np.ndarray)
    most = 2 * np.median(np.abs(halves)) + 1e-9
    halves = np.clip(halves, -most, most)  # an onset says nothing
    cells, signs = _cells(key)
    readings, needed = [], threshold(PERIOD)
    for offset in range(PERIOD):
        values = np.roll(halves, -offset, 0)[::SLOT_HOPS].ravel()[cells]
        readings.append(read(values * signs, np.square(values), needed))
    return max(readings, key=lambda one: one.score)


def _levels(mono: NDArray, sample_rate_hz: int) -> NDArray[np.float64]:
    """Level of each band at each hop, in logarithms, less what lasts and what all bands share: [hops, BANDS]."""
    size = 2 * round(HOP_SECONDS * sample_rate_hz)
    count = max(1, round(len(mono) / (HOP_SECONDS * sample_rate_hz)) + 1)
    begins = np.round(np.arange(count) * HOP_SECONDS * sample_rate_hz).astype(int)  # of pieces, half before
    padded = np.pad(mono, (size // 2, size))
    window = np.hanning(size + 2)[1:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[begins]
    strength = np.abs(np.fft.rfft(pieces * window, axis=1))
    logs = np.log(strength + 1e-5 * size / 4)  # a floor at -100 dB: silence has no level
    levels = np.stack([logs[:, bins].mean(axis=1) for bins in _bands(size, sample_rate_hz)], axis=1)
    levels -= uniform_filter1d(levels, 2 * SLOT_HOPS + 1, axis=0, mode="nearest")
    return levels - levels.mean(axis=1, keepdims=True)


def _bands(size: int, sample_rate_hz: int) -> list[slice]:
    """The bins of each band; a band beyond half the sample rate has the last bin alone."""
    edges = np.linspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1) * size / sample_rate_hz
    marks = np.minimum(np.round(edges).astype(int), size // 2)
    return [slice(low, max(high, low + 1)) for low, high in pairwise(marks)]
