"""The oracle: measures what a clip shows and sounds like, from pixels and samples alone.

`observe` answers "none" for anything it does not find with confidence, and for everything on noise, blank or
broken clips. `verdict` holds an observation against what a caption promised; "none" counts as wrong. The
oracle was built on the world's own clips and is never adjusted to a model's.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from moviegen_data.toyworld.backdrop import (
    CameraTrack,
    background_kind,
    free_pixels,
    measure_camera,
    smooth_grey,
)
from moviegen_data.toyworld.faces import FaceSeen, find_face
from moviegen_data.toyworld.listen import Heard, hear
from moviegen_data.toyworld.masks import Frames, Mask, filled
from moviegen_data.toyworld.outline import angles_of, radius_of, shape_of, size_of
from moviegen_data.toyworld.segment import Thing, find_things
from moviegen_data.toyworld.tracks import interaction_of, motion_of, touching
from moviegen_data.toyworld.truth import box_of
from moviegen_data.toyworld.words import turn_of
from numpy.typing import NDArray

MIN_SIDE = 32  # pixels
CONTACT = 5  # world units: the tips of stars and triangles are too thin to be seen whole
CLEAR = 2  # world units between things whose outlines do not disturb each other


@dataclass(frozen=True)
class ObservedSprite:
    """One sprite or character as measured; names are those of `words`, or "none"."""

    color: str
    shape: str
    size: str
    motion: str
    boxes: tuple[list[int] | None, ...]  # [left, top, right, bottom) in pixels, one a frame
    masks: Mask  # [T, H, W] visible pixels
    centers: NDArray[np.float64]  # [T, 2] pixels
    angles: NDArray[np.float64]  # [T] radians since the first frame, clockwise
    character: int | None = None
    poses: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """All that the oracle found in a clip."""

    background: str = "none"
    camera: str = "none"
    sprites: tuple[ObservedSprite, ...] = ()  # largest first
    interaction: str = "none"
    actor: int | None = None  # index of the sprite that acts
    events: tuple[Heard, ...] = ()
    offsets: NDArray[np.float64] | None = None  # [T, 2] pixels, of the camera's view
    zooms: NDArray[np.float64] | None = None  # [T]


def observe(
    frames: NDArray[Any],
    frame_rate: float,
    audio: NDArray[Any] | None = None,
    sample_rate_hz: int | None = None,
) -> Observation:
    """Measure a clip: frames uint8 [T, H, W, 3], sound float [1, N] if there is one."""
    events = hear(audio, sample_rate_hz) if audio is not None and sample_rate_hz else ()
    clip = _usable(frames, frame_rate)
    things = find_things(clip) if clip is not None else []
    if clip is None or not things or len(things) > 4:
        return Observation(events=events)
    unit = clip.shape[1] / 64.0
    free = free_pixels(things, clip.shape[:3])
    grey = smooth_grey(clip, free)
    background = background_kind(grey, free, clip)
    camera = measure_camera(grey, free, background)
    face = find_face(clip, things)
    if face is not None:
        rest = [thing for thing in things if thing is not face.head and thing is not face.hat]
        sprites = [_character(face, camera, unit), *(_sprite(t, rest, camera, unit) for t in rest)]
        kind, actor = "none", None
    else:
        sprites = [_sprite(thing, things, camera, unit) for thing in things]
        kind, actor = _interaction(things, sprites, camera, unit)
    return Observation(
        background, camera.kind, tuple(sprites), kind, actor, events, camera.offsets, camera.zooms
    )


def _usable(frames: NDArray[Any], frame_rate: float) -> Frames | None:
    """The clip as float32 in [0, 255], or None where it cannot show anything."""
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.shape[0] < 2 or min(frames.shape[1:3]) < MIN_SIDE:
        return None
    if frames.dtype.kind not in "uif" or not np.isfinite(frame_rate) or frame_rate <= 0:
        return None
    clip = frames.astype(np.float32)
    if not np.isfinite(clip).all() or clip.min() < -1 or clip.max() > 256 or clip.std() < 2:
        return None
    return clip


def _world_track(
    centers: NDArray[np.float64], camera: CameraTrack, shape: tuple[int, ...], unit: float
) -> Any:
    middle = np.array([shape[2], shape[1]]) / 2
    return camera.to_world(centers, middle) / unit


def _sprite(thing: Thing, things: list[Thing], camera: CameraTrack, unit: float) -> ObservedSprite:
    clear = np.ones(len(thing.masks), dtype=bool)
    for other in things:
        if other is not thing:
            clear &= ~touching(thing.masks, other.masks, round(CLEAR * unit))
    shape = shape_of(thing, clear)
    angles = angles_of(thing, shape)
    centers = thing.centers()
    motion = motion_of(_world_track(centers, camera, thing.masks.shape, unit), angles)
    return ObservedSprite(
        color=thing.color,
        shape="none" if thing.doubled else shape,
        size=size_of(radius_of(thing, shape, camera.zooms, unit)),
        motion="none" if thing.doubled or camera.kind == "none" else motion,
        boxes=tuple(box_of(mask) for mask in thing.masks),
        masks=thing.masks,
        centers=centers,
        angles=angles,
    )


def _character(face: FaceSeen, camera: CameraTrack, unit: float) -> ObservedSprite:
    """Head, hat and features as one sprite; the features are holes in the head's mask, so they are filled."""
    masks = face.head.masks | face.hat.masks
    whole = np.stack([filled(mask) for mask in masks])
    centers = face.hat.centers()
    track = _world_track(centers, camera, masks.shape, unit)
    return ObservedSprite(
        color=face.head.color,
        shape="character",
        size="big",
        motion=motion_of(track, np.zeros(len(masks))),
        boxes=tuple(box_of(mask) for mask in whole),
        masks=whole,
        centers=centers,
        angles=np.zeros(len(masks)),
        character=face.character,
        poses=face.poses,
        expressions=face.expressions,
    )


def _interaction(
    things: list[Thing], sprites: list[ObservedSprite], camera: CameraTrack, unit: float
) -> tuple[str, int | None]:
    if len(things) != 2 or camera.kind == "none":
        return "none", None
    contact = touching(things[0].masks, things[1].masks, round(CONTACT * unit))
    tracks = [_world_track(sprite.centers, camera, sprite.masks.shape, unit) for sprite in sprites]
    return interaction_of(tracks, contact)


def verdict(spec: dict[str, Any], observation: Observation) -> dict[str, bool]:
    """What of a spec (see `Prompt.spec`) a clip fulfills, by the keys that the spec states.

    Keys: colour, shape, size, motion, background, camera, interaction. With several sprites an observed
    one is first bound to the spec's sprite of its color; colour, shape, size and motion are then true only
    if they are right for every sprite and none is missing or to spare. What spins must turn the way round
    that the spec states. A push or carry must also have the right actor.
    """
    wanted = spec.get("sprites") or []
    found = _bind(wanted, observation.sprites)
    keys = {"colour": "color", "shape": "shape", "size": "size", "motion": "motion"}
    result = {}
    for key, name in keys.items():
        stated = [index for index, sprite in enumerate(wanted) if sprite.get(name) is not None]
        if stated:
            result[key] = found is not None and all(
                getattr(found[index], name) == wanted[index][name] for index in stated
            )
    if result.get("motion") and found is not None:
        pairs = zip(wanted, found, strict=True)
        result["motion"] = all(asked.get("turn") in (None, turn_of(seen.angles[-1])) for asked, seen in pairs)
    for key in ("background", "camera"):
        if spec.get(key) is not None:
            result[key] = getattr(observation, key) == spec[key]
    if spec.get("interaction") is not None:
        result["interaction"] = _acts(spec["interaction"], observation, found)
    return result


def _bind(
    wanted: list[dict[str, Any]], sprites: tuple[ObservedSprite, ...]
) -> tuple[ObservedSprite, ...] | None:
    """Observed sprites in the spec's order, by color first; None where the numbers differ."""
    if not wanted or len(wanted) != len(sprites):
        return None

    def score(order: tuple[ObservedSprite, ...]) -> tuple[int, int]:
        pairs = list(zip(wanted, order, strict=True))
        return (
            sum(spec.get("color") == seen.color for spec, seen in pairs),
            sum(spec.get("shape") == seen.shape for spec, seen in pairs),
        )

    return max(permutations(sprites), key=score)


def _acts(kind: str, observation: Observation, found: tuple[ObservedSprite, ...] | None) -> bool:
    if observation.interaction != kind or found is None or observation.actor is None:
        return False
    return kind == "collide" or observation.sprites[observation.actor] is found[0]
