"""What an autoencoder is trained for: the terms of its loss, and its adversary (paper 3.1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moviegen.codec.layers import to_frames
from moviegen.codec.losses import (
    AdversarialLoss,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    outlier_penalty,
)
from moviegen.codec.tae import Posterior
from moviegen.perceptual import STLPIPS
from moviegen.tasks.base import OptimizerFactory


@dataclass(frozen=True)
class CodecLossWeights:
    """Weights of the terms; pixels lie in [-1, 1]. A term of weight 0 is not computed.

    Args:
        mse, l1: mean over a clip's elements.
        perceptual: ST-LPIPS, mean over frames.
        kl: mean over latent elements. LDM sums KL over latents and the error over pixels, so that a weight w there is
            w * latent_channels / (3 * factor in time * factor in space squared) here.
        outlier: penalty on latents far from their frame's mean (paper: 1e5, with `outlier_relative` off).
        outlier_radius: in standard deviations; 3 in the paper.
        outlier_relative: in units of the standard deviation, so that the weight fits latents of any scale.
    """

    mse: float = 1.0
    l1: float = 0.0
    perceptual: float = 0.0
    kl: float = 1e-4
    outlier: float = 0.0
    outlier_radius: float = 3.0
    outlier_relative: bool = False


@dataclass(frozen=True)
class CodecLosses:
    """Per-sample terms, each [B], and their weighted sum."""

    total: Tensor
    terms: dict[str, Tensor]


class CodecObjective:
    """The terms that need no discriminator; the perceptual net is frozen and no part of the model."""

    def __init__(self, weights: CodecLossWeights):
        self.weights = weights
        self.perceptual = STLPIPS("vgg") if weights.perceptual else None

    def to(self, device: torch.device) -> None:
        if self.perceptual is not None:
            self.perceptual.to(device)

    def __call__(self, decoded: Tensor, frames: Tensor, posterior: Posterior) -> CodecLosses:
        """Losses of reconstructions of frames, both [B, 3, T, H, W], coded through a posterior."""
        error, weights = decoded - frames, self.weights
        terms = {"mse": error.square().flatten(1).mean(1), "kl": posterior.kl()}
        if weights.l1:
            terms["l1"] = error.abs().flatten(1).mean(1)
        if self.perceptual is not None:
            distance = self.perceptual(to_frames(decoded), to_frames(frames))
            terms["perceptual"] = distance.unflatten(0, (len(frames), -1)).mean(1)
        if weights.outlier:
            terms["outlier"] = outlier_penalty(
                posterior.mean, weights.outlier_radius, weights.outlier_relative
            )
        weighted = [getattr(weights, name) * term for name, term in terms.items()]
        return CodecLosses(torch.stack(weighted).sum(0), terms)


class Adversary(nn.Module):
    """A discriminator, how it learns, and how much its word counts.

    Args:
        discriminator: clips [B, 3, T, H, W] -> scores [B, N].
        optimizer: of the discriminator alone.
        weight: of the adversarial term (LDM: 0.5, times the adaptive ratio).
        start_step: until then the autoencoder trains alone.
        warmup_steps: from the start step on, `weight` grows linearly over so many steps, so that a discriminator that
            knows nothing yet moves the autoencoder little; 0 for LDM's jump.
        adaptive: scale the term so that its gradient at the decoder's last layer is as large as the other terms'.
        loss: hinge, vanilla or least_squares.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        optimizer: OptimizerFactory,
        weight: float = 0.5,
        start_step: int = 0,
        adaptive: bool = True,
        loss: AdversarialLoss = "hinge",
        warmup_steps: int = 0,
    ):
        super().__init__()
        if start_step < 0 or warmup_steps < 0:
            raise ValueError(f"start_step {start_step} and warmup_steps {warmup_steps} must be at least 0")
        self.discriminator, self.optimizer_factory = discriminator, optimizer
        self.weight, self.start_step, self.warmup_steps = weight, start_step, warmup_steps
        self.adaptive = adaptive
        self.loss: AdversarialLoss = loss

    def is_active(self, step: int) -> bool:
        return step >= self.start_step

    def weight_at(self, step: int) -> float:
        """The weight of the adversarial term in a step of training."""
        done = (step - self.start_step + 1) / max(1, self.warmup_steps)
        return self.weight * min(1.0, max(0.0, done))

    def penalty(
        self,
        decoded: Tensor,
        frames: Tensor,  # noqa: ARG002 (judges with features compare both)
        total: Tensor,
        last_layer: Tensor,
        step: int,
    ) -> tuple[Tensor, Tensor]:
        """The weighted term for the autoencoder, [B], and the ratio used; `total` is the mean of its other terms."""
        term = generator_loss(self.discriminator(decoded), self.loss)
        ratio = adaptive_weight(total, term.mean(), last_layer) if self.adaptive else torch.ones_like(total)
        return self.weight_at(step) * ratio * term, ratio

    def own_loss(self, frames: Tensor, decoded: Tensor) -> Tensor:
        """What the discriminator minimises, [B]; no gradient reaches the autoencoder."""
        real, fake = self.discriminator(frames.detach()), self.discriminator(decoded.detach())
        return discriminator_loss(real, fake, self.loss)
