"""Who a character is, as the oracle measures it: an embedding of each frame, from pixels alone."""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.faces import FaceSeen, find_face
from moviegen_data.toyworld.masks import Frames, Mask, filled
from moviegen_data.toyworld.segment import DIRECTIONS, NAMES, Thing, chroma_of, find_things
from moviegen_data.toyworld.words import HAT_COLORS, HEAD_COLORS
from numpy.typing import NDArray

DIM = len(HEAD_COLORS) + len(HAT_COLORS) + 2  # numbers of an embedding
SPREAD = 0.03  # of the cosine between colors: those of an orange and a yellow head are 0.07 apart
BETWEEN, WIDTH = 0.62, 0.08  # upper half of a hat in terms of its lower: a cone's is 1/3, a box's 1


@dataclass(frozen=True)
class CharacterSeen:
    """A character through a clip; nothing is said of frames in which head or hat are not seen."""

    present: NDArray[np.bool_]  # [T]
    embeddings: NDArray[np.float32]  # [T, DIM] of length 1, zero where it is not seen
    masks: Mask  # [T, H, W] head, hat and features
    character: int  # the oracle's own reading of the whole clip
    poses: tuple[str, ...]  # one a frame
    expressions: tuple[str, ...]


def find_character(frames: NDArray[np.uint8]) -> CharacterSeen | None:
    """The character in frames uint8 [T, H, W, 3], or None; a single picture counts as a clip that stands still."""
    clip = np.asarray(frames, dtype=np.float32)
    clip = np.repeat(clip, 2, axis=0) if len(clip) == 1 else clip
    if clip.std() < 2:
        return None
    face = find_face(clip, find_things(clip))
    if face is None:
        return None
    chroma = chroma_of(clip)
    embeddings = np.stack([_embedding(face, chroma, index) for index in range(len(clip))])[: len(frames)]
    masks = np.stack([filled(mask) for mask in face.head.masks | face.hat.masks])[: len(frames)]
    count = len(frames)
    return CharacterSeen(
        (embeddings != 0).max(axis=1),
        embeddings,
        masks,
        face.character,
        face.poses[:count],
        face.expressions[:count],
    )


def _embedding(face: FaceSeen, chroma: Frames, index: int) -> NDArray[np.float32]:
    """Three blocks of length 1: how like each color the head is, the hat is, and how like each kind of hat."""
    if not (face.head.present[index] and face.hat.present[index]):
        return np.zeros(DIM, dtype=np.float32)
    box = 1 / (1 + np.exp(-(_top_share(face.hat.alphas[index]) - BETWEEN) / WIDTH))
    blocks = [
        _likeness(face.head, HEAD_COLORS, chroma, index),
        _likeness(face.hat, HAT_COLORS, chroma, index),
        np.array([1 - box, box]),
    ]
    return (np.concatenate([block / np.linalg.norm(block) for block in blocks]) / np.sqrt(3)).astype(
        np.float32
    )


def _likeness(thing: Thing, names: tuple[str, ...], chroma: Frames, index: int) -> NDArray[np.float64]:
    """Shares [K] by which a thing's color in one frame is like each of the named ones."""
    weight = thing.alphas[index][..., None]
    mean = (chroma[index] * weight).sum(axis=(0, 1)) / weight.sum()
    cosines = (
        DIRECTIONS[[NAMES.index(name) for name in names]] @ mean / max(float(np.linalg.norm(mean)), 1e-6)
    )
    return np.exp((cosines - cosines.max()) / SPREAD)


def _top_share(alphas: Frames) -> float:
    """Area of a hat's upper half in terms of its lower half, from the share [H, W] of each pixel."""
    rows = np.flatnonzero((alphas > 0.5).any(axis=1))
    middle = (rows[0] + rows[-1] + 1) / 2
    upper = np.clip(middle - np.arange(len(alphas)), 0, 1)[:, None]
    return float((alphas * upper).sum() / max((alphas * (1 - upper)).sum(), 1e-6))
