"""What an edit leaves as it was is the source's own pixels: the setting `keep` of `moviegen edit`. Not of the paper.

A sampler makes every pixel of a clip anew, and blurs what it was not asked to change. So the edited clip is held
against what the codec alone makes of its source, that the codec's own error is not taken for an edit. Where they differ
by more than `high` levels something was changed, and so was all that hangs together with it, in space and in time, and
differs by more than `low` (hysteresis, as Canny's of edges): a thing that moves is followed. Everywhere else stands the
source, as it is in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from moviegen.conditioning.edit_tasks import EDIT_TASKS
from moviegen.config import UserError, check_least, nearest

Frame = NDArray[np.uint8]  # [H, W, 3]
Share = NDArray[np.float32]  # [H, W] in 0..1: how much of each pixel is the edit's
Masks = NDArray[np.bool_]  # [T, H, W]
BOUNDS = ("low", "high")  # what a task may have of its own
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # places are neighbors across corners too


@dataclass(frozen=True)
class Keep:
    """The keys of `keep` in conf/edit.yaml, which says where they come from. Pixels are those that are edited at.

    Args:
        low, high: levels of 255 by which edit and reconstruction differ, of the channel that differs most.
        slack: pixels by which a sampler's blur and shift reach: a level that the reconstruction has so near is no
            difference, for what is blurred lies between its neighbors. With 0 each pixel is held against its own.
        smooth: side of the square of pixels over which differences are averaged, odd.
        grow: pixels by which what was changed is widened.
        soft: pixels over which the edit fades into the source, outside of that.
        spare: tasks whose edits change all of the picture: nothing is put back.
        tasks: other bounds of single tasks, by name: {segment: {low: 48, high: 64}}.
        frames: how many are looked at, at once, besides as many that follow. In a longer clip a thing is followed to
            its end from where it differs by `high`, and back to so many frames before.

    Raises:
        UserError: bounds that are not in order, a window that has no middle, a task or a bound that is none.
    """

    low: float
    high: float
    slack: int = 0
    smooth: int = 3
    grow: int = 1
    soft: int = 1
    spare: tuple[str, ...] = ("style",)
    frames: int = 64
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, slack=0, smooth=1, grow=0, soft=0, frames=1)
        if not 0 <= self.low <= self.high <= 255:
            raise UserError(f"keep.low={self.low:g}, keep.high={self.high:g}: need 0 <= low <= high <= 255")
        if self.smooth % 2 == 0:
            raise UserError(f"keep.smooth={self.smooth}: must be odd")
        for key, names in (("spare", self.spare), ("tasks", self.tasks)):
            if unknown := next((name for name in names if name not in EDIT_TASKS), None):
                raise UserError(
                    f"keep.{key}: no edit task is called {unknown!r}, {nearest(unknown, EDIT_TASKS)}"
                )
        for task, bounds in self.tasks.items():
            if unknown := next((name for name in bounds if name not in BOUNDS), None):
                raise UserError(f"keep.tasks.{task}.{unknown}: is none of {', '.join(BOUNDS)}")
            self.of(task)

    def of(self, task: str) -> Keep:
        """These settings as they are for a task's edits."""
        return replace(self, **dict(self.tasks.get(task, {})), tasks={})


def difference(edited: Frame, base: Frame, keep: Keep) -> Share:
    """Levels [H, W] by which an edited frame leaves what the other shows near by, averaged over a small window."""
    around = (2 * keep.slack + 1, 2 * keep.slack + 1, 1)
    least, most = ndimage.minimum_filter(base, around), ndimage.maximum_filter(base, around)
    frame = edited.astype(np.float32)
    levels = np.maximum(frame - most, least - frame).clip(min=0).max(axis=-1)
    return np.asarray(ndimage.uniform_filter(levels, keep.smooth), dtype=np.float32)


def changed(levels: NDArray[np.float32], keep: Keep, before: Masks | None = None) -> Masks:
    """What of differences [T, H, W] is an edit: what hangs together above `low` with a place above `high`.

    Args:
        before: [1, H, W] what of the frame before them was, and goes on here.
    """
    loose, sure = levels > keep.low, levels > keep.high
    if before is not None:
        loose, sure = np.concatenate([before, loose]), np.concatenate([before, sure])
    parts, _ = ndimage.label(loose, structure=TOUCHING)
    found = np.isin(parts, np.unique(parts[sure])) & loose
    return found[len(loose) - len(levels) :]


def share(mask: NDArray[np.bool_], keep: Keep) -> Share:
    """How much of each pixel is the edit's, for a mask [H, W] of what was changed."""
    wide = ndimage.maximum_filter(mask, 2 * keep.grow + 1)
    faded = ndimage.uniform_filter(wide.astype(np.float32), 2 * keep.soft + 1)
    return np.where(wide, np.float32(1), np.asarray(faded, dtype=np.float32))


def shares(pairs: Iterable[tuple[Frame, Frame]], keep: Keep) -> Iterator[tuple[Frame, Share]]:
    """For pairs (edited frame, the codec's of the source), in their order: the edited frame and its share.

    What is held is at most twice `keep.frames` frames, however many there are.
    """
    told = ((edited, difference(edited, base, keep)) for edited, base in pairs)
    now, before = list(islice(told, keep.frames)), None
    while now:
        ahead = list(islice(told, keep.frames))
        masks = changed(np.stack([levels for _, levels in (*now, *ahead)]), keep, before)[: len(now)]
        for (edited, _), mask in zip(now, masks, strict=True):
            yield edited, share(mask, keep)
        now, before = ahead, masks[-1:]


def blended(edited: Frame, source: Frame, part: Share) -> Frame:
    """A frame that is the edit's by its share, and exactly the source's where that is 0."""
    mixed = source + part[..., None] * (edited.astype(np.float32) - source)
    return mixed.round().clip(0, 255).astype(np.uint8)
