"""Terms of the autoencoder's objective beyond the pixel error (paper 3.1.1): outlier penalty and adversarial losses."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialLoss = Literal["hinge", "vanilla", "least_squares"]


def site_distances(latent: Tensor) -> tuple[Tensor, Tensor]:
    """How far each site is from its frame's mean and how far sites are spread, in the latents' own units (paper 3.1.1).

    Latents [B, C, T, H, W] -> |X_ij - Mean(X)| as [B, T, H*W] and |Std(X)| as [B, T, 1].
    """
    frames = latent.float().transpose(1, 2).flatten(3)  # [B, T, C, H*W]
    mean = frames.mean(3, keepdim=True)
    spread = frames.std(3, keepdim=True, correction=0).norm(dim=2)
    return (frames - mean).norm(dim=2), spread


def outlier_penalty(latent: Tensor, radius: float = 3.0, relative: bool = False) -> Tensor:
    """Penalty on latent sites far from their frame's mean, latents [B, C, T, H, W] -> [B] (paper 3.1.1, L_OPL).

    Over the C-vectors X_ij at the sites of a frame the mean of max(|X_ij - Mean(X)| - radius |Std(X)|, 0); Mean and Std
    are taken over the frame's sites, channel by channel; frames are averaged.

    Args:
        radius: r, in standard deviations; 3 in the paper.
        relative: divide by |Std(X)|, so that one weight fits latents of any scale (ours, not the paper's).
    """
    distance, spread = site_distances(latent)
    excess = (distance - radius * spread).clamp_min(0)
    if relative:
        excess = excess / spread.clamp_min(1e-6)
    return excess.flatten(1).mean(1)


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialLoss = "hinge") -> Tensor:
    """What a discriminator minimises: its scores [B, ...] of real and of reconstructed clips -> [B]."""
    if kind == "hinge":
        both = F.relu(1 - real) + F.relu(1 + fake)
    elif kind == "vanilla":
        both = F.softplus(-real) + F.softplus(fake)
    elif kind == "least_squares":
        both = (1 - real).square() + fake.square()
    else:
        raise ValueError(f"kind of adversarial loss must be hinge, vanilla or least_squares, got {kind!r}")
    return 0.5 * both.flatten(1).mean(1)


def generator_loss(fake: Tensor, kind: AdversarialLoss = "hinge") -> Tensor:
    """What the autoencoder minimises against a discriminator of a kind: scores [B, ...] -> [B]."""
    if kind == "least_squares":
        return (1 - fake).square().flatten(1).mean(1)
    return -fake.flatten(1).mean(1)


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, most: float = 1e4
) -> Tensor:
    """Ratio of the two losses' gradients at the decoder's last layer, scalar losses -> scalar (Esser et al. 2021).

    With it the adversarial gradient is as large there as the reconstruction's, whatever the scale of either.
    """
    (given,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (adverse,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (given.norm() / (adverse.norm() + 1e-4)).clamp(0, most).detach()
