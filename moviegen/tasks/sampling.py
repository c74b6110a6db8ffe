"""From conditions to latents: the one function behind training-time samples and `moviegen generate` (paper 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.data.batches import key_number
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.solving import SolverConfig, guided_velocity, solve
from moviegen.types import Latent


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(SolverConfig):
    """How to integrate (SolverConfig) and what to make. Paper 3.4: Euler, 50 linear-quadratic steps, guidance 7.5."""

    num_frames: int
    height: int
    width: int
    frame_rate: float
    seed: int = 0


@torch.no_grad()
def sample_latents(task: FlowTask, inputs: Mapping[str, Any], keys: Tensor, config: SamplerConfig) -> Latent:
    """Latents of len(keys) new clips under `inputs` (condition name -> collated field).

    The noise of each sample is keyed by (config.seed, its key): neither batch size nor order changes a clip.
    """
    was_training = task.training
    task.eval()
    cells = task.codec.grid(config.num_frames, config.height, config.width)
    noise = SampleRng(config.seed, 0, keys).randn(
        task.codec.latent_channels, cells.frames, cells.height, cells.width
    )
    inputs = task.conditioners.completed(inputs, len(keys), cells)
    x_0, grid = patchify(noise.to(task.device), task.backbone.config.patch)

    x_1 = solve(guided_velocity(task, inputs, grid, config), x_0, task.path, config)
    task.train(was_training)
    values = unpatchify(x_1, grid, task.backbone.config.patch)
    return Latent(values, torch.full((len(keys),), float(config.frame_rate), device=values.device))


def sample_clips(
    task: FlowTask, texts: list[str], config: SamplerConfig, inputs: Mapping[str, Any] | None = None
) -> Tensor:
    """Frames [B, 3, T, H, W] in [-1, 1] for prompts: the one path from text to pixels, in training and in `generate`.

    `inputs` are those of other conditions than the text, by name (`tasks.given` makes them of pictures and videos).

    A clip's noise is seeded by its prompt, so both make the same clip from the same weights, seed and prompt.
    """
    with torch.no_grad():
        keys = torch.tensor([key_number(text) for text in texts])
        text = task.conditioners.named()["text"]
        frame_rate = config.frame_rate if config.num_frames > 1 else 0.0  # of an image, as in its record
        features = text.features(text.prompts(texts, frame_rate))
        latents = sample_latents(task, {"text": features, **(inputs or {})}, keys, config)
        return task.codec.decode(latents, config.num_frames).frames
