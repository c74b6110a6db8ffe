"""Sound of any length: windows averaged in every step, or one segment after another with a beam (paper 6).

Both make windows no longer than training saw. Lengths are in latent frames, 25 a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from moviegen.conditioning.sound import AudioContext, KnownSound
from moviegen.flow.guidance import Velocity
from moviegen.flow.path import Path
from moviegen.flow.windows import Axis, Shape, averaged
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.solving import SolverConfig, guided_velocity, solve
from moviegen.types import Grid, Latent

Method = Literal["windows", "segments"]


@dataclass(frozen=True, kw_only=True)
class SoundSampler(SolverConfig):
    """How to integrate (SolverConfig), and how long sounds are put together.

    Paper 6: midpoint, 64 steps, guidance 3, the best of 8. Unknown there: window, hop, and what judges candidates.

    Args:
        method: `windows` averages overlapping windows in each step (multi-diffusion); `segments` makes one window
            after another, each of which hears the end of the one before.
        window: latent frames of a window; no more than training saw.
        hop: latent frames from one window to the next; of segments, what of each is new.
        weights: of the places in a window.
        candidates: sounds that are made of each clip (of each segment, for each beam), of which the best is kept.
        beams: sequences of segments that are kept until the end.
    """

    solver: str = "midpoint"
    num_steps: int = 64
    schedule: str = "linear"
    guidance: float = 3.0
    method: Method = "windows"
    window: int = 750
    hop: int = 375
    weights: Shape = "triangular"
    candidates: int = 1
    beams: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        Axis(1, self.window, self.hop)
        if self.method not in ("windows", "segments"):
            raise ValueError(f"method must be windows or segments, got {self.method!r}")
        if self.candidates < 1 or not 1 <= self.beams <= self.candidates:
            raise ValueError(
                f"candidates must be at least 1 and beams from 1 to candidates, got {self.candidates} and {self.beams}"
            )


class Reranker(Protocol):
    """What chooses among candidates."""

    def __call__(
        self, task: FlowTask, values: Tensor, inputs: Mapping[str, Any], absent: frozenset[str]
    ) -> Tensor:
        """Scores [B] of latents [B, C, L, 1, 1] under inputs of as many samples; the highest is best."""
        ...


class ConditionGap:
    """How much better a sound is explained with its conditions than without: by the generator itself (ours).

    The difference of the velocity errors without and with conditions, averaged over some times. It needs no
    other model; what the paper ranks by is unknown.
    """

    def __init__(self, times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8), seed: int = 1):
        self.times, self.seed = times, seed

    @torch.no_grad()
    def __call__(
        self, task: FlowTask, values: Tensor, inputs: Mapping[str, Any], absent: frozenset[str]
    ) -> Tensor:
        x_1, grid = values[..., 0, 0].transpose(1, 2), Grid(values.shape[2], 1, 1)
        everyone = torch.ones(len(x_1), dtype=torch.bool, device=x_1.device)
        told = task.conditions(inputs, grid, dict.fromkeys(absent, everyone))
        untold = task.conditions(inputs, grid, dict.fromkeys(task.conditioners.items, everyone))
        gap = torch.zeros(len(x_1), device=x_1.device)
        keys = torch.zeros(len(x_1), dtype=torch.int64)  # the same noise for all, so that they compare
        for step, time in enumerate(self.times):
            noise = SampleRng(self.seed, step, keys).randn(*x_1.shape[1:]).to(x_1)
            sample = task.path.sample(x_1=x_1, x_0=noise, t=torch.full((len(x_1),), time).to(x_1))
            with_, without = (
                (task.backbone(sample.x_t, sample.t, one) - sample.target).square().flatten(1).mean(1)
                for one in (told, untold)
            )
            gap += without - with_
        return gap / len(self.times)


def context_name(task: FlowTask) -> str | None:
    """The name of a model's condition that takes known sound; None where it takes none."""
    named = task.conditioners.named().items()
    return next((name for name, condition in named if isinstance(condition, AudioContext)), None)


@dataclass(frozen=True)
class _Job:
    """What stays the same while a sound is made."""

    task: FlowTask
    keys: Tensor  # [B], of the noise
    config: SoundSampler
    rank: Reranker
    absent: frozenset[str]

    def window(self, inputs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        return self.task.conditioners.window(inputs, start, stop)

    def velocity(self, inputs: Mapping[str, Any], frames: int) -> Velocity:
        everything = frozenset(self.task.conditioners.items)
        grid = Grid(frames, 1, 1)
        return guided_velocity(self.task, inputs, grid, self.config, everything, self.absent)

    def score(self, values: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Mean score [B] over the windows of sounds of any length."""
        spans = Axis(2, self.config.window, self.config.window).spans(values.shape[2])
        each = [
            self.rank(self.task, values[:, :, span], self.window(inputs, span.start, span.stop), self.absent)
            for span in spans
        ]
        return torch.stack(each).mean(0)


@torch.no_grad()
def sample_sound(
    task: FlowTask,
    inputs: Mapping[str, Any],
    keys: Tensor,
    frames: int,
    config: SoundSampler,
    reranker: Reranker | None = None,
    absent: frozenset[str] = frozenset(),
) -> Latent:
    """Latents of len(keys) new sounds of `frames` latent frames under `inputs` (condition name -> collated field).

    Known sound among the inputs is kept as it is. With several candidates the reranker's best is taken (`ConditionGap`
    where None). Conditions named `absent` have an input that nobody gave, and are dropped. Noise is keyed by (seed,
    candidate, key), so neither batch size nor order changes a sound.

    Raises ValueError for segments with a model that takes no known sound, or an input that is missing.
    """
    was_training = task.training
    task.eval()
    inputs = task.conditioners.completed(inputs, len(keys), Grid(frames, 1, 1))
    name = context_name(task)
    if name is not None:
        inputs[name] = inputs[name].to(task.device)
    job = _Job(task, keys, config, ConditionGap() if reranker is None else reranker, absent)
    in_segments = config.method == "segments" and frames > config.window
    values = _segments(job, inputs, frames) if in_segments else _best_whole(job, inputs, frames)
    task.train(was_training)
    if name is not None:
        known = inputs[name]
        values = torch.where(known.mask[:, None, :, None, None], known.values.to(values), values)
    return Latent(values, torch.full((len(keys),), float(task.codec.latent_rate_hz)))


def _made(job: _Job, inputs: Mapping[str, Any], frames: int, stream: int) -> Tensor:
    """Latents [B, C, L, 1, 1] by averaged windows (one, where all fits in); `stream` numbers the noise."""
    config, task = job.config, job.task
    x_0 = SampleRng(config.seed, stream, job.keys).randn(frames, task.codec.latent_channels).to(task.device)
    velocity = job.velocity(inputs, frames) if frames <= config.window else _by_windows(job, inputs)
    name = context_name(task)
    if name is not None and name not in job.absent and bool(inputs[name].mask.any()):
        velocity = _along_known(velocity, inputs[name], x_0, task.path)
    return solve(velocity, x_0, task.path, config).transpose(1, 2)[..., None, None]


def _along_known(velocity: Velocity, known: KnownSound, x_0: Tensor, path: Path) -> Velocity:
    """A velocity that leads known frames to what they are, as in training, so that the others fit them (ours)."""
    x_1, mask = known.values[..., 0, 0].transpose(1, 2).to(x_0), known.mask[:, :, None].to(x_0.device)

    def along(x: Tensor, t: Tensor) -> Tensor:
        exact = path.velocity(path.sample(x_1=x_1, x_0=x_0, t=t).target, t)
        return torch.where(mask, exact, velocity(x, t))

    return along


def _by_windows(job: _Job, inputs: Mapping[str, Any]) -> Velocity:
    """The velocity of all of a sound from those of its windows, whose conditions are encoded once."""
    parts: dict[int, Velocity] = {}

    def of_part(x: Tensor, t: Tensor, part: tuple[slice, ...]) -> Tensor:
        (span,) = part
        if span.start not in parts:
            parts[span.start] = job.velocity(job.window(inputs, span.start, span.stop), x.shape[1])
        return parts[span.start](x, t)

    return averaged(of_part, [Axis(1, job.config.window, job.config.hop)], job.config.weights)


def _best_whole(job: _Job, inputs: Mapping[str, Any], frames: int) -> Tensor:
    made = [_made(job, inputs, frames, number) for number in range(job.config.candidates)]
    if len(made) == 1:
        return made[0]
    best = torch.stack([job.score(one, inputs) for one in made]).argmax(0)
    return torch.stack(made)[best, torch.arange(len(job.keys))]


def _segments(job: _Job, inputs: Mapping[str, Any], frames: int) -> Tensor:
    """One window after another; each is told the end of what was made so far, and the best `beams` go on."""
    name, config, count = context_name(job.task), job.config, len(job.keys)
    if name is None:
        raise ValueError("this model takes no known sound, which segments need; choose method=windows")
    nothing = torch.zeros(count, job.task.codec.latent_channels, 0, 1, 1, device=job.task.device)
    beams = [(torch.zeros(count, device=job.task.device), nothing)]
    starts = range(0, max(1, frames - (config.window - config.hop)), config.hop)
    for number, start in enumerate(starts):
        stop = min(start + config.window, frames)
        cut = job.window(inputs, start, stop)
        grown: list[tuple[Tensor, Tensor]] = []
        for which, (score, made) in enumerate(beams):
            told = {**cut, name: _told(cut[name], made[:, :, start:])}
            for candidate in range(config.candidates):
                stream = (number * config.beams + which) * config.candidates + candidate
                values = _made(job, told, stop - start, stream)
                gain = job.score(values, told) if config.candidates > 1 else torch.zeros_like(score)
                grown.append((score + gain, torch.cat([made, values[:, :, made.shape[2] - start :]], dim=2)))
        beams = _best(grown, config.beams)
    return beams[0][1]


def _told(known: KnownSound, made: Tensor) -> KnownSound:
    """What is known of a window, and the sound that was made for its beginning [B, C, n, 1, 1]."""
    values, mask = known.values.clone().to(made), known.mask.clone()
    count = made.shape[2]
    values[:, :, :count], mask[:, :count] = made, True
    return KnownSound(values, mask)


def _best(grown: Sequence[tuple[Tensor, Tensor]], beams: int) -> list[tuple[Tensor, Tensor]]:
    """The best `beams` sequences of each sample, best first."""
    scores = torch.stack([score for score, _ in grown])  # [n, B]
    values = torch.stack([one for _, one in grown])
    order = scores.argsort(dim=0, descending=True)[:beams]
    samples = torch.arange(scores.shape[1])
    return [(scores[row, samples], values[row, samples]) for row in order]
