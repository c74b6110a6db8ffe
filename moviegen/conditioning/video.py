"""What is seen, for sound: features of each picture, resampled to the rate of the latents and added token by token.

Paper 6: frame embeddings of a frozen MetaCLIP, which keeps sound and picture closer together than joining them in time.
The toy model looks at pixels itself, through a small network trained with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.conditioning.base import Conditioner
from moviegen.conditioning.clip import load_clip
from moviegen.fields import VIDEO
from moviegen.rng import SampleRng
from moviegen.types import Grid, Movable, VideoClip

CHANGE = 3.0  # pictures differ little from their neighbors; our choice
CLIP_MEAN, CLIP_STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # CLIP's pixels


@dataclass(frozen=True)
class Seen(Movable):
    """Pictures, or what was made of them, at a frame rate of their own."""

    frames: Tensor  # [B, 3, T, H, W] in [-1, 1], or features [B, T, F]
    frame_rate: Tensor  # [B], frames per second
    offset_seconds: float = 0.0  # when the first one is shown, on the clock of the latents

    @classmethod
    def of(cls, clip: VideoClip | Seen) -> Seen:
        return clip if isinstance(clip, Seen) else cls(clip.frames, clip.frame_rate)

    @property
    def is_features(self) -> bool:
        return self.frames.ndim == 3


class PixelFeatures(nn.Module):
    """A small network on pixels and how they change, trained with the generator: the toy model's eyes.

    It is given each picture and its differences to those before and after, in which motion shows, and pools over
    places: an impact looks alike wherever it happens. A network on the pictures themselves whose last layer told
    places apart learned no impact in the time in which this one finds nine of ten (experiments/audio/README.md).

    Args:
        channels: widths of the layers; all but the last halve the picture.
        size: pictures are scaled to so many pixels a side.
        features: width of what it gives.
    """

    margin = 1  # pictures before and after each that it also looks at

    def __init__(self, channels: tuple[int, ...] = (24, 32, 64), size: int = 32, features: int = 96):
        super().__init__()
        self.size, self.features = size, features
        self.first = nn.Conv2d(9, channels[0], 5, 2, padding=2)
        strides = [2] * (len(channels) - 2) + [1]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, padding=1)
            for (a, b), stride in zip(pairwise(channels), strides, strict=True)
        )
        self.out = nn.Linear(2 * channels[-1], features)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] in [-1, 1] -> [B, T, features]."""
        batch, _, length, height, width = frames.shape
        flat = frames.transpose(1, 2).flatten(0, 1)
        if (height, width) != (self.size, self.size):
            flat = F.interpolate(flat, (self.size, self.size), mode="bilinear", antialias=True)
        now = flat.unflatten(0, (batch, length))
        change = CHANGE * now.diff(dim=1) if length > 1 else torch.zeros_like(now)
        # beyond the ends things go on as they went: a stop would look like an impact
        before, after = torch.cat([change[:, :1], change], dim=1), torch.cat([change, change[:, -1:]], dim=1)
        seen = torch.cat([before[:, :length], now, after[:, :length]], dim=2)
        h = F.silu(self.first(seen.flatten(0, 1)))
        for layer in self.layers:
            h = F.silu(layer(h))
        pooled = torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)
        return self.out(pooled).unflatten(0, (batch, length))


class ClipFrames(nn.Module):
    """Embeddings of single pictures by a frozen open-clip model in a local folder (paper 6: MetaCLIP, 1024 wide).

    Args:
        path: the folder, as `moviegen.conditioning.clip` reads it.
        features: width of its embeddings.
    """

    margin = 0

    def __init__(self, path: str, features: int = 1024):
        super().__init__()
        self.path, self.features = path, features
        self._model: list[Any] = []  # a list, so that the module tree does not own it

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """[B, 3, T, H, W] in [-1, 1] -> [B, T, features]."""
        if not self._model:
            self._model.append(load_clip(Path(self.path), 77).eval().requires_grad_(False))
        visual = self._model[0].visual.to(frames.device)
        if (width := len(self._model[0].text_projection[0])) != self.features:
            raise ValueError(
                f"{self.path}: embeddings are {width} wide, features is {self.features}; set it to {width}"
            )
        flat = frames.transpose(1, 2).flatten(0, 1)
        flat = F.interpolate(flat, visual.image_size, mode="bicubic", antialias=True)
        mean, std = (torch.tensor(one, device=flat.device).view(3, 1, 1) for one in (CLIP_MEAN, CLIP_STD))
        return visual(((flat + 1) / 2 - mean) / std).unflatten(0, (len(frames), -1))


class VideoFeatures(Conditioner):
    """Features of each picture at the rate of the latents, added token by token (paper 6).

    Between two pictures their features are mixed linearly. Beside them stands where between the two a token lies, for a
    slow video tells of that in no other way (ours). A single picture, whose frame rate is 0, counts as no video.

    Args:
        dim: model width.
        extractor: factory of what looks at pictures: `PixelFeatures` or `ClipFrames`.
        latent_rate_hz: tokens per second; 25 in the paper.
        mirror_prob: share of the clips that training mirrors, for sound of one channel knows no left and right (ours).
    """

    port = "aligned"
    field = VIDEO

    def __init__(
        self,
        dim: int,
        extractor: Callable[[], Any],
        latent_rate_hz: float = 25.0,
        mirror_prob: float = 0.0,
        drop_prob: float = 0.1,
    ):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.extractor, self.latent_rate_hz, self.mirror_prob = extractor(), latent_rate_hz, mirror_prob
        self.norm = nn.LayerNorm(self.extractor.features)
        self.proj = nn.Linear(self.extractor.features + 2, dim)

    def vary(self, inputs: VideoClip | Seen, rng: SampleRng) -> VideoClip | Seen:
        seen = Seen.of(inputs)
        if not self.mirror_prob or seen.is_features:
            return inputs
        turned = (rng.rand() < self.mirror_prob).to(seen.frames.device).view(-1, 1, 1, 1, 1)
        return replace(seen, frames=torch.where(turned, seen.frames.flip(-1), seen.frames))

    def window(self, inputs: VideoClip | Seen, start: int, stop: int) -> Seen:
        """The pictures of latent frames start to stop, and those on either side that features of them depend on.

        Raises ValueError for a batch of unlike frame rates, whose windows are unlike in length; single pictures, of
        frame rate 0, may be among them.
        """
        seen = Seen.of(inputs)
        rates = sorted({rate for rate in seen.frame_rate.tolist() if rate > 0})
        if not rates:
            return seen
        if len(rates) > 1:
            shown = ", ".join(f"{rate:g}" for rate in rates)
            raise ValueError(
                f"videos of {shown} frames/s in one batch have no common window; batch them by rate"
            )
        rate, margin = rates[0], 1 + self.extractor.margin
        begin, end = (place / self.latent_rate_hz - seen.offset_seconds for place in (start, stop))
        length = seen.frames.shape[1 if seen.is_features else 2]
        first = min(max(math.floor(begin * rate) - margin, 0), length - 1)
        last = max(min(math.ceil(end * rate) + margin, length), first + 1)
        cut = seen.frames[:, first:last] if seen.is_features else seen.frames[:, :, first:last]
        return replace(seen, frames=cut, offset_seconds=first / rate - begin)

    def features(self, inputs: VideoClip | Seen) -> Seen:
        """What the extractor makes of pictures; `forward` takes it in place of them."""
        seen = Seen.of(inputs)
        return seen if seen.is_features else replace(seen, frames=self.extractor(seen.frames))

    def forward(self, inputs: Any, grid: Grid) -> Tensor:
        seen = self.features(inputs)
        places = torch.arange(grid.frames, device=seen.frames.device)
        times = (places + 0.5) / self.latent_rate_hz - seen.offset_seconds
        place = times * seen.frame_rate.to(times)[:, None]  # [B, L], in pictures
        mixed = _at(self.norm(seen.frames), place)
        turn = 2 * math.pi * place.frac()
        phase = torch.stack([turn.cos(), turn.sin()], dim=-1).to(mixed)
        encoded = self.proj(torch.cat([mixed, phase], dim=-1))
        assert self.null is not None
        still = (seen.frame_rate <= 0).view(-1, 1, 1).to(encoded.device)
        return torch.where(still, self.null.to(encoded.dtype), encoded)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values [B, T, F] at places [B, L] between them, the first and the last beyond the ends: [B, L, F]."""
    places = places.clamp(0, values.shape[1] - 1)
    low = places.floor().long()
    high = (low + 1).clamp(max=values.shape[1] - 1)
    rows = torch.arange(len(values), device=values.device)[:, None]
    share = (places - low)[:, :, None].to(values)
    return values[rows, low] * (1 - share) + values[rows, high] * share
