"""The seam behind which faces are found and told apart, and the crop of a face with its background masked out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY = 127  # of what is masked out
MARGIN = 0.08  # of the crop's side, left free around the face


class FaceError(ValueError):
    """A picture cannot serve as the reference of a person; one line that says why.

    `rule` is a short word for tables: no face, two faces, tiny, blurred, drawing, transparent, 16 bit, unlike.
    """

    def __init__(self, reason: str, rule: str):
        super().__init__(reason)
        self.rule = rule


@dataclass(frozen=True)
class Face:
    """One face in one picture. The embedding is biometric data of a person, unless the finder is synthetic."""

    mask: NDArray[np.bool_]  # [H, W], of the whole picture
    embedding: NDArray[np.float32]  # [D] of length 1
    traits: tuple[
        str, ...
    ] = ()  # pose, expression where the finder names them; empty where it cannot read them
    points: NDArray[np.float32] | None = (
        None  # [5, 2] corners of the eyes, nose, in pixels, where it measures them
    )

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of the mask in pixels; right and bottom are one past it."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def size(self) -> int:
        """The shorter side of the box in pixels."""
        left, top, right, bottom = self.box
        return min(right - left, bottom - top)


def variation(reference: Face, face: Face) -> float | None:
    """How far the pose and expression of a face are from those of its reference; None where the finder tells neither.

    Of named traits the share that differ; of landmarks the root mean square distance in distances between the eyes,
    after size, place and tilt of the head are taken out.
    """
    if reference.traits and face.traits:
        return float(
            np.mean([one != other for one, other in zip(reference.traits, face.traits, strict=True)])
        )
    if reference.points is None or face.points is None:
        return None
    difference = _upright(reference.points) - _upright(face.points)
    return float(np.sqrt(np.square(difference).sum(axis=1).mean()))


def _upright(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Landmarks [5, 2] with the middle between the eyes at 0 and the eyes level and at distance 1."""
    one, other = points[:2].mean(axis=0), points[2:4].mean(axis=0)
    across = one - other
    scale = max(float(across @ across), 1e-6)
    turn = np.array([[across[0], -across[1]], [across[1], across[0]]]) / scale
    return ((points - (one + other) / 2) @ turn).astype(np.float32)


class FaceFinder(Protocol):
    """Finds faces and tells them apart."""

    synthetic: bool  # it finds drawn characters of the toy world only, for whom no consent is needed
    neighbors: float  # least cosine of one person's embeddings in neighboring frames
    same: float  # cosine from which on two faces count as one person's
    smallest: int  # pixels; smaller faces are too small to tell
    drawings: bool  # also references that look drawn or rendered are taken

    def find(self, frames: NDArray[np.uint8]) -> list[list[Face]]:
        """The faces in each of the frames [T, H, W, 3]."""
        ...


def one_face(faces: list[Face], smallest: int) -> Face:
    """The only face of a picture; FaceError where there is none, more than one, or a tiny one."""
    if not faces:
        raise FaceError("no face was found; give a picture in which one face looks at the camera", "no face")
    if len(faces) > 1:
        raise FaceError(f"{len(faces)} faces were found; give a picture of one person alone", "two faces")
    if faces[0].size < smallest:
        raise FaceError(
            f"the face is {faces[0].size} pixels wide, at least {smallest} are needed; give a larger picture",
            "tiny",
        )
    return faces[0]


def cropped(frame: NDArray[np.uint8], face: Face, size: int) -> NDArray[np.uint8]:
    """A square crop [size, size, 3] around a face in a frame [H, W, 3], grey where the mask is off (paper 4.1)."""
    left, top, right, bottom = face.box
    side = round(max(right - left, bottom - top) / (1 - 2 * MARGIN))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    square = np.full((side, side, 3), GREY, dtype=np.uint8)
    height, width = frame.shape[:2]
    inside = (slice(max(y, 0), min(y + side, height)), slice(max(x, 0), min(x + side, width)))
    there = tuple(
        slice(part.start - start, part.stop - start) for part, start in zip(inside, (y, x), strict=True)
    )
    square[there] = np.where(face.mask[inside][..., None], frame[inside], GREY)
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))
