"""scipy's image filters with the types that the oracle's other files count on."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Frames = NDArray[np.float32]
Mask = NDArray[np.bool_]

CROSS: Mask = np.asarray(ndimage.generate_binary_structure(2, 1), dtype=bool)[None]
SQUARE: Mask = np.ones((1, 3, 3), dtype=bool)


def dilated(mask: Mask, iterations: int = 1) -> Mask:
    """Masks [T, H, W], each grown by so many pixels in every direction."""
    return np.asarray(ndimage.binary_dilation(mask, SQUARE, iterations=iterations), dtype=bool)


def eroded(mask: Mask, structure: Mask = CROSS) -> Mask:
    """Masks [T, H, W] without the pixels at their edges."""
    return np.asarray(ndimage.binary_erosion(mask, structure), dtype=bool)


def opened(mask: Mask) -> Mask:
    """Masks [T, H, W] without what is thinner than three pixels."""
    return np.asarray(ndimage.binary_opening(mask, SQUARE), dtype=bool)


def blurred(image: Frames, sigma: float | tuple[float, ...]) -> Frames:
    """An array smoothed by a Gaussian of `sigma` cells (one for each axis, or one for all)."""
    return np.asarray(ndimage.gaussian_filter(image, sigma), dtype=np.float32)


def labelled(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """The connected blobs of one mask [H, W], numbered from 1, and how many there are."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    num = ndimage.label(mask, output=labels)
    return labels, int(num)  # type: ignore[arg-type]


def filled(mask: Mask) -> Mask:
    """A mask [H, W] without gaps in its rows: heads and hats have no dents."""
    ahead = np.logical_or.accumulate(mask, axis=1)
    behind = np.logical_or.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    return ahead & behind
