"""What a picture must be to serve as somebody's reference: sharp, photographed, opaque."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moviegen.faces.base import Face, FaceError, FaceFinder, one_face

SIDE = 96  # pixels, at which sharpness and paint are measured, whatever the size of the face
LEAST_SHARPNESS = 5.0  # grey levels: root mean square of the Laplacian
MOST_FLAT = 0.35  # share of pixels that are equal to their neighbors: of drawings that were never compressed
# Compression ends that, and a wider tolerance is no help: of posterized portraits as JPEG of quality 90 .24 to .43 of
# the pixels are within two levels of their neighbors, of photos .01 to .58, most where they are dark or soft. But paint
# has hard edges, and flat photos have not. Share times edges (`paint`), of two people (astronaut, carphone):
#   photos, as JPEG of 95 to 15, blurred, dark, bright, before white    at most 4.8; sharpened by 150 %  at most 5.8
#   portraits of 12 colors   PNG 7.1 to 14.7   JPEG 90  6.3 to 8.7   JPEG 75  5.0 to 8.0
#   of 3 bits a channel      PNG 6.6 to 9.9    JPEG 90  4.3 to 7.0   JPEG 75  3.1 to 6.5
# The bound refuses none of these photos; so some drawings of many shades, and most compressed below 75, still pass.
MOST_PAINT = 6.0
NEAR = 2  # grey levels
CLIPPED = 8  # grey levels from black and white within which flatness tells nothing: photos are cut off there


def check_reference(picture: NDArray[np.uint8], finder: FaceFinder) -> Face:
    """The one face of a picture [H, W, 3]; FaceError where it has none, several, or one that is of no use."""
    face = one_face(finder.find(picture[None])[0], finder.smallest)
    if not finder.synthetic:
        _check_photograph(picture, face, finder.drawings)
    return face


def check_one_person(embeddings: Mapping[str, NDArray[np.float32]], same: float) -> None:
    """FaceError that names the two files whose faces are the least alike, where their cosine is below `same`.

    Args:
        embeddings: file -> [D] of length 1, of the face in it.
    """
    alike = {pair: float(embeddings[pair[0]] @ embeddings[pair[1]]) for pair in combinations(embeddings, 2)}
    pair = min(alike, key=alike.__getitem__, default=None)
    if pair and alike[pair] < same:
        raise FaceError(
            f"{pair[0]} and {pair[1]} show two people: the cosine of their faces is {alike[pair]:.3f}, of one person's "
            f"at least {same:g} (faces.same); give pictures of one person",
            "unlike",
        )


def _check_photograph(picture: NDArray[np.uint8], face: Face, drawings: bool) -> None:
    left, top, right, bottom = face.box
    grey = np.asarray(Image.fromarray(picture[top:bottom, left:right]).convert("L"))
    drawn = flatness(grey) > MOST_FLAT or paint(grey, face.mask[top:bottom, left:right]) > MOST_PAINT
    if drawn and not drawings:
        advice = "give a photograph (faces.drawings=true if it is one)"
        raise FaceError(f"this is a drawing or a rendering, not a photograph; {advice}", "drawing")
    if sharpness(grey) < LEAST_SHARPNESS:
        raise FaceError("the face is blurred; give a sharper picture", "blurred")


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Root mean square of the Laplacian of a face [H, W] at a side of 96 pixels."""
    scale = SIDE / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.float32)
    return float(np.sqrt(np.square(_laplacian(small)).mean()))


def _laplacian(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of grey levels [H, W] inside their border: [H - 2, W - 2]."""
    return small[:-2, 1:-1] + small[2:, 1:-1] + small[1:-1, :-2] + small[1:-1, 2:] - 4 * small[1:-1, 1:-1]


def paint(grey: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """How much a face [H, W] is flat areas with hard edges, as paint is, also after compression.

    Inside its mask [H, W], at a side of 96 pixels or its own: the share of pixels within two levels of their right and
    lower neighbor, times the root mean square of the Laplacian in grey levels.
    """
    scale = min(1.0, SIDE / max(grey.shape))
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    box = Image.Resampling.BOX
    small = np.asarray(Image.fromarray(grey).resize(size, box), dtype=np.float32)
    inside = np.asarray(Image.fromarray(mask).convert("L").resize(size, box)) == 255
    inside &= (small > CLIPPED) & (small < 255 - CLIPPED)
    whole = inside[1:-1, 1:-1] & inside[2:, 1:-1] & inside[1:-1, 2:] & inside[:-2, 1:-1] & inside[1:-1, :-2]
    if not whole.any():
        return 0.0
    middle = small[1:-1, 1:-1]
    near = (abs(middle - small[2:, 1:-1]) <= NEAR) & (abs(middle - small[1:-1, 2:]) <= NEAR)
    return float(near[whole].mean() * np.sqrt(np.square(_laplacian(small)[whole]).mean()))


def flatness(grey: NDArray[np.uint8]) -> float:
    """Share of the pixels of a face [H, W] that equal both their right and their lower neighbor: flat paint."""
    middle = grey[:-1, :-1]
    return float(((middle == grey[1:, :-1]) & (middle == grey[:-1, 1:])).mean())
