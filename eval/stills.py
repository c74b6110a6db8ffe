"""Images out and images in: what a still can be asked for, and how well a clip begins with the image it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_data.toyworld.edit_oracle import STILL_FRAMES
from moviegen_eval.metrics import Psnr
from moviegen_eval.numbers import Figure
from moviegen_eval.stats import bootstrap_mean, derangement
from PIL import Image, ImageOps

from moviegen.media import read_image

SUFFIX = ".png"
OF_STILLS = ("colour", "shape", "size", "background")  # what one picture can show


def is_still(path: Path | str) -> bool:
    """Whether a generated file is a picture and not a clip."""
    return Path(path).suffix.lower() == SUFFIX


def observe_image(image: np.ndarray) -> oracle.Observation:
    """The oracle's observation of a picture, uint8 [H, W, 3]; its motion and camera mean nothing."""
    return oracle.observe(np.repeat(image[None], STILL_FRAMES, axis=0), 1.0)


def still_spec(spec: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What of a clip's spec a picture can fulfill; sizes are not asked for where the camera would zoom."""
    if spec is None:
        return None
    zooms = str(spec.get("camera")).startswith("zoom")
    names = ("color", "shape") if zooms else ("color", "shape", "size")
    sprites = [{name: sprite.get(name) for name in names} for sprite in spec.get("sprites") or []]
    return {"sprites": sprites, "background": spec.get("background")}


def read_given(path: Path, height: int, width: int) -> np.ndarray:
    """The image that a clip was given, uint8 [height, width, 3]: scaled until it covers the clip, and its middle taken.

    So does `moviegen generate`. It may be of another system, so it is decoded in the sandbox. Raises ValueError where
    it cannot be read.
    """
    image = read_image(path)
    if image.shape[:2] == (height, width):
        return image
    return np.array(ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.BILINEAR))


def first_frame_figures(
    prefix: str,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    ceiling: Sequence[float],
    count: int,
    seed: int,
) -> list[Figure]:
    """`<prefix>/first_frame_psnr` over pairs of (given image, first frame), uint8 [H, W, 3] each; floor and ceiling.

    The floor holds every frame against the image of another clip; the ceiling is the score of first frames of ground
    truth through the autoencoder and H.264. Empty without pairs.
    """
    if not pairs:
        return []
    name = f"{prefix}/first_frame_psnr"
    figures = [_mean(name, [frame_psnr(given, frame) for given, frame in pairs], count, seed)]
    if len(pairs) > 1:
        order = derangement(len(pairs), np.random.default_rng(seed))
        others = [(pairs[int(other)][0], frame) for other, (_, frame) in zip(order, pairs, strict=True)]
        alike = [frame_psnr(given, frame) for given, frame in others if given.shape == frame.shape]
        figures += [_mean(f"{name}/floor", alike, count, seed)] if alike else []
    return figures + ([_mean(f"{name}/ceiling", ceiling, count, seed)] if ceiling else [])


def frame_psnr(given: np.ndarray, frame: np.ndarray) -> float:
    """PSNR in dB of one frame against another, uint8 [H, W, 3] both."""
    return Psnr().score(given[None], frame[None])


def _mean(name: str, values: Sequence[float], count: int, seed: int) -> Figure:
    mean = sum(values) / len(values)
    low, high = bootstrap_mean(values, count, seed) or (None, None)
    if low is not None and high is not None:
        low, high = min(low, mean), max(high, mean)
    return Figure(name, mean, low, high, len(values), "dB", True)
