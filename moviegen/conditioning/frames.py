"""Frames that are given: a first picture, any other, or the end of a video to go on from. One conditioner for all.

On the channels of each token stand the clean latent of its frame, where one is given, and a mask with a channel for
each pixel frame that the latent frame covers. A lone picture is coded as a one-frame video; a mask that is all ones
says that the latent is that of its whole stretch of video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moviegen.backbone.patchify import patchify
from moviegen.conditioning.base import Conditioner
from moviegen.fields import Field, decode_array, decode_latent, decode_record, same_shapes
from moviegen.rng import SampleRng
from moviegen.types import Grid, Movable

KINDS = (
    "first",
    "any",
    "extend",
)  # what training gives: the first frame, one of the coded ones, the first latents


@dataclass(frozen=True)
class Given(Movable):
    """What is known of new clips."""

    values: Tensor  # [B, C, T, H, W] clean latents, zero where nothing is given
    mask: Tensor  # [B, R, T] bool, True for a given pixel frame; a latent frame covers R of them

    @classmethod
    def nothing(cls, count: int, channels: int, grid: Grid, frames_per_latent: int) -> Given:
        """No frame of `count` clips whose latents are of the size `grid`."""
        size = (grid.frames, grid.height, grid.width)
        mask = torch.zeros(count, frames_per_latent, grid.frames, dtype=torch.bool)
        return cls(torch.zeros(count, channels, *size), mask)

    def with_picture(self, index: int, place: int, latent: Tensor) -> Given:
        """Also frame number `place` of clip `index`, coded alone [C, H, W].

        Raises ValueError for a place outside the clip, or in a latent frame that is taken: it has room for one.
        """
        rows, frames = self.mask.shape[1:]
        if not 0 <= place < rows * frames:
            raise ValueError(f"frame {place} is outside a clip of {rows * frames} frames")
        row, frame = place % rows, place // rows
        if self.mask[index, :, frame].any():
            span = f"{frame * rows} to {frame * rows + rows - 1}"
            raise ValueError(
                f"frame {place}: one of the frames {span} is given already, which share a latent"
            )
        values, mask = self.values.clone(), self.mask.clone()
        values[index, :, frame], mask[index, row, frame] = latent.to(values), True
        return Given(values, mask)

    def with_latents(self, index: int, latents: Tensor) -> Given:
        """Also the first latent frames of clip `index`, [C, k, H, W] with k < T: it goes on from there."""
        count = latents.shape[1]
        if not 0 < count < self.values.shape[2]:
            raise ValueError(
                f"{count} latent frames are given to a clip of {self.values.shape[2]}; none would be new"
            )
        values, mask = self.values.clone(), self.mask.clone()
        values[index, :, :count], mask[index, :, :count] = latents.to(values), True
        return Given(values, mask)


@dataclass(frozen=True)
class FrameCodes(Movable):
    """What training samples offer to be given."""

    alone: Tensor  # [B, F, C, H, W] latents of single frames, each coded as a one-frame video
    places: Tensor  # [B, F] int64: which pixel frames they are
    clip: Tensor  # [B, C, T, H, W] latent of the whole clip


def decode_frames(alone: bytes, record: bytes, latent: bytes) -> tuple[np.ndarray, list[int], np.ndarray]:
    """What `moviegen encode frames=[...]` wrote of a sample: latents [F, C, H, W], their places, the clip's latent."""
    values, places = decode_array(alone), decode_record(record).get("coded_frames")
    if values.ndim != 4 or not isinstance(places, list) or len(places) != len(values):
        raise ValueError(
            f"frames are [F, C, H, W] with F coded_frames, got {list(values.shape)} and {places!r}"
        )
    return values, places, decode_latent(latent, record)[0]


def collate_frames(items: list[tuple[np.ndarray, list[int], np.ndarray]]) -> FrameCodes:
    """Samples with as many coded frames, float32."""
    same_shapes([alone.shape for alone, _, _ in items], "coded frames")
    same_shapes([clip.shape for _, _, clip in items], "latents")
    alone, clip = (torch.from_numpy(np.stack([item[i] for item in items])).float() for i in (0, 2))
    return FrameCodes(alone, torch.tensor([places for _, places, _ in items]), clip)


FRAMES = Field("frames.npy", decode_frames, collate_frames, also=("json", "latent.npy"))


class GivenFrames(Conditioner):
    """Given frames on the channels of the input (paper 5 for the concatenation; the mask is ours).

    In training each sample is given something by `kinds`, a weight for each: its first frame, any one of its coded
    frames, or 1 to T - 1 latent frames of its beginning (nothing where T is 1). Held-out losses are those with the
    first frame; where training never gives that and it was not coded, with the first of the coded ones.

    Args:
        dim: model width; not used, what is joined to the input has the width of a token.
        latent_channels: of the codec.
        frames_per_latent: pixel frames that a latent frame covers, the codec's temporal factor.
        patch: the backbone's.
    """

    port = "concat"
    field = FRAMES

    def __init__(
        self,
        dim: int,  # noqa: ARG002
        latent_channels: int = 16,
        frames_per_latent: int = 8,
        patch: tuple[int, int, int] = (1, 2, 2),
        kinds: Mapping[str, float] | None = None,
        drop_prob: float = 0.1,
    ):
        rows, (pt, ph, pw) = frames_per_latent, patch
        super().__init__(width=(latent_channels + rows) * pt * ph * pw, drop_prob=drop_prob)
        assert self.null is not None
        self.null.requires_grad_(False)  # the mask says already that nothing is given
        self.latent_channels, self.frames_per_latent, self.patch = latent_channels, rows, (pt, ph, pw)
        self.kinds = dict(kinds or {"first": 1.0})
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(
                f"no way of giving frames is called {unknown[0]!r}; there are {', '.join(KINDS)}"
            )
        if min(self.kinds.values()) < 0 or sum(self.kinds.values()) <= 0:
            raise ValueError(f"kinds must have weights from 0, not all of them 0, got {self.kinds}")

    def empty(self, count: int, latent_grid: Grid) -> Given:
        return Given.nothing(count, self.latent_channels, latent_grid, self.frames_per_latent)

    def vary(self, inputs: FrameCodes, rng: SampleRng) -> Given:
        kind, which = rng.rand(), rng.rand()  # [B] each
        names, weights = zip(*self.kinds.items(), strict=True)
        bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        chosen = torch.searchsorted(bounds / bounds[-1], kind.double(), right=True).clamp(max=len(names) - 1)
        return self._given(inputs, [names[i] for i in chosen.tolist()], which.tolist())

    def _given(self, inputs: FrameCodes, kinds: list[str], which: list[float]) -> Given:
        """Give each sample something; `which` in [0, 1) says which of the possible things."""
        grid = Grid(*inputs.clip.shape[2:])
        given = self.empty(len(kinds), grid).to(inputs.clip.device)
        for index, (kind, part) in enumerate(zip(kinds, which, strict=True)):
            places = inputs.places[index].tolist()
            if kind == "extend" and grid.frames == 1:
                continue  # a still, of which nothing would be new
            if kind == "extend":
                count = 1 + int(part * (grid.frames - 1))
                given = given.with_latents(index, inputs.clip[index, :, :count])
                continue
            if kind == "first" and 0 not in places:
                raise ValueError(
                    f"the first frame was not coded, only frames {places}: moviegen encode frames=[0]"
                )
            chosen = places.index(0) if kind == "first" else int(part * len(places))
            given = given.with_picture(index, places[chosen], inputs.alone[index, chosen])
        return given

    def forward(self, inputs: Any, grid: Grid) -> Tensor:
        """Channels [B, S, (C + R) * patch] of `Given`, or of `FrameCodes` as held-out losses are given them."""
        if isinstance(inputs, FrameCodes):
            trained = self.kinds.get("first", 0) > 0
            kinds = ["first" if trained or 0 in places else "any" for places in inputs.places.tolist()]
            inputs = self._given(inputs, kinds, [0.0] * len(kinds))
        values, rows = inputs.values, inputs.mask.shape[1]
        if (values.shape[1], rows) != (self.latent_channels, self.frames_per_latent):
            raise ValueError(
                f"given frames have {values.shape[1]} channels and {rows} frames a latent, "
                f"this model takes {self.latent_channels} and {self.frames_per_latent}"
            )
        mask = inputs.mask.to(values.dtype)[..., None, None].expand(-1, -1, -1, *values.shape[3:])
        tokens, own = patchify(torch.cat([values, mask], dim=1), self.patch)
        if own != grid:
            raise ValueError(f"given frames are of {own}, the clip is of {grid}")
        return tokens
