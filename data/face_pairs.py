"""Which faces of which clips become references: rules for clips, identities across sources, pairs (paper 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moviegen.faces import Face, FaceFinder, cropped

Array = NDArray[np.float32]


class UnfitClipError(ValueError):
    """A clip gives no references; `rule` is a word for the table."""

    def __init__(self, rule: str, detail: str):
        super().__init__(detail)
        self.rule = rule


@dataclass(frozen=True)
class PairRules:
    """What makes a clip one of a single person, and which references it gets."""

    rate: float = 1.0  # frames per second that are looked at (paper: 1)
    paired: int = 5  # references from the clip itself (paper: 5)
    cross: int = 5  # references of the same person from elsewhere; our choice
    size: int = 224  # pixels of a crop
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"rules: rate must be above 0 frames per second, not {self.rate}")
        if self.paired < 1 or self.cross < 0 or self.size < 8:
            stated = f"paired {self.paired}, cross {self.cross}, size {self.size}"
            raise ValueError(f"rules: paired must be at least 1, cross 0, size 8, not {stated}")


@dataclass
class ClipFaces:
    """A clip of one person."""

    key: str
    source: str  # hash of the recording: references from elsewhere are of another one
    split: str
    crops: NDArray[np.uint8]  # [P, size, size, 3]
    embedding: Array  # [D] mean over the frames, of length 1
    identity: int = -1
    cross: list[tuple[int, int]] = field(default_factory=list)  # (clip, crop) of references from elsewhere


def looked_at(frames: NDArray[np.uint8], frame_rate: float, rate: float) -> NDArray[np.uint8]:
    """The frames of a clip [T, H, W, 3] nearest to the times of `rate`; the middle one of a short clip."""
    count = max(1, int(len(frames) / max(frame_rate, 1e-6) * rate + 1e-6))
    places = (np.arange(count) + 0.5) * len(frames) / count
    return frames[places.astype(int)]


def clip_faces(
    key: str, record: dict[str, Any], frames: NDArray[np.uint8], finder: FaceFinder, rules: PairRules
) -> ClipFaces:
    """The references that a clip gives; UnfitClipError where it does not show one person throughout."""
    frames = looked_at(frames, float(record.get("fps") or 0), rules.rate)
    found = finder.find(frames)
    _check_counts(found)
    faces = [faces[0] for faces in found]
    if small := [face.size for face in faces if face.size < finder.smallest]:
        raise UnfitClipError("tiny", f"a face of {small[0]} pixels, {finder.smallest} are needed")
    vectors = np.stack([face.embedding for face in faces])
    if len(vectors) > 1:
        least = float((vectors[1:] * vectors[:-1]).sum(axis=1).min())
        if least < finder.neighbors:
            raise UnfitClipError(
                "unlike", f"neighboring frames are {least:.2f} alike, {finder.neighbors:.2f} is asked"
            )
    return ClipFaces(
        key,
        str(record.get("source_sha256") or key),
        str(record.get("split") or "train"),
        _crops(frames, faces, rules),
        unit(vectors.mean(axis=0)),
    )


def _check_counts(found: Sequence[list[Face]]) -> None:
    without, several = sum(not faces for faces in found), sum(len(faces) > 1 for faces in found)
    if without:
        raise UnfitClipError("no face", f"{without} of {len(found)} frames show no face")
    if several:
        raise UnfitClipError("several faces", f"{several} of {len(found)} frames show several faces")


def _crops(frames: NDArray[np.uint8], faces: Sequence[Face], rules: PairRules) -> NDArray[np.uint8]:
    places = np.linspace(0, len(frames) - 1, min(len(frames), rules.paired)).round().astype(int)
    return np.stack([cropped(frames[place], faces[place], rules.size) for place in places])


def unit(vector: Array) -> Array:
    """A vector at length 1."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)


def find_identities(clips: Sequence[ClipFaces], same: float) -> int:
    """Number the people of the clips, in place, and return how many there are.

    Leaders: a clip joins the person whose mean embedding is nearest, if `same` or nearer, else it is a new person. The
    order of the clips does not matter much, and a second pass over them mends what the first had wrong.
    """
    sums: list[Array] = []
    for second in (False, True):
        for clip in clips:
            if second:
                sums[clip.identity] = sums[clip.identity] - clip.embedding
            alike = _alike(sums, clip.embedding)
            best = int(alike.argmax()) if len(alike) else -1
            if best < 0 or alike[best] < same:
                best = len(sums)
                sums.append(np.zeros_like(clip.embedding))
            sums[best] = sums[best] + clip.embedding
            clip.identity = best
    numbers = {old: new for new, old in enumerate(dict.fromkeys(clip.identity for clip in clips))}
    for clip in clips:
        clip.identity = numbers[clip.identity]
    return len(numbers)


def _alike(sums: Sequence[Array], embedding: Array) -> Array:
    """Cosine [K] of an embedding with the mean of each person."""
    if not sums:
        return np.zeros(0, dtype=np.float32)
    means = np.stack(sums)
    return means @ embedding / np.maximum(np.linalg.norm(means, axis=1), 1e-9)


def pair_across(clips: Sequence[ClipFaces], rules: PairRules) -> None:
    """Give each clip up to `rules.cross` crops of the same person from other recordings of its split, in place."""
    rng = np.random.default_rng(rules.seed)
    people: dict[tuple[str, int], list[int]] = {}
    for number, clip in enumerate(clips):
        people.setdefault((clip.split, clip.identity), []).append(number)
    for clip in clips:
        others = [n for n in people[clip.split, clip.identity] if clips[n].source != clip.source]
        picked = rng.permutation(len(others))[: rules.cross]
        clip.cross = [(others[n], int(rng.integers(len(clips[others[n]].crops)))) for n in picked]
