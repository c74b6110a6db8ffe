"""From a source and an instruction to an edited latent, of any length (paper 5); and what edits are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.conditioning.editing import OfTask, Sources, SourceVideo
from moviegen.flow.guidance import Velocity
from moviegen.flow.windows import Axis, Shape, averaged
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.solving import FIXED_STEPS, SolverConfig, check_solver, guided_velocity, solve
from moviegen.types import Grid, Latent

Baseline = Literal["sdedit", "copy", "ignore"]


@dataclass(frozen=True, kw_only=True)
class EditSampler(SolverConfig):
    """How to integrate (SolverConfig), and how clips longer than the model's window are put together.

    `condition_guidance` has a scale for the source, `guidance` is that of the instruction; what the paper uses is
    unknown.

    Args:
        window: latent frames of a window; no more than training saw.
        hop: latent frames from one window to the next.
        weights: of the places in a window.
        strength: of SDEdit: the share of the way to noise and back that is gone; 1 forgets the source.
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


@torch.no_grad()
def edit_latents(
    task: FlowTask, batch: EditBatch, config: EditSampler, baseline: Baseline | None = None
) -> Latent:
    """Latents [B, C, T, H, W] of the edited clips, as long as their sources.

    Baselines: `sdedit` brings the noised source back with a model that knows no source; `copy` gives the source;
    `ignore` makes a clip of the instruction without it. Noise is keyed by (config.seed, key): neither batch size nor
    order changes an edit.

    Raises ValueError for a model without a source where one is needed, or a window beyond its positions.
    """
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
    """The velocity of x [B, T, S, C] from that of its windows along time, whose conditions are encoded once."""
    pt, reach = task.backbone.config.patch[0], task.backbone.config.max_frames
    window, hop = max(1, config.window // pt), max(1, config.hop // pt)
    if min(window, grid.frames) > reach:
        raise ValueError(
            f"sampler.window={config.window}: the model's positions reach {reach * pt} latent frames"
        )
    parts: dict[int, Velocity] = {}

    def of_part(x: Tensor, t: Tensor, part: tuple[slice, ...]) -> Tensor:
        (span,) = part
        if span.start not in parts:
            own = Grid(x.shape[1], grid.height, grid.width)
            cut = task.conditioners.window(inputs, span.start * pt, span.stop * pt)
            parts[span.start] = guided_velocity(task, cut, own, config)
        return parts[span.start](x.flatten(1, 2), t).unflatten(1, (x.shape[1], -1))

    return averaged(of_part, [Axis(1, window, hop)], config.weights)


def _there_and_back(
    task: FlowTask, velocity: Velocity, x_1: Tensor, x_0: Tensor, config: EditSampler
) -> Tensor:
    """SDEdit (arXiv 2108.01073): the source at an earlier time of the path, and from there to data again."""
    check_solver(task.path, config)
    if config.solver not in FIXED_STEPS:
        raise ValueError(
            f"sdedit needs a solver of fixed steps ({', '.join(FIXED_STEPS)}), got {config.solver!r}"
        )
    start, times = 1 - config.strength, config.times()
    t = torch.full((len(x_1),), start, dtype=x_1.dtype, device=x_1.device)
    x_t = task.path.sample(x_1=x_1, x_0=x_0, t=t).x_t
    return FIXED_STEPS[config.solver](
        velocity, x_t, torch.cat([times.new_tensor([start]), times[times > start]])
    )
