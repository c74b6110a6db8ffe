"""The spatial upsampler: a flow task conditioned on a low-resolution video, made of the clip itself (paper 3.1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moviegen.backbone.transformer import Conditions
from moviegen.codec.base import LatentStats
from moviegen.conditioning.low_resolution import LowResolution
from moviegen.fields import VIDEO, Field
from moviegen.flow.path import PathSample
from moviegen.tasks.degradation import Degradation
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Batch, Grid, Latent, VideoClip

LOW = "low"


class UpsampleTask(FlowTask):
    """Train a backbone on clips whose latents it sees at low resolution, beside other conditions such as text.

    Args:
        degradation: how a clip becomes one of low resolution; not part of the exported model.
        residual: model what the low-resolution latent lacks, in units of its spread, in place of the latent itself.
            Ours: the noise is then no larger than what is not known, and a few steps of a small network are enough.
        stats_steps: steps that the spread is averaged over; then it stays.
        parts: as of FlowTask.

    Raises:
        ValueError: no condition called "low", or one of another kind.
    """

    packs = False

    def __init__(
        self,
        degradation: Degradation | None = None,
        residual: bool = False,
        stats_steps: int = 50,
        **parts: Any,
    ):
        super().__init__(**parts)
        if not isinstance(self.conditioners.named().get(LOW), LowResolution):
            raise ValueError(f"an upsampler needs a condition {LOW!r} of {LowResolution.__name__}")
        self.degradation, self.residual, self.stats_steps = degradation, residual, stats_steps
        self.spread = LatentStats(self.codec.latent_channels) if residual else None

    @property
    def low(self) -> LowResolution:
        return self.conditioners.named()[LOW]

    @property
    def fields(self) -> dict[str, Field]:
        return {name: field for name, field in super().fields.items() if name != LOW} | {"media": VIDEO}

    @property
    def training_parts(self) -> tuple[str, ...]:
        return (*super().training_parts, "degradation")

    def adopted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """As of FlowTask; a text-to-image model knows no spread of what is missing."""
        own = (
            {f"spread.{name}": value for name, value in self.spread.state_dict().items()}
            if self.spread
            else {}
        )
        return super().adopted({**own, **weights})

    def sharpened(self, latent: Tensor, low: Tensor) -> Tensor:
        """What the network made of a low-resolution latent, both [B, C, T, H, W], as a latent of the codec."""
        return latent if self.spread is None else low + self.spread.denormalize(latent)

    def conditions(self, inputs: Mapping[str, Any], grid: Grid, drop: Mapping[str, Tensor]) -> Conditions:
        if set(self.conditioners.named()) != {LOW}:
            return super().conditions(inputs, grid, drop)
        concat = self.low(inputs[LOW], grid)
        nothing = concat.new_zeros(
            len(concat), 0, self.backbone.config.dim
        )  # no text: nothing is attended to
        return Conditions(grid, nothing, nothing.new_zeros(nothing.shape[:2], dtype=torch.bool), concat)

    def _noisy(
        self, batch: Batch, step: int, time: float | None, drop: frozenset[str]
    ) -> tuple[PathSample, Conditions]:
        clip = batch.video()
        low = self._low(clip, batch.keys, step if time is None else None)
        latents = self.latents(batch)
        if self.spread is not None:
            missing = latents - low.values
            if self.training and step < self.stats_steps:
                self._fit(missing, step)
            latents = self.spread.normalize(missing)
        media = Latent(latents, clip.frame_rate)
        return super()._noisy(
            replace(batch, media=media, inputs={**batch.inputs, LOW: low}), step, time, drop
        )

    @torch.no_grad()
    def _low(self, clip: VideoClip, keys: Tensor, step: int | None) -> Latent:
        """The latent of clips at low resolution, drawn by (seed, step, sample); without a step nothing is drawn."""
        degradation = self.degradation or Degradation(coded=0.0)
        made = []
        for frames, key in zip(clip.frames.cpu(), keys.tolist(), strict=True):
            if step is None:
                made.append(degradation.plain(frames))
            else:
                made.append(degradation(frames, np.random.default_rng((self.seed, step, key % 2**64, 1))))
        frames = torch.stack(made).to(clip.frames)
        return self.codec.encode(VideoClip(frames, clip.frame_rate))

    @torch.no_grad()
    def _fit(self, missing: Tensor, step: int) -> None:
        """Average the spread of what is missing [B, C, T, H, W] over the first steps."""
        assert self.spread is not None
        power = missing.float().square().transpose(0, 1).flatten(1).mean(1)
        known = self.spread.scale.square() * min(step, 1)
        self.spread.scale.copy_((known + (power - known) / (step + 1)).sqrt().clamp_min(1e-6))
