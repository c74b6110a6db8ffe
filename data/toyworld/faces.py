"""The oracle's eye for characters: a head under a hat, with dark features that tell pose and expression.

Heads and hats have colors of their own (`words.HEAD_COLORS`, `words.HAT_COLORS`); dark ink inside the head
tells a face from a sprite that another one rides on.
"""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.draw import TURNS, face_ink
from moviegen_data.toyworld.masks import Frames
from moviegen_data.toyworld.segment import Thing
from moviegen_data.toyworld.words import EXPRESSIONS, HAT_COLORS, HATS, HEAD_COLORS
from numpy.typing import NDArray

MIN_INK = 0.006  # of the head's area, dark and enclosed by it; sprites have none
MIN_FIT = 0.45  # correlation of a face's ink with the best template


@dataclass(frozen=True)
class FaceSeen:
    """Who a character is and what its face does."""

    head: Thing
    hat: Thing
    character: int
    poses: tuple[str, ...]  # one a frame, "none" where unclear
    expressions: tuple[str, ...]


def find_face(frames: Frames, things: list[Thing]) -> FaceSeen | None:
    """The character among the things in frames [T, H, W, 3], or None."""
    heads = [thing for thing in things if thing.color in HEAD_COLORS]
    hats = [thing for thing in things if thing.color in HAT_COLORS]
    for head in heads:
        for hat in hats:
            if _sits_on(hat, head) and _ink_share(frames, head) >= MIN_INK:
                return _read(frames, head, hat)
    return None


def _sits_on(hat: Thing, head: Thing) -> bool:
    gap = head.centers() - hat.centers()
    radius = _radii(head)
    close = (np.abs(gap[:, 0]) < 0.4 * radius) & (gap[:, 1] > 0.5 * radius) & (gap[:, 1] < 1.7 * radius)
    return bool(np.nan_to_num(close).mean() > 0.7)


def _radii(head: Thing) -> NDArray[np.float64]:
    """Half the width [T] of the head's mask."""
    columns = head.masks.any(axis=1)
    last = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    return np.maximum((last - columns.argmax(axis=1)) / 2.0, 1.0)


def _disc(head: Thing, index: int) -> tuple[float, float, float]:
    """Center x, y and radius of the head in one frame; its top is under the hat, its bottom is not."""
    mask = head.masks[index]
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    radius = (columns[-1] + 1 - columns[0]) / 2
    return (columns[-1] + 1 + columns[0]) / 2, rows[-1] + 1 - radius, radius


def _darkness(frames: Frames, index: int) -> Frames:
    """How far each pixel [H, W] is below the brightness of any palette color; bright colors are 0."""
    return np.clip(1 - frames[index].max(axis=-1) / 160, 0, 1)


def _ink_share(frames: Frames, head: Thing) -> float:
    """Share of a head's mask that is dark inside it: its color lies to the left, right, above and below."""
    shares = []
    for index in np.flatnonzero(head.present)[::3]:
        mask = head.alphas[index] > 0.75
        ahead = [np.logical_or.accumulate(np.flip(mask, side), axis=side) for side in (0, 1)]
        behind = [np.logical_or.accumulate(mask, axis=side) for side in (0, 1)]
        enclosed = np.flip(ahead[0], 0) & np.flip(ahead[1], 1) & behind[0] & behind[1] & ~mask
        shares.append(float((enclosed & (_darkness(frames, index) > 0.2)).sum() / max(mask.sum(), 1)))
    return float(np.median(shares))


def _read(frames: Frames, head: Thing, hat: Thing) -> FaceSeen:
    states = [_state(frames, head, index) for index in range(len(frames))]
    top_heavy = float(np.median([_top_share(hat.masks[i]) for i in np.flatnonzero(hat.present)]))
    kind = HATS.index("cone" if top_heavy < 0.62 else "box")
    number = HEAD_COLORS.index(head.color) * len(HAT_COLORS) + HAT_COLORS.index(hat.color)
    poses, expressions = zip(*states, strict=True)
    return FaceSeen(head, hat, number * len(HATS) + kind, poses, expressions)


def _top_share(mask: NDArray[np.bool_]) -> float:
    """Area of a hat's upper half in terms of its lower half."""
    rows = np.flatnonzero(mask.any(axis=1))
    middle = (rows[0] + rows[-1] + 1) // 2
    return float(mask[rows[0] : middle].sum() / max(mask[middle:].sum(), 1))


def _state(frames: Frames, head: Thing, index: int) -> tuple[str, str]:
    """Pose and expression: where in the head, and with which mouth, a face's ink fits best."""
    if not head.present[index]:
        return "none", "none"
    x, y, radius = _disc(head, index)
    size_y, size_x = frames.shape[1:3]
    rows, columns = np.mgrid[:size_y, :size_x].astype(np.float32) + np.float32(0.5)
    inside = (np.hypot(columns - x, rows - y) < 0.97 * radius) & (rows - y > -0.45 * radius)
    ink = np.where(inside, _darkness(frames, index), 0)
    reach, wide, high = int(0.8 * radius), int(0.55 * radius) + 1, int(0.25 * radius) + 1
    middle_x, middle_y = int(x), int(y)  # pixel whose template is centered on the head, less a fraction
    pad = reach + wide
    ink = np.pad(ink, pad)[middle_y + pad - reach - high :, middle_x + pad - reach - wide :]
    ink = ink[: 2 * (reach + high) + 1, : 2 * (reach + wide) + 1]
    windows = np.lib.stride_tricks.sliding_window_view(ink, (2 * reach + 1, 2 * reach + 1))
    steps = np.arange(-reach, reach + 1, dtype=np.float32)
    across = steps[None, :] + np.float32(middle_x + 0.5 - x)
    down = steps[:, None] + np.float32(middle_y + 0.5 - y)
    best = (MIN_FIT, "none", "none")
    for expression in EXPRESSIONS:
        fit = _correlation(windows, face_ink(expression, across, down, np.float32(radius)))
        shift = (np.unravel_index(fit.argmax(), fit.shape)[1] - wide) / radius
        pose = min(TURNS, key=lambda name: abs(TURNS[name] - shift))
        best = max(best, (float(fit.max()), pose, expression))
    return best[1], best[2]


def _correlation(windows: Frames, template: Frames) -> Frames:
    """Normalized correlation [A, B] of windows [A, B, H, W] with a template [H, W]."""
    template = template - template.mean()
    spread = windows.std(axis=(2, 3)) * np.sqrt(template.size)
    match = np.tensordot(windows, template, axes=([2, 3], [0, 1]))
    return match / np.maximum(spread * np.linalg.norm(template), 1e-6)
