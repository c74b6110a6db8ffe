"""From a source and an instruction to an edited latent, of any length (paper 5); and what edits are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.codec.base import VideoCodec
from moviegen.conditioning.editing import OfTask, Sources, SourceVideo
from moviegen.flow.guidance import Velocity
from moviegen.flow.windows import Axis, Shape, averaged
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.solving import FIXED_STEPS, SolverConfig, check_solver, guided_velocity, solve
from moviegen.types import Grid, Latent

Baseline = Literal["sdedit", "copy", "ignore"]
HELD_WINDOWS = 64  # whose encoded conditions stay in memory


@dataclass(frozen=True, kw_only=True)
class EditSampler(SolverConfig):
    """How to integrate (SolverConfig), and how clips longer than the model's window are put together.

    `condition_guidance` has a scale for the source, `guidance` is that of the instruction; what the paper uses is
    unknown.

    Args:
        window: latent frames of a window; no more than training saw.
        hop: latent frames from one window to the next.
        weights: of the places in a window.
        strength: of SDEdit: the share of the way to noise and back that is gone, in `num_steps`; 1 forgets the source.
    """

    window: int = 2
    hop: int = 1
    weights: Shape = "triangular"
    strength: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        Axis(1, self.window, self.hop)
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, got {self.strength}")
        if self.seed < 0:
            raise ValueError(f"sampler.seed={self.seed}: must be at least 0")


@dataclass(frozen=True)
class EditBatch:
    """Edits of sources of one size."""

    source: Latent  # [B, C, T, H, W]
    instructions: Sequence[str]
    tasks: Sequence[str]
    keys: Tensor  # [B] int64, of the noise


def source_condition(task: FlowTask) -> str | None:
    """The name of a model's condition that takes a source; None where it takes none."""
    named = task.conditioners.named().items()
    return next((name for name, condition in named if isinstance(condition, SourceVideo)), None)


def task_conditions(task: FlowTask) -> list[str]:
    """The names of a model's conditions that take the task of an edit."""
    return [name for name, one in task.conditioners.named().items() if isinstance(one, OfTask)]


def check_sampling(
    task: FlowTask, num_frames: int, config: EditSampler, baseline: Baseline | None = None
) -> None:
    """Whether clips of so many latent frames can be edited so.

    Raises ValueError for a window beyond the model's positions, or a solver that will not do.
    """
    if baseline == "copy":
        return
    pt, reach = task.backbone.config.patch[0], task.backbone.config.max_frames
    if min(max(1, config.window // pt), num_frames // pt) > reach:
        raise ValueError(
            f"sampler.window={config.window}: the model's positions reach {reach * pt} latent frames"
        )
    check_solver(task.path, config)
    if baseline == "sdedit" and config.solver not in FIXED_STEPS:
        raise ValueError(
            f"sdedit needs a solver of fixed steps ({', '.join(FIXED_STEPS)}), got {config.solver!r}"
        )


def window_size(
    codec: VideoCodec, shape: Sequence[int], window: int, num_frames: int, frame_rate: float
) -> dict[str, float]:
    """What a model makes at once of a clip whose latents have the `shape` (T, H, W), as its json names it.

    A still, of frame rate 0, has neither length nor rate.
    """
    frames, height, width = shape
    size = {"height": height * codec.spatial_factor, "width": width * codec.spatial_factor}
    if frame_rate == 0:
        return size
    if frames > window:
        first = 1 if getattr(codec, "causal", False) else codec.temporal_factor  # frames of the first latent
        num_frames = first + (window - 1) * codec.temporal_factor
    return {"num_frames": num_frames, **size, "frame_rates": frame_rate}


@torch.no_grad()
def edit_latents(
    task: FlowTask, batch: EditBatch, config: EditSampler, baseline: Baseline | None = None
) -> Latent:
    """Latents [B, C, T, H, W] of the edited clips, as long as their sources.

    Baselines: `sdedit` brings the noised source back with a model that knows no source; `copy` gives the source;
    `ignore` makes a clip of the instruction without it. Noise is keyed by (config.seed, key): neither batch size nor
    order changes an edit.

    Raises ValueError for a model without a source where one is needed, and as `check_sampling`.
    """
    check_sampling(task, batch.source.values.shape[2], config, baseline)
    if baseline == "copy":
        return batch.source
    was_training = task.training
    task.eval()
    values = batch.source.values
    noise = SampleRng(config.seed, 0, batch.keys).randn(*values.shape[1:]).to(values)
    x_0, grid = patchify(noise, task.backbone.config.patch)
    inputs = _inputs(task, batch, baseline)
    known = {
        name: scale for name, scale in config.condition_guidance.items() if name in task.conditioners.items
    }
    config = replace(config, condition_guidance=known)  # a model that knows no source has no scale for it
    x_0 = x_0.unflatten(1, (grid.frames, -1))
    velocity = _everywhere(task, inputs, grid, config)
    if baseline == "sdedit":
        x_1 = patchify(values, task.backbone.config.patch)[0].unflatten(1, (grid.frames, -1))
        edited = _there_and_back(task, velocity, x_1, x_0, config)
    else:
        edited = solve(velocity, x_0, task.path, config)
    task.train(was_training)
    return Latent(unpatchify(edited.flatten(1, 2), grid, task.backbone.config.patch), batch.source.frame_rate)


def _inputs(task: FlowTask, batch: EditBatch, baseline: Baseline | None) -> dict[str, Any]:
    text = task.conditioners.named()["text"]
    prompts = text.prompts(list(batch.instructions), batch.source.frame_rate.tolist())
    inputs: dict[str, Any] = {"text": text.features(prompts)}
    name = source_condition(task)
    if name is None:
        if baseline is None:
            raise ValueError("this model takes no source; train one with experiments=toy/edit or task=edit")
        return inputs
    cells = Grid(*batch.source.values.shape[2:])
    if baseline is None:
        inputs[name] = Sources.of(batch.source.values)
        inputs |= {one: list(batch.tasks) for one in task_conditions(task)}
    return task.conditioners.completed(inputs, len(batch.keys), cells)


def _everywhere(task: FlowTask, inputs: Mapping[str, Any], grid: Grid, config: EditSampler) -> Velocity:
    """The velocity of x [B, T, S, C] from that of its windows along time.

    Conditions are encoded once, but for windows beyond the first `HELD_WINDOWS`: of ten minutes they would not fit.
    """
    pt = task.backbone.config.patch[0]
    window, hop = max(1, config.window // pt), max(1, config.hop // pt)
    parts: dict[int, Velocity] = {}

    def of_part(x: Tensor, t: Tensor, part: tuple[slice, ...]) -> Tensor:
        (span,) = part
        velocity = parts.get(span.start)
        if velocity is None:
            own = Grid(x.shape[1], grid.height, grid.width)
            cut = task.conditioners.window(inputs, span.start * pt, span.stop * pt)
            velocity = guided_velocity(task, cut, own, config)
            if len(parts) < HELD_WINDOWS:
                parts[span.start] = velocity
        return velocity(x.flatten(1, 2), t).unflatten(1, (x.shape[1], -1))

    return averaged(of_part, [Axis(1, window, hop)], config.weights)


def _there_and_back(
    task: FlowTask, velocity: Velocity, x_1: Tensor, x_0: Tensor, config: EditSampler
) -> Tensor:
    """SDEdit (arXiv 2108.01073): the source at an earlier time of the path, and from there to data again.

    All of the sampler's steps are on the part that is gone back, whatever the strength: it costs what an edit does.
    """
    start = 1 - config.strength
    t = torch.full((len(x_1),), start, dtype=x_1.dtype, device=x_1.device)
    x_t = task.path.sample(x_1=x_1, x_0=x_0, t=t).x_t
    return FIXED_STEPS[config.solver](velocity, x_t, start + config.strength * config.times())
