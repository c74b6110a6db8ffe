"""What a picture must be to serve as somebody's reference: sharp, photographed, opaque."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moviegen.faces.base import Face, FaceError, FaceFinder, one_face

SIDE = 96  # pixels, at which sharpness and flatness are measured, whatever the size of the face
LEAST_SHARPNESS = 5.0  # grey levels: root mean square of the Laplacian
MOST_FLAT = 0.35  # share of pixels that are equal to their neighbors


def check_reference(picture: NDArray[np.uint8], finder: FaceFinder) -> Face:
    """The one face of a picture [H, W, 3]; FaceError where it has none, several, or one that is of no use."""
    face = one_face(finder.find(picture[None])[0], finder.smallest)
    if not finder.synthetic:
        _check_photograph(picture, face)
    return face


def _check_photograph(picture: NDArray[np.uint8], face: Face) -> None:
    left, top, right, bottom = face.box
    grey = np.asarray(Image.fromarray(picture[top:bottom, left:right]).convert("L"))
    if flatness(grey) > MOST_FLAT:
        raise FaceError("this is a drawing or a rendering, not a photograph; give a photograph", "drawing")
    if sharpness(grey) < LEAST_SHARPNESS:
        raise FaceError("the face is blurred; give a sharper picture", "blurred")


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Root mean square of the Laplacian of a face [H, W] at a side of 96 pixels."""
    scale = SIDE / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.float32)
    middle = small[1:-1, 1:-1]
    laplacian = small[:-2, 1:-1] + small[2:, 1:-1] + small[1:-1, :-2] + small[1:-1, 2:] - 4 * middle
    return float(np.sqrt(np.square(laplacian).mean()))


def flatness(grey: NDArray[np.uint8]) -> float:
    """Share of the pixels of a face [H, W] that equal both their right and their lower neighbor: flat paint."""
    middle = grey[:-1, :-1]
    return float(((middle == grey[1:, :-1]) & (middle == grey[:-1, 1:])).mean())
