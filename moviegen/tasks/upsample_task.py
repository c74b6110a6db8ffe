"""The spatial upsampler: a flow task conditioned on a low-resolution video, made of the clip itself (paper 3.1.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.backbone.transformer import Conditions
from moviegen.codec.base import LatentStats
from moviegen.conditioning.base import Ports
from moviegen.conditioning.low_resolution import LowResolution
from moviegen.fields import VIDEO, Field
from moviegen.flow.path import PathSample
from moviegen.tasks.degradation import Degradation
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sharded import everywhere
from moviegen.types import Batch, Grid, Latent, VideoClip

LOW = "low"
RIDGE = 1e-5  # added to the mean square of the inputs of the linear guess


class LinearGuess(nn.Module):
    """The clip's latent as a linear function of the low-resolution one around each token, by least squares."""

    matrix: Tensor

    def __init__(self, low: LowResolution, patch: tuple[int, int, int]):
        super().__init__()
        assert low.null is not None
        self._low, self.patch = (low,), patch  # a tuple, so that it is nobody's part twice
        channels = low.null.numel() // (low.size[0] * low.size[1])
        self.register_buffer("matrix", torch.zeros(low.null.numel(), channels * patch[1] * patch[2]))
        self.spread = LatentStats(channels)

    def tokens(self, padded: Tensor) -> Tensor:
        """What the guess sees of a padded latent, [B, S, C * cells]."""
        return self._low[0].tokens(padded)

    def plain(self, padded: Tensor) -> Tensor:
        """A padded latent without its margin."""
        margin = self._low[0].margin
        return padded[..., margin:-margin, margin:-margin] if margin else padded

    def forward(self, padded: Tensor) -> Tensor:
        """The guess [B, C, T, H, W] for a padded low-resolution latent."""
        plain = self.plain(padded)
        correction = (self.tokens(padded).float() @ self.matrix.float()).to(plain)
        grid = Grid(plain.shape[2], *(n // p for n, p in zip(plain.shape[3:], self.patch[1:], strict=True)))
        return plain + unpatchify(correction, grid, self.patch)


class Fitting(nn.Module):
    """Sums that the guess follows from; in checkpoints, so that a resumed run goes on as it would have."""

    gram: Tensor
    cross: Tensor
    power: Tensor
    count: Tensor

    def __init__(self, guess: LinearGuess):
        super().__init__()
        inputs, outputs = guess.matrix.shape
        self._guess = (guess,)
        self.register_buffer("gram", torch.zeros(inputs, inputs, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(inputs, outputs, dtype=torch.float64))
        self.register_buffer("power", torch.zeros(len(guess.spread.scale), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def add(self, padded: Tensor, drawn: Tensor, latents: Tensor) -> None:
        """Count clips in, and set the guess and the spread of what it lacks anew.

        Args:
            padded: their padded latents when they are only made small, which the guess is for.
            drawn: those at the low resolution that was drawn, which the spread is of.
        """
        guess = self._guess[0]
        missing, _ = patchify(latents.float() - guess.plain(padded).float(), guess.patch)
        x, y = guess.tokens(padded.float()).flatten(0, 1).double(), missing.flatten(0, 1).double()
        self.gram += everywhere(x.T @ x)
        self.cross += everywhere(x.T @ y)
        loaded = self.gram + RIDGE * self.gram.diagonal().mean() * torch.eye(len(self.gram)).to(self.gram)
        guess.matrix.copy_(torch.linalg.solve(loaded, self.cross))
        left = (latents.float() - guess(drawn.float())).square().transpose(0, 1).flatten(1).mean(1)
        self.power += everywhere(left.double())
        self.count += 1
        guess.spread.scale.copy_((self.power / self.count).clamp_min(1e-8).sqrt())


class UpsampleTask(FlowTask):
    """Train a backbone on clips whose latents it sees at low resolution, beside other conditions such as text.

    Args:
        degradation: how a clip becomes one of low resolution; not part of the exported model.
        residual: model what the best linear guess from the low-resolution latent lacks, in units of its spread, in
            place of the latent itself. Ours: the noise is then no larger than what is not known, and a few steps of a
            small network are enough.
        stats_steps: first steps that the guess is fitted to, on clips that are only made small, and the spread of what
            it lacks of all; then both stay.
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
        self.guess = LinearGuess(self.low, self.backbone.config.patch) if residual else None
        self.fitting = Fitting(self.guess) if self.guess is not None and degradation is not None else None

    @property
    def low(self) -> LowResolution:
        return self.conditioners.named()[LOW]

    @property
    def fields(self) -> dict[str, Field]:
        return {name: field for name, field in super().fields.items() if name != LOW} | {"media": VIDEO}

    @property
    def training_parts(self) -> tuple[str, ...]:
        return (*super().training_parts, "degradation", "fitting")

    def adopted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """As of FlowTask; a text-to-image model guesses nothing."""
        own = {name: value for name, value in self.state_dict().items() if name.startswith("guess.")}
        return super().adopted({**own, **weights})

    def sharpened(self, latent: Tensor, low: Tensor) -> Tensor:
        """What the network made of a padded low-resolution latent, as a latent [B, C, T, H, W] of the codec."""
        return latent if self.guess is None else self.guess(low) + self.guess.spread.denormalize(latent)

    def conditions(self, inputs: Mapping[str, Any], grid: Grid, drop: Mapping[str, Tensor]) -> Conditions:
        if set(self.conditioners.named()) != {LOW}:
            return super().conditions(inputs, grid, drop)
        concat = self.low(inputs[LOW], grid)
        return Conditions(grid, *self.no_context(Ports(concat=[concat])), concat=concat)

    def _noisy(
        self, batch: Batch, step: int, time: float | None, drop: frozenset[str]
    ) -> tuple[PathSample, Conditions]:
        clip = batch.video()
        with torch.autocast(
            clip.frames.device.type, enabled=False
        ):  # what is missing is small beside what is there
            low = self._low(clip, batch.keys, step if time is None else None)
            latents = self.latents(batch)
            if self.guess is not None:
                if self.fitting is not None and self.training and step < self.stats_steps:
                    plain = self._low(clip, batch.keys, None)
                    self.fitting.add(self.low.padded(plain.values), self.low.padded(low.values), latents)
                latents = self.guess.spread.normalize(latents - self.guess(self.low.padded(low.values)))
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
