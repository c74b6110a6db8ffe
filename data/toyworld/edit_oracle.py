"""What became of an edit, measured in pixels: whether what was asked is there, and whether the rest is as it was.

The oracle sees no colors in a black and white clip, so of that style it asks for grey pixels whose brightness goes on
as in the source. An inverted clip is inverted back before it is looked at. A thing that was to be painted over
(`segment`) is found by the paint, and the rest is looked at with the source's thing put back.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_data.toyworld.masks import dilated, eroded
from moviegen_data.toyworld.truth import Mask, decode_mask
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # [T, H, W, 3] RGB
ALL = ("color", "shape", "size", "motion")
GREY = (
    6.0  # levels of 255 that channels of a grey clip differ by on average; H.264 and the codec leave about 1
)
ALIKE = 0.9  # correlation of brightness of a clip with that of its source in grey
PAINTED = 64  # levels of 255 from a paint within which a pixel shows it
OVERLAP = 0.5  # of the painted pixels and the thing's, intersection over union: what counts as painted over
STILL_FRAMES = 3  # the oracle measures clips: a picture is one in which nothing happens
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # as the world draws a black and white clip
MARGIN = 4  # pixels of a 64-pixel frame around what an edit changes: codecs smear


@dataclass(frozen=True)
class EditSeen:
    """The oracle's judgment of one edited clip."""

    changed: bool  # the asked change is there
    kept: bool  # every attribute that was not asked for is as before
    same: Mask  # [T, H, W] pixels that the edit had no reason to touch


def look(
    kind: str, before: dict[str, Any], after: dict[str, Any], frames: Frames, source: Frames
) -> EditSeen:
    """Judge an edited clip.

    Args:
        kind: one of `edits.KINDS`, or segment.
        before, after: truth of the two scenes (`truth.clip_truth`); of segment, the second says what is `painted`.
        frames, source: the edited clip and its source, of one size.
    """
    if frames.shape != source.shape:
        return EditSeen(False, False, np.ones(source.shape[:3], dtype=bool))
    rate = before["frame_rate"]
    if kind == "style":
        changed, kept = _style(after, frames, source, rate)
        return EditSeen(changed, kept, np.ones(source.shape[:3], dtype=bool))
    if kind == "segment":
        return _segment(before, after["painted"], frames, source)
    seen = oracle.observe(frames, rate)
    changed, kept = _JUDGES[kind](before["sprites"], after["sprites"], seen)
    if kind == "background":
        changed = seen.background == after["background"]
    else:
        kept &= seen.background == before["background"]
    kept &= seen.camera == before["camera"]["kind"]
    return EditSeen(bool(changed), bool(kept), _same(kind, before, after, seen))


def still_truth(truth: dict[str, Any]) -> dict[str, Any]:
    """The truth of a clip that shows the first frame of another `STILL_FRAMES` times: nothing moves."""
    sprites = [
        sprite | {"motion": "still", "masks": sprite["masks"][:1] * STILL_FRAMES}
        for sprite in truth["sprites"]
    ]
    camera = truth["camera"] | {"kind": "static"}
    return truth | {"num_frames": STILL_FRAMES, "sprites": sprites, "camera": camera}


def _named(seen: oracle.Observation, color: str) -> oracle.ObservedSprite | None:
    return next((sprite for sprite in seen.sprites if sprite.color == color), None)


def _is(sprite: oracle.ObservedSprite | None, spec: dict[str, Any], keys: tuple[str, ...] = ALL) -> bool:
    return sprite is not None and all(getattr(sprite, key) == spec[key] for key in keys)


def _all_there(specs: list[dict[str, Any]], seen: oracle.Observation, allowed: set[str]) -> bool:
    """Whether the sprites are all seen as they were, and nothing else but sprites of the allowed colors."""
    colors = {spec["color"] for spec in specs} | allowed
    extra = [sprite for sprite in seen.sprites if sprite.color not in colors]
    return not extra and all(_is(_named(seen, spec["color"]), spec) for spec in specs)


def _add(before: list, after: list, seen: oracle.Observation) -> tuple[bool, bool]:
    new = after[-1]
    return _is(_named(seen, new["color"]), new, ("color", "shape", "size")), _all_there(
        before, seen, {new["color"]}
    )


def _remove(before: list, after: list, seen: oracle.Observation) -> tuple[bool, bool]:
    gone = before[-1]["color"]
    return bool(seen.sprites) and _named(seen, gone) is None, _all_there(after, seen, {gone})


def _replace(before: list, after: list, seen: oracle.Observation) -> tuple[bool, bool]:
    new, found = after[0], _named(seen, after[0]["color"])
    rest = _all_there(before[1:], seen, {new["color"]})
    return _is(found, new, ("shape",)), rest and _is(found, new, ("size", "motion"))


def _recolor(before: list, after: list, seen: oracle.Observation) -> tuple[bool, bool]:
    old, new = before[0]["color"], after[0]
    found = _named(seen, new["color"])
    changed = found is not None and _named(seen, old) is None
    rest = _all_there(before[1:], seen, {old, new["color"]})
    return changed, rest and _is(found or _named(seen, old), new, ("shape", "size", "motion"))


def _background(before: list, after: list, seen: oracle.Observation) -> tuple[bool, bool]:  # noqa: ARG001
    return False, _all_there(before, seen, set())


_JUDGES = {
    "add": _add, "remove": _remove, "replace": _replace, "recolor": _recolor, "background": _background,
}  # fmt: skip


def _style(after: dict[str, Any], frames: Frames, source: Frames, rate: float) -> tuple[bool, bool]:
    if after["style"] == "inverted":
        seen = oracle.observe(255 - frames, rate)
        colors = {spec["color"] for spec in after["sprites"]}
        changed = colors == {sprite.color for sprite in seen.sprites}
        kept = _all_there(after["sprites"], seen, set())
        return changed, kept and (seen.background, seen.camera) == (
            after["background"],
            after["camera"]["kind"],
        )
    clip = frames.astype(np.float32)
    changed = float((clip.max(axis=-1) - clip.min(axis=-1)).mean()) < GREY
    return changed, _correlation(clip.mean(axis=-1), source.astype(np.float32) @ LUMA) > ALIKE


def _segment(before: dict[str, Any], painted: dict[str, Any], frames: Frames, source: Frames) -> EditSeen:
    """Paint where the named thing is, and nowhere else; and everything but that thing as it was."""
    height, width = before["height"], before["width"]
    thing = _masks(before["sprites"][painted["sprite"]], height, width)
    paint = np.array(painted["color"], dtype=int)
    shown = np.abs(frames - paint).max(axis=-1) <= PAINTED
    shown &= (np.abs(source - paint).max(axis=-1) > PAINTED) | thing  # what looked so before is not painted
    either = (shown | thing).sum()
    changed = either > 0 and (shown & thing).sum() / either >= OVERLAP
    touched = dilated(thing, round(MARGIN * height / 64))
    seen = oracle.observe(np.where(touched[..., None], source, frames), before["frame_rate"])
    kept = _all_there(before["sprites"], seen, set())
    kept &= (seen.background, seen.camera) == (before["background"], before["camera"]["kind"])
    return EditSeen(bool(changed), bool(kept), ~touched)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def _same(kind: str, before: dict[str, Any], after: dict[str, Any], seen: oracle.Observation) -> Mask:
    """Where the edited clip should show what its source shows."""
    height, width = before["height"], before["width"]
    margin = round(MARGIN * height / 64)
    if kind == "background":
        things = np.any([_masks(sprite, height, width) for sprite in before["sprites"]], axis=0)
        return eroded(eroded(things))
    if kind == "add":
        found = _named(seen, after["sprites"][-1]["color"])
        touched = np.zeros((before["num_frames"], height, width), bool) if found is None else found.masks
    else:
        place = -1 if kind == "remove" else 0
        ends = (before,) if kind == "remove" else (before, after)
        touched = np.any([_masks(clip["sprites"][place], height, width) for clip in ends], axis=0)
    return ~dilated(touched, margin) if touched.any() else np.ones_like(touched)


def _masks(sprite: dict[str, Any], height: int, width: int) -> Mask:
    return np.stack([decode_mask(runs, height, width) for runs in sprite["masks"]])
