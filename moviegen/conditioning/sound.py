"""Sound that is already there: clean latents on the channels with a mask, to go on from or to fill in (paper 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.conditioning.base import Conditioner
from moviegen.fields import LATENT
from moviegen.rng import SampleRng
from moviegen.types import Grid, Latent, Movable

KINDS = (
    "before",
    "after",
    "around",
)  # where training lets sound stand: extension, its mirror image, infilling


@dataclass(frozen=True)
class KnownSound(Movable):
    """What is known of new sounds."""

    values: Tensor  # [B, C, L, 1, 1] clean latents, zero where nothing is known
    mask: Tensor  # [B, L] bool, True where something is known

    @classmethod
    def nothing(cls, count: int, channels: int, frames: int) -> KnownSound:
        values = torch.zeros(count, channels, frames, 1, 1)
        return cls(values, torch.zeros(count, frames, dtype=torch.bool))

    @classmethod
    def where(cls, values: Tensor, mask: Tensor) -> KnownSound:
        """Latents [B, C, L, 1, 1] where mask [B, L] is True."""
        return cls(values * mask[:, None, :, None, None].to(values), mask)


class AudioContext(Conditioner):
    """Latents of known sound and a mask, joined to each token on channels (paper 6: masked audio context).

    In training a sample has no context with `all_masked`, else some share up to `most` of its frames is left, in the
    places that `kinds` names.

    Args:
        dim: model width; not used, what is joined has the width of a token.
        latent_channels: of the codec.
        all_masked: 0.5 in the paper.
        most: 0.25 in the paper, which masks 75 to 100 % of the frames.
        kinds: a weight for each of `before`, `after` and `around`; unknown in the paper.
    """

    port = "concat"
    field = LATENT

    def __init__(
        self,
        dim: int,  # noqa: ARG002
        latent_channels: int = 128,
        all_masked: float = 0.5,
        most: float = 0.25,
        kinds: Mapping[str, float] | None = None,
        drop_prob: float = 0.0,
    ):
        super().__init__(width=latent_channels + 1, drop_prob=drop_prob)
        assert self.null is not None
        self.null.requires_grad_(False)  # the mask says already that nothing is known
        self.latent_channels, self.all_masked, self.most = latent_channels, all_masked, most
        self.kinds = dict(kinds or {"before": 0.5, "after": 0.0, "around": 0.5})
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"sound stands {', '.join(KINDS)} what is new, not {unknown[0]!r}")
        if not (0 <= all_masked <= 1 and 0 <= most < 1):
            raise ValueError(f"all_masked must be from 0 to 1 and most below 1, got {all_masked} and {most}")

    def empty(self, count: int, latent_grid: Grid) -> KnownSound:
        return KnownSound.nothing(count, self.latent_channels, latent_grid.frames)

    def vary(self, inputs: Latent, rng: SampleRng) -> KnownSound:
        frames = inputs.values.shape[2]
        draws = rng.rand(4).tolist()
        mask = torch.zeros(len(draws), frames, dtype=torch.bool, device=inputs.values.device)
        for row, (whether, how_much, kind, part) in zip(mask, draws, strict=True):
            if whether < self.all_masked:
                continue
            count = int(how_much * (int(self.most * frames) + 1))
            before = {"before": count, "after": 0, "around": int(part * (count + 1))}[self._kind(kind)]
            row[:before] = True
            row[frames - (count - before) :] = True
        return KnownSound.where(inputs.values, mask)

    def _kind(self, draw: float) -> str:
        total, names = 0.0, list(self.kinds)
        for name in names:
            total += self.kinds[name] / sum(self.kinds.values())
            if draw < total:
                return name
        return names[-1]

    def window(self, inputs: Latent | KnownSound, start: int, stop: int) -> Any:
        if isinstance(inputs, Latent):
            return Latent(inputs.values[:, :, start:stop], inputs.frame_rate)
        return KnownSound(inputs.values[:, :, start:stop], inputs.mask[:, start:stop])

    def forward(self, inputs: Any, grid: Grid) -> Tensor:
        """Channels [B, S, C + 1] of `KnownSound`; of the latents themselves, as in held-out losses, nothing is told."""
        if isinstance(inputs, Latent):
            inputs = KnownSound.nothing(*inputs.values.shape[:3]).to(inputs.values.device)
        values, mask = inputs.values, inputs.mask
        if values.shape[1:3] != (self.latent_channels, grid.frames):
            raise ValueError(
                f"known sound has {values.shape[1]} channels and {values.shape[2]} frames, this model takes "
                f"{self.latent_channels} and the new sound has {grid.frames}"
            )
        return torch.cat([values[..., 0, 0], mask[:, None].to(values)], dim=1).transpose(1, 2)
