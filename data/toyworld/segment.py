"""The oracle's eyes: finds colored things in front of a pale background, by colorfulness alone.

A sprite is far more colorful than any background, so each pixel's share of a sprite is its chroma (RGB less
grey and less the background's tint) measured along the nearest palette color. Nothing here reads `truth`.
"""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.masks import Frames, Mask, blurred, dilated, eroded, labelled, opened
from moviegen_data.toyworld.words import COLORS
from numpy.typing import NDArray

NAMES = tuple(COLORS)
PALETTE = np.array([COLORS[name] for name in NAMES], dtype=np.float32)
CHROMA = PALETTE - PALETTE.mean(axis=1, keepdims=True)  # [8, 3]
STRENGTH = np.linalg.norm(CHROMA, axis=1)  # [8]
DIRECTIONS = CHROMA / STRENGTH[:, None]

MIN_ALPHA = 0.42  # of a palette color's chroma
MIN_AREA = 28.0  # pixels of a 64-pixel frame
MIN_PRESENCE = 0.6  # share of frames in which a thing must be seen
COLOR_ERROR = 0.2  # of a share that is measured by color at an edge
MAX_TINT = 20.0  # mean colorfulness of a background, where a sprite's is 120 and more


@dataclass(frozen=True)
class Thing:
    """One colored thing through a clip."""

    color: str
    masks: Mask  # [T, H, W] visible pixels
    alphas: Frames  # [T, H, W] share of each pixel in [0, 1]
    doubled: bool = False  # a second thing of this color is in view

    @property
    def present(self) -> Mask:
        """Frames [T] in which it is seen."""
        return np.any(self.masks, axis=(1, 2))

    def centers(self) -> NDArray[np.float64]:
        """Center of mass [T, 2] in pixels, NaN where it is not seen."""
        weight = self.alphas.sum(axis=(1, 2)).astype(np.float64)
        weight[weight <= 0] = np.nan
        size_y, size_x = self.alphas.shape[1:]
        x = self.alphas.sum(axis=1) @ (np.arange(size_x) + 0.5) / weight
        y = self.alphas.sum(axis=2) @ (np.arange(size_y) + 0.5) / weight
        return np.stack([x, y], axis=1)

    def areas(self) -> NDArray[np.float64]:
        """Area [T] in pixels."""
        return self.alphas.sum(axis=(1, 2)).astype(np.float64)


def chroma_of(frames: Frames) -> Frames:
    """Colorfulness [T, H, W, 3] of frames [T, H, W, 3]: RGB less its grey and less the background's tint."""
    chroma = frames - frames.mean(axis=-1, keepdims=True)
    return chroma - np.median(chroma[:, ::2, ::2], axis=(0, 1, 2))


def find_things(frames: Frames) -> list[Thing]:
    """Every colored thing in frames [T, H, W, 3] in [0, 255], largest first."""
    strength = chroma_of(frames) @ DIRECTIONS.T
    best = strength.argmax(axis=-1)
    alpha = strength.max(axis=-1) / STRENGTH[best]
    solid = alpha > MIN_ALPHA
    if solid.mean() > 0.6:
        return []  # noise, or a flat color: there is no pale background
    min_area = MIN_AREA * (frames.shape[1] / 64.0) ** 2
    cores = {}
    for index in np.unique(best[solid]):
        core = opened(solid & (best == index))
        if (core.sum(axis=(1, 2)) >= min_area).mean() >= MIN_PRESENCE:
            cores[int(index)] = core
    if not cores or not _pale_behind(strength, cores):
        return []
    things = _sharpened([_thing(index, cores, strength) for index in cores], frames)
    return sorted(things, key=lambda thing: -float(thing.masks.sum()))


def _pale_behind(strength: Frames, cores: dict[int, Mask]) -> bool:
    """Whether what lies clear of every thing is nearly colorless, as backgrounds are and noise is not."""
    taken = np.any(list(cores.values()), axis=0)
    free = ~dilated(taken, 3)
    return bool(free.any()) and float(strength.max(axis=-1)[free].mean()) < MAX_TINT


def _thing(index: int, cores: dict[int, Mask], strength: Frames) -> Thing:
    """Soft outline of one color's largest blob; pixels of other things are left out."""
    core, runner_up = _largest_blobs(cores[index])
    inner = eroded(core)
    along = strength[..., index]
    peak = float(np.median(along[inner if inner.any() else core]))
    near = dilated(core, 2)
    for other, taken in cores.items():
        if other != index:
            near &= ~taken
    alphas = np.where(near, np.clip(along / peak, 0, 1), 0).astype(np.float32)
    alphas[alphas < 0.12] = 0
    return Thing(NAMES[index], alphas > 0.5, alphas, doubled=runner_up > 0.4)


def _largest_blobs(core: Mask) -> tuple[Mask, float]:
    """The largest connected blob of each frame, and the usual size of the second in terms of the first."""
    kept, ratios = np.zeros_like(core), []
    for frame, out in zip(core, kept, strict=True):
        labels, num = labelled(frame)
        if num == 0:
            continue
        sizes = np.bincount(labels.ravel())[1:]
        out[:] = labels == 1 + sizes.argmax()
        ratios.append(np.sort(sizes)[-2] / sizes.max() if num > 1 else 0.0)
    return kept, float(np.median(ratios))


def _sharpened(things: list[Thing], frames: Frames) -> list[Thing]:
    """The same things with edges that brightness tells too: video codecs keep color at half resolution."""
    grey = frames.mean(axis=-1)
    free = np.ones(grey.shape, dtype=np.float32)
    for thing in things:
        free[dilated(thing.alphas > 0)] = 0
    scale = (0, 4.0, 4.0)
    weight = np.maximum(blurred(free, scale), 1e-4)
    behind = blurred(grey * free, scale) / weight
    noise = 4.0 + float(np.abs(grey - behind)[free > 0].mean()) if free.any() else 4.0
    return [_sharpened_one(thing, grey, behind, noise) for thing in things]


def _sharpened_one(thing: Thing, grey: Frames, behind: Frames, noise: float) -> Thing:
    """Mix the share by color with the share by brightness, each weighted by how much it can be trusted."""
    inner = eroded(thing.masks)
    contrast = float(np.median(grey[inner if inner.any() else thing.masks])) - behind
    by_grey = np.clip((grey - behind) / np.where(np.abs(contrast) < 1, 1, contrast), 0, 1)
    trust = np.square(contrast / noise) * COLOR_ERROR**2
    mixed = (thing.alphas + trust * by_grey) / (1 + trust)
    edge = (thing.alphas > 0) & ~inner
    alphas = np.where(edge, mixed, thing.alphas).astype(np.float32)
    alphas[alphas < 0.12] = 0
    return Thing(thing.color, alphas > 0.5, alphas, thing.doubled)
