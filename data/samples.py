"""Units of work and the samples they become; this is what the worker processes run.

A unit is one toyworld clip, or one span of one real file with all its crops, so that a span is decoded once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from moviegen_data.config import ClipSpec
from moviegen_data.edit_pairs import EditUnit
from moviegen_data.edit_samples import edit_sample
from moviegen_data.entries import entries, json_bytes, span_of
from moviegen_data.files import SourceFile
from moviegen_data.sound_rules import SoundRules
from moviegen_data.toyworld import World, WorldConfig
from PIL import Image

from moviegen.media import (
    Limits,
    MediaError,
    encode_flac,
    encode_video,
    read_clip,
    read_image,
    read_sound,
    resample_audio,
)

TOY_LICENCE = "Apache-2.0"
TOY_LICENCE_URL = "https://spdx.org/licenses/Apache-2.0.html"
UNWRITTEN = ("disk full", "write")  # rules of MediaError: a file could not be written, whatever was read


@dataclass(frozen=True)
class Crop:
    """A rectangle of the source frame, in its pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class ToyUnit:
    """One toyworld clip."""

    origin: str  # the outcome it counts for
    key: str
    group: str
    split: str
    world: WorldConfig
    seed: int
    index: int

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)


@dataclass(frozen=True)
class FileUnit:
    """One span of a video, or one photograph, with the crops that are taken from it."""

    origin: str
    keys: tuple[str, ...]
    group: str
    split: str
    file: SourceFile
    sha256: str
    crops: tuple[Crop, ...]
    frame_size: tuple[int, int]  # width, height of the source
    start_frame: int | None  # None: a photograph
    frame_rate: float  # of the source


@dataclass(frozen=True)
class BucketUnit(FileUnit):
    """One that takes the form of its bucket."""

    clip: ClipSpec
    duration: str  # name of the duration


@dataclass(frozen=True)
class SoundUnit:
    """One span of a file that holds sound and no picture, as long as a clip."""

    origin: str
    key: str
    group: str
    split: str
    file: SourceFile
    sha256: str
    start_seconds: float

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)


Unit = ToyUnit | FileUnit | SoundUnit | EditUnit


@dataclass(frozen=True)
class Recipe:
    """What all samples of a build share."""

    clip: ClipSpec
    limits: Limits
    crf: float
    sound: SoundRules | None = None  # which sound tracks may stay


@dataclass(frozen=True)
class Outcome:
    """What became of a unit: samples as tar entries, or the rule by which it was dropped."""

    samples: tuple[dict[str, Any], ...] = ()
    rule: str | None = None
    detail: str = ""


def make(unit: Unit, recipe: Recipe) -> Outcome:
    """Render or read, cut, encode. A bad file gives an outcome with a rule, never an exception.

    Raises MediaError where a sample cannot be written, as on a full disk: the file is not to blame, and is tried again.
    """
    if isinstance(unit, ToyUnit):
        return Outcome((_toy_sample(unit, recipe),))
    try:
        if isinstance(unit, EditUnit):
            return Outcome((edit_sample(unit, recipe.limits, recipe.crf),))
        if isinstance(unit, SoundUnit):
            return Outcome((_sound_sample(unit, recipe),))
        if unit.start_frame is None:
            frames, sound = read_image(unit.file.path, recipe.limits)[None], None
        else:
            frames, sound = _read_span(unit, recipe)
            if broken := recipe.sound and recipe.sound.broken(sound, form(unit, recipe.clip).sample_rate_hz):
                return Outcome(rule=broken[0], detail=broken[1])
        _check_size(unit, frames)
    except MediaError as error:
        if error.rule in UNWRITTEN:
            raise
        return Outcome(rule=error.rule, detail=error.reason)
    pairs = zip(unit.keys, unit.crops, strict=True)
    return Outcome(tuple(_file_sample(unit, key, crop, frames, sound, recipe) for key, crop in pairs))


def bucket(unit: Unit, clip: ClipSpec) -> tuple[int, int, int]:
    """(frames, height, width) of a unit's samples."""
    if isinstance(unit, ToyUnit):
        return unit.world.num_frames, unit.world.size, unit.world.size
    if isinstance(unit, SoundUnit):
        return 0, 0, 0
    if isinstance(unit, EditUnit):
        return unit.size
    clip = form(unit, clip)
    return (1 if unit.start_frame is None else clip.num_frames), clip.height, clip.width


def form(unit: FileUnit, clip: ClipSpec) -> ClipSpec:
    """The form of a unit's samples: its bucket's, or the one that all share."""
    return unit.clip if isinstance(unit, BucketUnit) else clip


@lru_cache(maxsize=8)
def _world(config: WorldConfig) -> World:
    return World(config)


def _toy_sample(unit: ToyUnit, recipe: Recipe) -> dict[str, Any]:
    clip = _world(unit.world).render(unit.seed, unit.index)
    still = len(clip.frames) == 1  # as a photograph: no frame rate, no sound
    sound, frame_rate = (None, 0.0) if still else (clip.audio, clip.frame_rate)
    video = encode_video(clip.frames, clip.frame_rate, sound, clip.sample_rate_hz, recipe.crf)
    origin = {"toyworld": asdict(unit.world), "seed": unit.seed, "index": unit.index}
    record = {
        "key": unit.key,
        "sha256": hashlib.sha256(video).hexdigest(),
        "source_sha256": hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest(),
        "source": unit.group,
        "source_file": None,
        "origin": origin,
        "span": span_of(0, len(clip.frames), frame_rate),
        "split": unit.split,
        "fps": frame_rate,
        "frames": len(clip.frames),
        "height": clip.frames.shape[1],
        "width": clip.frames.shape[2],
        "sample_rate_hz": None if still else clip.sample_rate_hz,
        "channels": 0 if still else len(clip.audio),
        "licence": TOY_LICENCE,
        "licence_url": TOY_LICENCE_URL,
        "consent": "none-needed",
        "transforms": [{"op": "render"}, {"op": "encode", "codec": "h264", "crf": recipe.crf}],
    }
    return entries(record, video, clip.caption) | {"truth.json": json_bytes(clip.truth)}


def _read_span(unit: FileUnit, recipe: Recipe) -> tuple[np.ndarray, np.ndarray | None]:
    assert unit.start_frame is not None
    spec = form(unit, recipe.clip)
    clip = read_clip(
        unit.file.path,
        unit.start_frame,
        spec.num_frames,
        with_audio=True,
        limits=recipe.limits,
        frame_rate=spec.frame_rate,
    )
    if clip.audio is None or clip.sample_rate_hz is None:
        return clip.frames, None
    return clip.frames, _mono(unit, clip.audio, clip.sample_rate_hz, spec.sample_rate_hz)


def _mono(unit: FileUnit | SoundUnit, sound: np.ndarray, sample_rate_hz: int, new_rate_hz: int) -> np.ndarray:
    """Sound of one channel at another rate; MediaError where it holds what cannot be heard or encoded."""
    if not np.isfinite(sound).all():
        raise MediaError(unit.file.path, "its sound holds values that are not finite", "damaged")
    return resample_audio(sound, sample_rate_hz, new_rate_hz, 1)


def _check_size(unit: FileUnit, frames: np.ndarray) -> None:
    """The crops were laid into the size that the container states; hold it against the decoder's."""
    width, height = unit.frame_size
    if frames.shape[1:3] != (height, width):
        found = f"{frames.shape[2]}x{frames.shape[1]}"
        raise MediaError(
            unit.file.path, f"decodes to {found}, its container says {width}x{height}", "damaged"
        )


def _file_sample(
    unit: FileUnit, key: str, crop: Crop, frames: np.ndarray, sound: np.ndarray | None, recipe: Recipe
) -> dict[str, Any]:
    spec, still = form(unit, recipe.clip), unit.start_frame is None
    pixels = np.stack([_cut(frame, crop, spec) for frame in frames])
    video = encode_video(pixels, spec.frame_rate, sound, spec.sample_rate_hz, recipe.crf)
    start = unit.start_frame or 0
    length = 1 if still else last_offset(spec, unit.frame_rate) + 1
    rights = unit.file.rights
    record = {
        "key": key,
        "sha256": hashlib.sha256(video).hexdigest(),
        "source_sha256": unit.sha256,
        "source": unit.group,
        "source_file": unit.file.path.name,
        "span": span_of(start, start + length, 0.0 if still else unit.frame_rate),
        "split": unit.split,
        "fps": 0.0 if still else spec.frame_rate,
        "frames": len(pixels),
        "height": spec.height,
        "width": spec.width,
        "sample_rate_hz": spec.sample_rate_hz if sound is not None else None,
        "channels": 1 if sound is not None else 0,
        "licence": rights.licence,
        "licence_url": rights.licence_url,
        "consent": rights.consent,
        "transforms": _transforms(unit, crop, sound is not None, recipe),
    }
    if recipe.sound is not None:
        record |= recipe.sound.predicted(sound, spec.sample_rate_hz)
    return entries(record, video, unit.file.caption)


def _sound_sample(unit: SoundUnit, recipe: Recipe) -> dict[str, Any]:
    spec, rights = recipe.clip, unit.file.rights
    stop_seconds = unit.start_seconds + spec.duration_seconds
    sound, rate = read_sound(unit.file.path, unit.start_seconds, stop_seconds, recipe.limits)
    flac = encode_flac(_mono(unit, sound, rate, spec.sample_rate_hz), spec.sample_rate_hz)
    form = {"sample_rate_hz": spec.sample_rate_hz, "channels": 1}
    span = {"start_frame": None, "stop_frame": None}
    record = {
        "key": unit.key,
        "sha256": hashlib.sha256(flac).hexdigest(),
        "source_sha256": unit.sha256,
        "source": unit.group,
        "source_file": unit.file.path.name,
        "span": span | {"start_seconds": unit.start_seconds, "stop_seconds": stop_seconds},
        "split": unit.split,
        **{"fps": 0.0, "frames": 0, "height": 0, "width": 0},
        **form,
        "licence": rights.licence,
        "licence_url": rights.licence_url,
        "consent": rights.consent,
        "transforms": [{"op": "sound", **form}, {"op": "encode", "codec": "flac"}],
    }
    return entries(record, flac, unit.file.caption, "flac")


def _transforms(unit: FileUnit, crop: Crop, has_sound: bool, recipe: Recipe) -> list[dict[str, Any]]:
    spec = form(unit, recipe.clip)
    steps: list[dict[str, Any]] = []
    if unit.start_frame is not None and is_retimed(spec, unit.frame_rate):
        steps.append({"op": "retime", "from_fps": unit.frame_rate, "to_fps": spec.frame_rate})
    if (crop.width, crop.height) != unit.frame_size:
        steps.append({"op": "crop", **asdict(crop)})
    if (crop.width, crop.height) != (spec.width, spec.height):
        steps.append({"op": "resize", "width": spec.width, "height": spec.height, "filter": "bicubic"})
    if has_sound:
        steps.append({"op": "sound", "sample_rate_hz": spec.sample_rate_hz, "channels": 1})
    return [*steps, {"op": "encode", "codec": "h264", "crf": recipe.crf}]


def is_retimed(spec: ClipSpec, frame_rate: float) -> bool:
    """Whether frames of the source are left out to reach the clip's frame rate."""
    return abs(frame_rate - spec.frame_rate) > 1e-3 * spec.frame_rate


def last_offset(spec: ClipSpec, frame_rate: float) -> int:
    """How many source frames after the first of a span its last one lies."""
    return int(np.floor((spec.num_frames - 1) * frame_rate / spec.frame_rate + 0.5))


def _cut(frame: np.ndarray, crop: Crop, spec: ClipSpec) -> np.ndarray:
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    image = Image.fromarray(np.ascontiguousarray(frame[box[1] : box[3], box[0] : box[2]]))
    if image.size != (spec.width, spec.height):
        image = image.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
    return np.asarray(image)
