"""From conditions to latents: the one function behind training-time samples and `moviegen generate` (paper 3.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.codec.tiling import decoded
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

    @property
    def stated_rate(self) -> float:
        """Frames per second as prompts and records state it: 0 of an image."""
        return float(self.frame_rate) if self.num_frames > 1 else 0.0


def noise_keys(texts: Iterable[str]) -> list[int]:
    """What the noise of a clip of each prompt is keyed by: its text, and which time the text comes in the list.

    So a prompt has the same clip wherever it stands, and two that are alike (Movie Gen Video Bench has some) differ.
    """
    times: Counter[str] = Counter()
    keys = []
    for text in texts:
        keys.append(key_number(f"{text}\n{times[text]}" if times[text] else text))
        times[text] += 1
    return keys


@torch.no_grad()
def sample_latents(
    task: FlowTask,
    inputs: Mapping[str, Any],
    keys: Tensor,
    config: SamplerConfig,
    seeds: Sequence[int] | None = None,
) -> Latent:
    """Latents of len(keys) new clips under `inputs` (condition name -> collated field).

    The noise of each sample is keyed by (its seed, its key), where `seeds` is config.seed for all unless given: neither
    batch size nor order changes a clip.
    """
    was_training = task.training
    task.eval()
    cells = task.codec.grid(config.num_frames, config.height, config.width)
    shape = (task.codec.latent_channels, cells.frames, cells.height, cells.width)
    streams = zip(seeds or [config.seed] * len(keys), keys.split(1), strict=True)
    noise = torch.cat([SampleRng(seed, 0, key).randn(*shape) for seed, key in streams])
    inputs = task.conditioners.completed(inputs, len(keys), cells)
    x_0, grid = patchify(noise.to(task.device), task.backbone.config.patch)

    x_1 = solve(guided_velocity(task, inputs, grid, config), x_0, task.path, config)
    task.train(was_training)
    values = unpatchify(x_1, grid, task.backbone.config.patch)
    return Latent(values, torch.full((len(keys),), float(config.frame_rate), device=values.device))


def sample_clips(
    task: FlowTask,
    texts: list[str],
    config: SamplerConfig,
    *,
    inputs: Mapping[str, Any] | None = None,
    keys: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Frames [B, 3, T, H, W] in [-1, 1] for prompts: the one path from text to pixels, in training and in `generate`.

    `inputs` are those of other conditions than the text, by name (`tasks.given` makes them of pictures and videos).

    A clip's noise is keyed by `noise_keys` of all prompts (of `texts`, unless `keys` are given) and its seed, so both
    make the same clip from the same weights, seed and prompt in the same precision (`sampling_precision`).
    """
    with torch.no_grad():
        numbers = torch.tensor(noise_keys(texts) if keys is None else keys)
        text = task.conditioners.named()["text"]
        features = text.features(text.prompts(texts, config.stated_rate))
        latents = sample_latents(task, {"text": features, **(inputs or {})}, numbers, config, seeds)
        return torch.cat(list(decoded(task.codec, latents)), dim=2)[:, :, : config.num_frames]
