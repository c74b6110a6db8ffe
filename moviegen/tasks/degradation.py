"""What happens to a video before it reaches an upsampler: second-order degradation (Real-ESRGAN), for video.

Each of two rounds may blur, resize, add noise, and compress by JPEG and by H.264. Parameters are drawn once a
clip, so that they do not jump from frame to frame; noise alone is new in every frame. Some clips are only made small,
and some go through an autoencoder instead, since a generator's videos come out of one (paper 3.1.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.media import decode_video, encode_video, through_jpeg
from moviegen.pixels import from_uint8, to_uint8
from moviegen.types import VideoClip

Rng = np.random.Generator
MODES = ("area", "bilinear", "bicubic")
SMALLEST = 8  # pixels of a side


@dataclass(frozen=True)
class Rounds:
    """How strong each round of degradation is: Real-ESRGAN's ranges where it has them (arXiv 2107.10833).

    Args:
        count: rounds, one after another; the strength of each after the first is halved.
        chance: of each step to be taken.
        blur: largest standard deviation, in pixels of the low resolution.
        resize: smallest and largest factor of a round's own resizing.
        noise: largest standard deviation, in levels of 255.
        quality: smallest and largest of JPEG.
        crf: smallest and largest of H.264.
    """

    count: int = 2
    chance: float = 0.5
    blur: float = 1.5
    resize: tuple[float, float] = (0.6, 1.3)
    noise: float = 8.0
    quality: tuple[int, int] = (40, 95)
    crf: tuple[float, float] = (18, 34)


class Degradation:
    """Makes a clip of low resolution, and brings it back to its size by bilinear interpolation.

    Args:
        factors: how many times smaller a clip becomes, each as likely.
        clean: share of clips that are only made small.
        coded: share of clips that go through `codec` once they are small.
        codec: an autoencoder of video.
        rounds: what is done to all others.
    """

    def __init__(
        self,
        factors: tuple[float, ...] = (2.0,),
        clean: float = 0.2,
        coded: float = 0.2,
        codec: Any = None,
        rounds: Rounds = Rounds(),
    ):
        if not factors or min(factors) < 1:
            raise ValueError(f"factors must be at least 1, got {list(factors)}")
        if min(clean, coded) < 0 or clean + coded > 1:
            raise ValueError(f"clean {clean} and coded {coded} must be shares that leave room for others")
        if coded and codec is None:
            raise ValueError(f"coded={coded} needs an autoencoder, degradation.codec")
        self.factors, self.clean, self.coded, self.rounds = tuple(factors), clean, coded, rounds
        self.codec = codec if coded else None

    def __call__(self, frames: Tensor, rng: Rng) -> Tensor:
        """A clip [3, T, H, W] in [-1, 1] as it comes back from low resolution, of the same size."""
        size = frames.shape[2:]
        factor = self.factors[int(rng.integers(len(self.factors)))]
        small = max(SMALLEST, round(size[0] / factor)), max(SMALLEST, round(size[1] / factor))
        kind = rng.random()
        if kind < self.clean:
            low = resized(frames, small, str(rng.choice(MODES)))
        elif kind < self.clean + self.coded:
            low = self._through_codec(resized(frames, small, "area"))
        else:
            low = degraded(frames, small, self.rounds, rng)
        return upsampled(low, (size[0], size[1]))

    def plain(self, frames: Tensor) -> Tensor:
        """As a call, without anything that is drawn: the first factor, averages of pixels."""
        height, width = frames.shape[2:]
        low = resized(frames, (round(height / self.factors[0]), round(width / self.factors[0])), "area")
        return upsampled(low, (height, width))

    @torch.no_grad()
    def _through_codec(self, low: Tensor) -> Tensor:
        assert self.codec is not None
        factor, (height, width) = self.codec.spatial_factor, low.shape[2:]
        padded = F.pad(low[None], (0, -width % factor, 0, -height % factor, 0, 0), mode="replicate")
        clip = VideoClip(padded, torch.zeros(1))
        return self.codec.decode(self.codec.encode(clip), low.shape[1]).frames[0, :, :, :height, :width]


def degraded(frames: Tensor, small: tuple[int, int], rounds: Rounds, rng: Rng) -> Tensor:
    """A clip [3, T, H, W] after all rounds, [3, T, *small]; its order and parameters are drawn."""
    for number in range(rounds.count):
        strength, last = 0.5**number, number == rounds.count - 1
        goal = np.array(small) if last else np.array(small) * rng.uniform(*rounds.resize)
        shrink = frames.shape[2] / goal[0]
        if rng.random() < rounds.chance:
            frames = blurred(frames, strength * rng.uniform(0.1, rounds.blur) * max(1.0, shrink))
        size = int(max(SMALLEST, round(goal[0]))), int(max(SMALLEST, round(goal[1])))
        frames = resized(frames, size, str(rng.choice(MODES)))
        if rng.random() < rounds.chance:
            deviation = strength * rng.uniform(0.5, rounds.noise) / 127.5
            noise = rng.standard_normal(frames.shape, dtype=np.float32)
            frames = (frames + deviation * torch.from_numpy(noise)).clamp(-1, 1)
        codes: list[Callable[[Tensor], Tensor]] = [
            lambda x: as_jpeg(x, int(rng.integers(rounds.quality[0], rounds.quality[1] + 1))),
            lambda x: as_h264(x, float(rng.uniform(*rounds.crf))),
        ]
        for code in rng.permutation(2):
            if rng.random() < rounds.chance:
                frames = codes[code](frames)
    return frames


def resized(frames: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Frames [3, T, H, W] at another size, smoothed where they shrink."""
    if tuple(frames.shape[2:]) == size:
        return frames
    images = frames.transpose(0, 1)
    if mode == "area":
        scaled = F.interpolate(images, size, mode="area")
    else:
        scaled = F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
    return scaled.transpose(0, 1).clamp(-1, 1)


def upsampled(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames [3, T, H, W] by bilinear interpolation, as the upsampler is given them (paper 3.1.5)."""
    images = F.interpolate(frames.transpose(0, 1), size, mode="bilinear", align_corners=False)
    return images.transpose(0, 1)


def blurred(frames: Tensor, deviation: float) -> Tensor:
    """Frames [3, T, H, W] under a Gaussian, along one axis after the other."""
    reach = min(max(1, round(3 * deviation)), min(frames.shape[2:]) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    rows = F.pad(frames, (0, 0, reach, reach), mode="reflect").unfold(2, 2 * reach + 1, 1) @ kernel
    return F.pad(rows, (reach, reach, 0, 0), mode="reflect").unfold(3, 2 * reach + 1, 1) @ kernel


def as_jpeg(frames: Tensor, quality: int) -> Tensor:
    """Frames [3, T, H, W], each through JPEG of one quality."""
    return from_uint8(np.stack([through_jpeg(frame, quality) for frame in to_uint8(frames)]))


def as_h264(frames: Tensor, crf: float, frame_rate: float = 24.0) -> Tensor:
    """Frames [3, T, H, W] through H.264; odd sizes, and those below 32 pixels, are filled up on the way."""
    height, width = frames.shape[2:]
    rest = [max(n + n % 2, 32) - n for n in (height, width)]
    even = F.pad(frames, (0, rest[1], 0, rest[0]), mode="replicate")
    decoded, _ = decode_video(encode_video(to_uint8(even), frame_rate, crf=crf))
    return from_uint8(decoded)[:, :, :height, :width]
