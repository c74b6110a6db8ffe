"""Edit pairs: pictures or videos before and after an edit, and the forms in which they become samples.

A pair becomes a sample as it is (`video`), as one of its frames (`frame`: paper 5, stage I), as a frame set in motion
(`animate`) or as a video of which the named thing is painted over (`segment`; both stage II). In `animate` the same
random affine motion moves both pictures, so what an edit changed stays all that differs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.painting import segment_pair
from numpy.typing import NDArray
from PIL import Image

TASKS = {"recolor": "color"}  # where the toy world's name of an edit is not the model's
ZOOM = (1.15, 1.35)  # at first: room for the motion, so that no edge of the picture comes into view
SHIFT, GROWTH, TURN = 0.06, 0.1, 0.1  # over a clip: share of the side, share of the size, radians; ours

Frames = NDArray[np.uint8]  # [T, H, W, 3] RGB


@dataclass(frozen=True)
class PairFile:
    """A pair of files that somebody has."""

    before: Path
    after: Path
    instruction: str
    task: str | None  # as the list names it; in a plan one of the model's tasks


@dataclass(frozen=True)
class EditUnit:
    """One sample to be made of one pair."""

    origin: str  # the outcome it counts for
    key: str
    group: str
    split: str
    form: str
    size: tuple[int, int, int]  # frames, height, width of the sample
    world: WorldConfig | None = None  # of a pair that the toy world draws
    seed: int = 0
    index: int = 0
    pair: PairFile | None = None  # or of files
    sound: bool = False
    finders: tuple[str, str] | None = None  # folders of the models that find the thing to paint
    frame_rate: float = 8.0
    licence: tuple[str, str | None, str] = ("", None, "unrecorded")  # licence, its url, consent

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)


@dataclass(frozen=True)
class Pair:
    """The content of a sample before it is coded."""

    before: Frames
    after: Frames
    frame_rate: float  # frames per second; 0 of pictures
    instruction: str
    task: str | None
    truth: dict[str, Any] | None = None
    sound: tuple[NDArray[np.float32], int] | None = None  # [1, N] and its rate


def rng_of(unit: EditUnit) -> np.random.Generator:
    """The stream that a sample's choices are drawn from."""
    text = f"{unit.key}|{unit.form}".encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


def toy_pair(unit: EditUnit) -> Pair:
    """A pair that the toy world draws, in the form that the unit asks for."""
    assert unit.world is not None
    world, rng = World(unit.world), rng_of(unit)
    if unit.form == "segment":
        return _toy_segmentation(world, unit, rng)
    drawn = world.edit_pair(unit.seed, unit.index)
    rate, truth = unit.world.frame_rate, {"before": drawn.before.truth, "after": drawn.after.truth}
    frames = (drawn.before.frames, drawn.after.frames)
    sound = (drawn.before.audio, drawn.before.sample_rate_hz) if unit.sound else None
    if unit.form != "video":
        frames, rate = formed(*frames, unit, rng)
    task = TASKS.get(drawn.kind, drawn.kind)
    return Pair(*frames, rate, drawn.instruction, task, truth if unit.form == "video" else None, sound)


def formed(
    before: Frames, after: Frames, unit: EditUnit, rng: np.random.Generator
) -> tuple[tuple[Frames, Frames], float]:
    """A pair as one of its frames, or as that frame in motion; and its frame rate."""
    place = int(rng.integers(len(before)))
    pictures = before[place], after[place]
    if unit.form == "frame":
        return (pictures[0][None], pictures[1][None]), 0.0
    moved = animated(pictures, unit.size[0], rng)
    return (moved[0], moved[1]), unit.frame_rate


def animated(pictures: tuple[NDArray[Any], ...], num_frames: int, rng: np.random.Generator) -> list[Frames]:
    """Pictures uint8 [H, W, 3] of one size as clips [T, H, W, 3], all under the same random affine motion."""
    height, width = pictures[0].shape[:2]
    zoom, angle = rng.uniform(*ZOOM), rng.uniform(-TURN, TURN)
    shift, growth = rng.uniform(-SHIFT, SHIFT, size=2), rng.uniform(-GROWTH, GROWTH)
    zoom = max(zoom, _least_zoom(width / height, angle, shift, growth))
    images = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures]
    clips: list[list[np.ndarray]] = [[] for _ in images]
    for share in np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else [0.0]:
        scale = 1 / (zoom * (1 + growth * share))
        cos, sin = scale * np.cos(angle * share), scale * np.sin(angle * share)
        left, top = width * (0.5 + shift[0] * share), height * (0.5 + shift[1] * share)
        matrix = (cos, -sin, left - cos * width / 2 + sin * height / 2)
        matrix += (sin, cos, top - sin * width / 2 - cos * height / 2)
        for clip, image in zip(clips, images, strict=True):
            moved = image.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
            clip.append(np.asarray(moved))
    return [np.stack(clip) for clip in clips]


def _least_zoom(aspect: float, angle: float, shift: NDArray[Any], growth: float) -> float:
    """The zoom at which no edge of a picture comes into view at the ends of its motion, where it is furthest out."""
    turned = np.cos(angle / 2) + np.abs(np.sin(angle / 2)) * np.array([1 / aspect, aspect])
    return float(np.max(turned / (1 - np.abs(shift))) / (1 - abs(growth) / 2))


def _toy_segmentation(world: World, unit: EditUnit, rng: np.random.Generator) -> Pair:
    drawn = segment_pair(world, unit.seed, unit.index, rng)
    clip = drawn.before
    return Pair(clip.frames, drawn.after.frames, clip.frame_rate, drawn.instruction, "segment")
