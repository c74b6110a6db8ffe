"""Train an autoencoder: image stage first, then inflated to video, then images and videos together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.fields import VIDEO, Field
from moviegen.rng import SampleRng
from moviegen.tasks.base import OptimizerFactory, Schedule, Task
from moviegen.types import Batch


@dataclass(frozen=True)
class CodecLossWeights:
    """Weights of the terms, each a mean over a clip's elements with pixels in [-1, 1]."""

    mse: float = 1.0
    l1: float = 0.0
    kl: float = 1e-4


@dataclass(frozen=True)
class CodecLosses:
    """Per-sample terms of the codec objective, each [B], and their weighted sum."""

    total: Tensor
    mse: Tensor
    l1: Tensor
    kl: Tensor


def _busiest(clip: Tensor, corners: list[list[int]], size: int) -> Tensor:
    """Of square crops of a clip [3, T, H, W] the one whose values spread most."""
    crops = [clip[..., y : y + size, x : x + size] for y, x in corners]
    return max(crops, key=lambda crop: float(crop.std())) if len(crops) > 1 else crops[0]


class CodecTask(Task):
    """Reconstruction and KL losses of a variational autoencoder (paper 3.1.1).

    Args:
        codec: the autoencoder that is trained.
        image_steps: for so many steps the model is an image autoencoder that sees `image_frames` single frames of
            each clip; then its temporal layers, which start as the identity, are switched on (inflation).
        image_frames: frames drawn from each clip in the image stage.
        crop: after the image stage, train on square crops of so many pixels; null trains on whole frames.
        crop_choices: so many places are drawn for each crop and the one with the largest spread of values is taken, so
            that less time goes into flat ground.
        crop_until: the step from which whole frames are used anyway.
        fit_stats: estimate the latents' per-channel mean and scale while training. Off when finetuning a codec
            that other models already read.
    """

    def __init__(  # noqa: PLR0913 (settings, given by name from a config)
        self,
        codec: TemporalAutoencoder,
        weights: CodecLossWeights = CodecLossWeights(),
        image_steps: int = 0,
        image_frames: int = 4,
        crop: int | None = None,
        crop_choices: int = 1,
        crop_until: int = 0,
        fit_stats: bool = True,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        seed: int = 0,
    ):
        super().__init__(optimizer, schedule, seed)
        self.codec, self.weights = codec, weights
        self.image_steps, self.image_frames, self.fit_stats = image_steps, image_frames, fit_stats
        self.crop, self.crop_choices, self.crop_until = crop, crop_choices, crop_until
        self.stats_momentum = 0.02

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": VIDEO}

    def in_image_stage(self, step: int) -> bool:
        return step < self.image_steps

    def losses(self, batch: Batch, step: int) -> CodecLosses:
        """The objective of each sample, with posterior noise and frame choice keyed by (seed, step, sample)."""
        rng = SampleRng(self.seed, step, batch.keys)
        self.codec.temporal = not self.in_image_stage(step)
        frames = self._view(batch.video().frames, step, rng)
        posterior = self.codec.posterior(frames)
        if self.fit_stats and self.training:
            self._update_stats(posterior.mean.detach())
        latent = posterior.sample(rng.randn(*posterior.mean.shape[1:]).to(posterior.mean))
        error = self.codec.reconstruct(latent, frames.shape[2]) - frames
        mse, l1, kl = error.square().flatten(1).mean(1), error.abs().flatten(1).mean(1), posterior.kl()
        total = self.weights.mse * mse + self.weights.l1 * l1 + self.weights.kl * kl
        return CodecLosses(total, mse, l1, kl)

    def _view(self, frames: Tensor, step: int, rng: SampleRng) -> Tensor:
        """What a training step sees of its clips: some frames in the image stage, then crops, then all."""
        if not self.training:
            return frames
        if self.in_image_stage(step) and frames.shape[2] > self.image_frames:
            order = rng.rand(frames.shape[2]).argsort(1)[:, : self.image_frames].to(frames.device)
            return torch.stack([clip[:, chosen] for clip, chosen in zip(frames, order, strict=True)])
        if self.in_image_stage(step) or self.crop is None or step >= self.crop_until:
            return frames
        room = torch.tensor([frames.shape[3] - self.crop, frames.shape[4] - self.crop])
        corners = (rng.rand(self.crop_choices, 2) * (room + 1)).long().tolist()
        return torch.stack(
            [_busiest(clip, places, self.crop) for clip, places in zip(frames, corners, strict=True)]
        )

    @torch.no_grad()
    def _update_stats(self, latents: Tensor) -> None:
        stats = self.codec.stats
        per_channel = latents.transpose(0, 1).flatten(1)
        stats.mean.lerp_(per_channel.mean(1), self.stats_momentum)
        spread = (per_channel - stats.mean[:, None]).square().mean(1).sqrt()
        stats.scale.lerp_(spread.clamp_min(1e-6), self.stats_momentum)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        losses = self.losses(batch, self.global_step)
        means = {f"train/{name}": getattr(losses, name).mean() for name in ("mse", "l1", "kl")}
        self.log_dict(means, batch_size=len(batch))
        self.log("train/loss", losses.total.mean(), prog_bar=True, batch_size=len(batch))
        return losses.total.mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        clip = batch.video()
        self.codec.temporal = not self.in_image_stage(self.global_step)
        decoded = self.codec.decode(self.codec.encode(clip), clip.frames.shape[2])
        mse = (decoded.frames - clip.frames).square().flatten(1).mean(1)
        psnr = 10 * torch.log10(4 / mse.clamp_min(1e-10))  # range -1..1
        self.log("val/loss", mse.mean(), batch_size=len(batch), sync_dist=True)
        self.log("val/psnr", psnr.mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)

    def sample_videos(self, batch: Batch) -> dict[str, Any]:
        """Reconstructions of a validation batch, for the sample callback: name -> frames [3, T, H, W]."""
        clip = batch.video()
        decoded = self.codec.decode(self.codec.encode(clip), clip.frames.shape[2])
        both = torch.cat([clip.frames, decoded.frames], dim=-1)  # source beside reconstruction
        return {str(key): frames for key, frames in zip(batch.keys.tolist(), both, strict=True)}
