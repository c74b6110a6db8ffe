"""The oracle's view of what lies behind: the kind of background, and the camera's motion by registering it.

Registration is one least-squares step a pair of frames: the change of brightness that a shift and a scale
about the frame's center explain. Only textures can show a camera's motion; other backgrounds count as static.
"""

from dataclasses import dataclass

import numpy as np
from moviegen_data.toyworld.masks import SQUARE, Frames, Mask, blurred, dilated, eroded
from moviegen_data.toyworld.segment import Thing
from numpy.typing import NDArray

Array = NDArray[np.float64]
MIN_TEXTURE = 4.6  # grey levels, standard deviation about a plane
MIN_SLOPE = 32.0  # grey levels across the frame
MIN_SMOOTHNESS = 0.55  # correlation of a texture with itself two pixels on; noise has none
MIN_PAN = 5.0  # world units over the clip
MIN_ZOOM = 0.1  # logarithm of the factor over the clip


@dataclass(frozen=True)
class CameraTrack:
    """The camera's motion as measured."""

    kind: str
    offsets: Array  # [T, 2] pixels, of the view since the first frame
    zooms: Array  # [T], least 1

    def to_world(self, points: Array, center: Array) -> Array:
        """Frame points [T, 2] as they would lie under a camera that keeps still."""
        return (points - center) / self.zooms[:, None] + center + self.offsets


def still_camera(num_frames: int, kind: str = "static") -> CameraTrack:
    return CameraTrack(kind, np.zeros((num_frames, 2)), np.ones(num_frames))


def free_pixels(things: list[Thing], shape: tuple[int, int, int]) -> Mask:
    """Pixels [T, H, W] that show the background, clear of every thing's edge."""
    taken = np.zeros(shape, dtype=bool)
    for thing in things:
        taken |= thing.alphas > 0
    return ~dilated(taken, 2)


def smooth_grey(frames: Frames, free: Mask, sigma: float = 1.0) -> Frames:
    """Brightness [T, H, W], smoothed over background pixels only, so that things do not bleed into it."""
    grey = frames.mean(axis=-1)
    weight = free.astype(np.float32)
    scale = (0, sigma, sigma)
    smooth = blurred(grey * weight, scale) / np.maximum(blurred(weight, scale), 1e-3)
    return smooth.astype(np.float32)


def background_kind(grey: Frames, free: Mask, clip: Frames) -> str:
    """Plain, gradient or texture from smoothed brightness [T, H, W], or "none" for noise."""
    size_y, size_x = grey.shape[1:]
    y, x = np.mgrid[:size_y, :size_x]
    x, y = (x + 0.5) / size_x - 0.5, (y + 0.5) / size_y - 0.5
    slopes, residuals, smoothness = [], [], []
    for image, mask, raw in zip(grey, free, clip.mean(axis=-1), strict=True):
        if mask.sum() < 0.2 * mask.size:
            continue
        basis = np.stack([np.ones(mask.sum()), x[mask], y[mask]], axis=1)
        fit = np.linalg.lstsq(basis, image[mask], rcond=None)[0]
        rest = np.where(mask, raw - fit[0] - fit[1] * x - fit[2] * y, 0)
        slopes.append(np.hypot(fit[1], fit[2]))
        residuals.append((image[mask] - basis @ fit).std())
        both = mask[:, 2:] & mask[:, :-2]
        smoothness.append((rest[:, 2:] * rest[:, :-2])[both].mean() / max(rest[mask].var(), 1e-6))
    if not slopes:
        return "none"
    if np.median(residuals) >= MIN_TEXTURE:
        return "texture" if np.median(smoothness) >= MIN_SMOOTHNESS else "none"
    return "gradient" if np.median(slopes) >= MIN_SLOPE else "plain"


def register(grey: Frames, free: Mask) -> tuple[Array, float]:
    """Rates [T-1, 3] between frames (shift x, y in pixels; scale), and the share of change they explain."""
    size_y, size_x = grey.shape[1:]
    x = (np.arange(size_x) + 0.5 - size_x / 2)[None, None, :]
    y = (np.arange(size_y) + 0.5 - size_y / 2)[None, :, None]
    middle = (grey[1:] + grey[:-1]) / 2
    change = (grey[1:] - grey[:-1]).astype(np.float64)
    slope_y, slope_x = np.gradient(middle, axis=(1, 2))
    inside = free[1:] & free[:-1]
    inside &= eroded(inside, SQUARE)
    inside[:, (0, -1)] = inside[:, :, (0, -1)] = False
    basis = np.stack([-slope_x, -slope_y, -(slope_x * x + slope_y * y), np.ones_like(middle)], axis=-1)
    rates, before, after = [], 0.0, 0.0
    for terms, values, mask in zip(basis, change, inside, strict=True):
        a, b = terms[mask].astype(np.float64), values[mask]
        solution = np.linalg.lstsq(a, b, rcond=None)[0] if len(b) > 50 else np.zeros(4)
        rates.append(solution[:3])
        before += float(np.square(b).sum())
        after += float(np.square(b - a @ solution).sum())
    return np.array(rates), 1 - after / max(before, 1e-9)


def measure_camera(grey: Frames, free: Mask, background: str) -> CameraTrack:
    """The camera's motion in front of a background of a known kind."""
    num_frames, _, width = grey.shape
    if background == "none":
        return still_camera(num_frames, "none")
    if background != "texture" or num_frames < 2:
        return still_camera(num_frames)
    rates, explained = register(grey, free)
    shift_x, shift_y, scale = np.median(rates, axis=0)
    pan, tilt, zoom = (
        -shift_x * num_frames * 64 / width,
        -shift_y * num_frames * 64 / width,
        scale * num_frames,
    )
    kinds = []
    if abs(pan) >= MIN_PAN:
        kinds.append("pan right" if pan > 0 else "pan left")
    if abs(zoom) >= MIN_ZOOM:
        kinds.append("zoom in" if zoom > 0 else "zoom out")
    if not kinds and abs(tilt) < MIN_PAN:
        change = float((grey[1:] - grey[:-1])[free[1:] & free[:-1]].std())
        steady = change < 0.5 * float(grey[free].std())
        return still_camera(num_frames, "static" if steady else "none")
    if len(kinds) != 1 or abs(tilt) >= MIN_PAN or explained < 0.3:
        return still_camera(num_frames, "none")
    steps = np.arange(num_frames)
    if kinds[0].startswith("pan"):
        offsets = np.stack([-shift_x * steps, np.zeros(num_frames)], axis=1)
        return CameraTrack(kinds[0], offsets, np.ones(num_frames))
    zooms = np.exp(scale * (steps if scale > 0 else steps - (num_frames - 1)))
    return CameraTrack(kinds[0], np.zeros((num_frames, 2)), zooms)
