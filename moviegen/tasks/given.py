"""Pictures and videos that new clips start from, as the condition of `GivenFrames`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from moviegen.conditioning.frames import Given, GivenFrames
from moviegen.conditioning.identity import Identity
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig
from moviegen.types import Latent, VideoClip


def covering(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture [3, H, W] at the size of a clip: scaled until it covers it, and the middle taken where it is over."""
    scale = max(height / picture.shape[1], width / picture.shape[2])
    size = [max(height, round(picture.shape[1] * scale)), max(width, round(picture.shape[2] * scale))]
    scaled = F.interpolate(picture[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[:, top : top + height, left : left + width].clamp(-1, 1)


def frames_condition(task: FlowTask) -> str | None:
    """The name of a model's condition that takes frames; None where it takes none."""
    named = task.conditioners.named().items()
    return next((name for name, condition in named if isinstance(condition, GivenFrames)), None)


def identity_condition(task: FlowTask) -> str | None:
    """The name of a model's condition that takes reference pictures; None where it takes none."""
    named = task.conditioners.named().items()
    return next((name for name, condition in named if isinstance(condition, Identity)), None)


def _nothing(task: FlowTask, count: int, config: SamplerConfig) -> tuple[str, Given]:
    name = frames_condition(task)
    if name is None:
        raise ValueError("this model takes no frames; train one with experiments=toy/i2v or task=i2v")
    grid = task.codec.grid(config.num_frames, config.height, config.width)
    return name, task.conditioners.named()[name].empty(count, grid)


@torch.no_grad()
def given_pictures(
    task: FlowTask, pictures: Sequence[Mapping[int, Tensor]], config: SamplerConfig
) -> dict[str, Given]:
    """Inputs for `sample_clips` with, for each clip, pictures [3, H, W] in [-1, 1] by frame number; 0 is the first.

    Raises ValueError for a model that takes no frames, or a frame number the clip has not.
    """
    name, given = _nothing(task, len(pictures), config)
    for index, frames in enumerate(pictures):
        for place, picture in frames.items():
            if place >= config.num_frames:
                raise ValueError(f"frame {place} is outside a clip of {config.num_frames} frames")
            alone = covering(picture, config.height, config.width)[None, :, None].to(task.device)
            latent = task.codec.encode(VideoClip(alone, torch.zeros(1))).values
            given = given.with_picture(index, place, latent[0, :, 0])
    return {name: given.to(task.device)}


def given_past(task: FlowTask, past: Latent, count: int, config: SamplerConfig) -> dict[str, Given]:
    """Inputs for `sample_latents` so that each clip goes on from the last `count` latent frames of another, `past`.

    The first `count` latent frames of the new clips show the same again. Raises ValueError where none would be new.
    """
    name, given = _nothing(task, len(past.values), config)
    if not 0 < count <= past.values.shape[2]:
        raise ValueError(f"a video of {past.values.shape[2]} latent frames has no last {count}")
    for index, latents in enumerate(past.values):
        given = given.with_latents(index, latents[:, -count:])
    return {name: given.to(task.device)}
