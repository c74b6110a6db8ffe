"""The built-in watermark in pictures: a faint pattern, the same in every frame, that says 32 bits.

It is the sum of one wave a chip of the code, of 2.5 to about 14 periods along the frame's shorter side, whose phase is
drawn from the key and turned by 180 degrees where the chip is -1. It is added to Cb, where a codec keeps such slow
waves, pictures have few of their own, and eyes see least; turning a video to grey removes it. Being fixed to the
frame, it outlives a change of size exactly, and of the frame rate; a crop shifts it and enlarges it relative to the
frame, which the detector searches: it adds up the frames, flattened, and evaluates their spectrum at each size's waves.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter

from moviegen.provenance.code import CHIPS, PUBLIC_KEY, SYNC_CHIPS, Reading, draw, encode, read, threshold

LEAST_SIDE = 64  # pixels: the fastest wave then has 4.6; with a shorter side there is no room for the mark
SLOWEST = 2.5  # periods along the shorter side
STRENGTH = 1.98  # root mean square of what is added, in levels of 255: 42.1 dB
# What a step of Cb adds to red, green and blue; scaled so that their root mean square is 1. It leaves luma alone.
BLUE_YELLOW = np.array([0, -0.344136, 1.772], np.float32) / math.sqrt((0.344136**2 + 1.772**2) / 3)
WORK_SIDE = 112  # pixels of the shorter side that the detector looks at
WINDOW = (
    1 / 4
)  # of the shorter side: what changes more slowly is not looked at, and Y and Cr explain Cb within it
FLOOR, POWER = 1.0, 0.7  # a picture is divided by (local power + floor) to this power
SCALES = 1.006 ** np.arange(-2, 124)  # of the uncropped frame's shorter side against this one's: 1 to 2.1
SURE = 0.95  # share of chips above which cropped frames are not searched as well
SHIFTS = 96  # places along each side of the uncropped frame that are searched
CANDIDATES = 10  # places that are decoded
HYPOTHESES = 9 * len(SCALES) * SHIFTS**2  # 9: the places are refined

Image32 = NDArray[np.float32]


@lru_cache(maxsize=8)
def waves(key: str) -> tuple[NDArray[np.int64], NDArray[np.complex64]]:
    """Frequencies [CHIPS, 2] (down, across) in periods a side, and phases [CHIPS] as unit complex numbers."""
    reach = 24
    down, across = np.mgrid[0 : reach + 1, -reach : reach + 1]
    half = (down > 0) | (across > 0)
    radius = np.hypot(down, across)
    places = np.flatnonzero((half & (radius >= SLOWEST)).ravel())
    slowest = places[np.lexsort((places, radius.ravel()[places]))][:CHIPS]
    order = np.argsort(draw(key, "order of waves", CHIPS), kind="stable")
    chosen = slowest[order]
    angles = draw(key, "phases of waves", CHIPS) / 2.0**64 * 2 * math.pi
    frequencies = np.stack([down.ravel()[chosen], across.ravel()[chosen]], axis=1)
    return frequencies, np.exp(1j * angles).astype(np.complex64)


def pattern(height: int, width: int, payload: int, key: str = PUBLIC_KEY) -> Image32:
    """The mark of a payload for frames of a size, [H, W], of root mean square 1."""
    frequencies, phases = waves(key)
    spectrum = np.zeros((frequencies[:, 0].max() + 1, 2 * frequencies[:, 1].max() + 1), np.complex64)
    spectrum[frequencies[:, 0], frequencies[:, 1] + spectrum.shape[1] // 2] = phases * encode(payload)
    rows, columns = _basis(height, width, min(height, width), *spectrum.shape)
    wave = (rows.conj().T @ spectrum @ columns.conj().T).real
    return (wave / np.sqrt(np.square(wave).mean())).astype(np.float32)


def _basis(height: int, width: int, side: float, num_down: int, num_across: int) -> tuple[NDArray, NDArray]:
    """exp(-2 pi i f x / side) for x from the middle of the frame: [num_down, H] and [W, num_across]."""
    y = (np.arange(height) + 0.5 - height / 2) / side
    x = (np.arange(width) + 0.5 - width / 2) / side
    down, across = np.arange(num_down), np.arange(num_across) - num_across // 2
    rows, columns = np.exp(-2j * math.pi * np.outer(down, y)), np.exp(-2j * math.pi * np.outer(x, across))
    return rows.astype(np.complex64), columns.astype(np.complex64)


class Embedder:
    """Adds the mark to frames of one size, one by one."""

    def __init__(
        self, height: int, width: int, payload: int, key: str = PUBLIC_KEY, strength: float = STRENGTH
    ) -> None:
        wave = strength * pattern(height, width, payload, key)
        self.added = np.rint(wave[:, :, None] * BLUE_YELLOW).astype(np.int16)

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The marked frame, uint8 [H, W, 3]."""
        return np.clip(frame + self.added, 0, 255).astype(np.uint8)


class Detector:
    """Adds up flattened frames, one by one; `read` searches what they have in common."""

    def __init__(self, key: str = PUBLIC_KEY) -> None:
        self.key = key
        self.first: Image32 | None = None  # coded on its own, and finer than those that are predicted from it
        self.total: Image32 | None = None

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Take one frame, uint8 [H, W, 3], of one size."""
        height, width = frame.shape[:2]
        picture = Image.fromarray(frame).convert("YCbCr")
        if min(height, width) > WORK_SIDE:
            ratio = WORK_SIDE / min(height, width)
            picture = picture.resize((round(width * ratio), round(height * ratio)), Image.Resampling.BOX)
        flat = _flattened(np.asarray(picture, np.float32))
        self.first = flat if self.first is None else self.first
        self.total = flat if self.total is None else self.total + flat

    def read(self, search: bool = True) -> Reading:
        """The best reading: of an uncropped frame, and where that is not clear and `search`, of cropped ones.

        Either may err in one of two million files.
        """
        assert self.first is not None and self.total is not None, "no frame was added"
        frequencies, phases = waves(self.key)
        needed = threshold(2, share=0.5)
        wholes = [
            _reading(one, frequencies, phases, (1.0, 0.0, 0.0), needed) for one in (self.first, self.total)
        ]
        whole = max(wholes, key=lambda one: one.score)
        if not search or (whole.found and whole.chip_accuracy > SURE):
            return whole
        return max(whole, _searched(self.total, frequencies, phases), key=lambda one: one.margin)


def _flattened(picture: Image32) -> Image32:
    """What Cb of a picture [H, W, 3] (Y, Cb, Cr) has of its own, of like strength everywhere: [H, W].

    Slow changes go, then what Y and Cr around there explain, then it is divided by its power: a picture's own edges and
    textures drown the mark least so.
    """
    window = max(5, round(min(picture.shape[:2]) * WINDOW)) | 1
    luma, blue, red = (plane - uniform_filter(plane, window) for plane in np.moveaxis(picture, 2, 0))
    products = (luma * luma, red * red, luma * red, blue * luma, blue * red)
    ll, rr, lr, bl, br = (uniform_filter(product, window) for product in products)
    ll, rr = ll + 4, rr + 1  # levels of 255, squared: noise of the coding
    own = blue - ((bl * rr - br * lr) * luma + (br * ll - bl * lr) * red) / (ll * rr - lr * lr)
    power = uniform_filter(own * own, max(3, window // 2))
    return own / (power + FLOOR) ** POWER


def _searched(total: Image32, frequencies: NDArray[np.int64], phases: NDArray[np.complex64]) -> Reading:
    """The best reading among crops of frames of all sizes, in all places."""
    side = min(total.shape)
    peaks = []  # (how well the sync fits, scale, shift down, shift across)
    for scale in SCALES:
        peaks += _sync_peaks(_chips(total, frequencies, phases, side * scale), frequencies, scale)
    needed = threshold(HYPOTHESES, share=0.5)
    step = SCALES[1] / SCALES[0]
    readings = [
        _reading(total, frequencies, phases, (scale * finer, down, across), needed)
        for _, scale, down, across in sorted(peaks, reverse=True)[:CANDIDATES]
        for finer in (step**-0.33, 1.0, step**0.33)
    ]
    return max(readings, key=lambda one: one.score)


def _reading(
    total: Image32,
    frequencies: NDArray[np.int64],
    phases: NDArray[np.complex64],
    place: tuple[float, float, float],
    needed: float,
) -> Reading:
    """What is read at one place: (scale, shift down, shift across)."""
    scale, down, across = place
    values = _chips(total, frequencies, phases, min(total.shape) * scale) * _turn(frequencies, down, across)
    return read(values.real, np.square(np.abs(values)) / 2, needed)


def _chips(
    total: Image32, frequencies: NDArray[np.int64], phases: NDArray[np.complex64], side: float
) -> NDArray[np.complex64]:
    """One complex number a chip: how the picture swings with its wave, of about equal size for all waves."""
    num_down, reach = frequencies[:, 0].max() + 1, int(frequencies[:, 1].max())
    height, width = total.shape
    rows, columns = _basis(height, width, side, num_down, 2 * reach + 1)
    swing = (rows @ total) @ columns
    swing = swing[frequencies[:, 0], frequencies[:, 1] + reach]
    size = np.abs(swing)
    radius = np.hypot(frequencies[:, 0], frequencies[:, 1])
    order = np.argsort(radius, kind="stable")
    usual = np.empty_like(size)
    usual[order] = uniform_filter(size[order], 61, mode="nearest")
    held = np.maximum(usual, size / 1.5)  # a strong wave of the picture's own is held down
    return swing / np.maximum(held, 1e-9) * phases.conj()


def _turn(frequencies: NDArray[np.int64], down: float, across: float) -> NDArray[np.complex128]:
    """What undoes a shift of the pattern by parts of a side."""
    return np.exp(2j * math.pi * (frequencies[:, 0] * down + frequencies[:, 1] * across))


def _sync_peaks(
    chips: NDArray[np.complex64], frequencies: NDArray[np.int64], scale: float, count: int = 3
) -> list[tuple[float, float, float, float]]:
    """Where the waves of the sync are in step best, over all shifts."""
    spectrum = np.zeros((SHIFTS, SHIFTS), np.complex64)
    sync = frequencies[:SYNC_CHIPS]
    spectrum[sync[:, 0] % SHIFTS, sync[:, 1] % SHIFTS] = chips[:SYNC_CHIPS]
    fit = (np.fft.ifft2(spectrum) * SHIFTS**2).real
    fit /= max(float(np.sqrt(np.square(np.abs(chips[:SYNC_CHIPS])).sum() / 2)), 1e-9)
    peaks = []
    for _ in range(count):
        down, across = np.unravel_index(np.argmax(fit), fit.shape)
        peaks.append((float(fit[down, across]), float(scale), down / SHIFTS, across / SHIFTS))
        fit[np.ix_((down + np.arange(-2, 3)) % SHIFTS, (across + np.arange(-2, 3)) % SHIFTS)] = -np.inf
    return peaks
