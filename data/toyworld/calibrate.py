"""How often the oracle is right on clips whose truth is known: its own test, and a figure's ceiling.

Truth is read here to count, never by the oracle.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from moviegen_data.toyworld.oracle import Observation, ObservedSprite, observe, verdict
from moviegen_data.toyworld.truth import decode_mask
from moviegen_data.toyworld.world import ToyClip
from numpy.typing import NDArray

EVENT_SECONDS = 0.03  # an impact is right when heard this close to its time, with its timbre
BOX_PIXELS = 2  # a box is right when each side is this close
MASK_IOU = 0.8  # a mask is right when it overlaps the truth at least so much
CAMERA_PIXELS, CAMERA_ZOOM = 2.5, 0.06  # errors of the measured view over the whole clip


@dataclass
class Score:
    """Right answers and questions, by the name of what was asked."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, is_right: bool) -> None:
        self.right[name] += int(is_right)
        self.asked[name] += 1

    def accuracies(self) -> dict[str, float]:
        """Share of right answers by name."""
        return {name: self.right[name] / self.asked[name] for name in sorted(self.asked)}


@dataclass(frozen=True)
class Shown:
    """What the oracle is given of a clip, for example after a codec."""

    frames: NDArray[np.uint8]  # [T, H, W, 3]
    audio: NDArray[np.float32]  # [1, N]
    sample_rate_hz: int


def calibrate(clips: Iterable[tuple[ToyClip, Shown]]) -> Score:
    """Observe each shown clip and count the answers against the original's truth."""
    score = Score()
    for clip, shown in clips:
        seen = observe(shown.frames, clip.frame_rate, shown.audio, shown.sample_rate_hz)
        for name, is_right in verdict(clip.truth["spec"], seen).items():
            score.add(name, is_right)
        if clip.truth["interaction"] is None:
            score.add("no_interaction", seen.interaction == "none")
        _score_events(score, clip.truth["events"], seen)
        _score_camera(score, clip.truth["camera"], seen)
        for sprite in clip.truth["sprites"]:
            _score_sprite(score, sprite, _match(sprite, seen), clip.truth)
    return score


def shown_raw(clip: ToyClip) -> Shown:
    """The clip as it was drawn."""
    return Shown(clip.frames, clip.audio, clip.sample_rate_hz)


def _score_events(score: Score, events: list[dict[str, Any]], seen: Observation) -> None:
    score.add("event_count", len(events) == len(seen.events))
    for event in events:
        near = [heard for heard in seen.events if abs(heard.seconds - event["seconds"]) <= EVENT_SECONDS]
        score.add("event_time", bool(near))
        score.add("event_timbre", any(heard.timbre == event["shape"] for heard in near))


def _score_camera(score: Score, camera: dict[str, Any], seen: Observation) -> None:
    if seen.offsets is None or seen.zooms is None:
        score.add("camera_path", False)
        return
    shift = np.abs(np.array(camera["offsets"]) - seen.offsets).max()
    zoom = np.abs(np.array(camera["zooms"]) - seen.zooms).max()
    score.add("camera_path", bool(shift <= CAMERA_PIXELS and zoom <= CAMERA_ZOOM))


def _match(sprite: dict[str, Any], seen: Observation) -> ObservedSprite | None:
    return next((found for found in seen.sprites if found.color == sprite["color"]), None)


def _score_sprite(
    score: Score, sprite: dict[str, Any], found: ObservedSprite | None, truth: dict[str, Any]
) -> None:
    masks = np.stack([decode_mask(runs, truth["height"], truth["width"]) for runs in sprite["masks"]])
    for index, (mask, box) in enumerate(zip(masks, sprite["boxes"], strict=True)):
        other = found.boxes[index] if found else None
        near = box is not None and other is not None and np.abs(np.subtract(box, other)).max() <= BOX_PIXELS
        score.add("box", bool(near))
        score.add("mask", found is not None and _iou(mask, found.masks[index]) >= MASK_IOU)
    if "character" in sprite:
        score.add("character", found is not None and found.character == sprite["character"])
        for name in ("poses", "expressions"):
            answers = getattr(found, name) if found and getattr(found, name) else [None] * len(masks)
            for wanted, answer in zip(sprite[name], answers, strict=True):
                score.add(name[:-1], wanted == answer)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))
