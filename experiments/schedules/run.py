"""How few evaluations are enough? `python experiments/schedules/run.py --help`

Latent error of every solver and schedule against a fine solution of one trained model (1000 steps of midpoint, or
Dopri5 at a small tolerance), per number of evaluations of the guided velocity. Writes numbers.json and curves.svg
beside this file (or into --out). Names of figures: schedules/<solver>/<schedule>/error_<evaluations>.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from moviegen_data.toyworld.words import BACKGROUND_WORDS, CAMERA_WORDS, COLORS, MOTION_WORDS, SHAPES
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.report.lines import lines_svg
from moviegen_eval.stats import bootstrap_mean
from torch import Tensor

from moviegen.backbone.patchify import patchify
from moviegen.data.batches import key_number
from moviegen.flow.sampler import EVALUATIONS
from moviegen.modelfile import load_task
from moviegen.rng import SampleRng
from moviegen.runfolder import write_text
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig
from moviegen.tasks.solving import FIXED_STEPS, SCHEDULES, guided_velocity, solve
from moviegen.types import Grid

HERE = Path(__file__).parent
BUDGETS = (8, 16, 32, 50, 100, 200)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
# linear steps that the linear-quadratic schedules stand for (paper 3.4: 250, up to 1000)
EMULATED = (250, 1000)
BOOTSTRAP, SEED = 2000, 0


@dataclass(frozen=True)
class Start:
    """What every solution begins with: the noise of each clip, and what the clips shall show."""

    x_0: Tensor  # [B, S, C]
    grid: Grid
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One solution: how it was found, what it cost and how far it is off, [B]."""

    solver: str
    schedule: str
    evaluations: int
    errors: Tensor


def prompts(count: int) -> list[str]:
    """Captions of the toy world, each of another combination."""
    colors, backgrounds, cameras = list(COLORS), list(BACKGROUND_WORDS.values()), list(CAMERA_WORDS.values())
    motions = list(MOTION_WORDS.values())
    return [
        f"a {('big', 'small')[i % 2]} {colors[i % 8]} {SHAPES[(i + i // 8) % 4]} {motions[i % 7][0]} on "
        f"{backgrounds[i % 3][0]}, {cameras[i % 5][0]}."
        for i in range(count)
    ]


@torch.no_grad()
def start(task: FlowTask, texts: Sequence[str], config: SamplerConfig) -> Start:
    """Noise and text features of clips, as `moviegen generate` would begin."""
    cells = task.codec.grid(config.num_frames, config.height, config.width)
    keys = torch.tensor([key_number(text) for text in texts])
    noise = SampleRng(config.seed, 0, keys).randn(
        task.codec.latent_channels, cells.frames, cells.height, cells.width
    )
    x_0, grid = patchify(noise, task.backbone.config.patch)
    return Start(x_0, grid, {"text": task.conditioners.named()["text"].features(list(texts))})


@torch.no_grad()
def solution(task: FlowTask, begin: Start, config: SamplerConfig) -> tuple[Tensor, int]:
    """Latent tokens [B, S, C], and how often the guided velocity was evaluated."""
    velocity, count = guided_velocity(task, begin.inputs, begin.grid, config), 0

    def counted(x: Tensor, t: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return velocity(x, t)

    return solve(counted, begin.x_0, task.path, config), count


def relative_errors(x: Tensor, truth: Tensor) -> Tensor:
    """||x - truth|| / ||truth|| of each clip, [B]."""
    return (x - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def schedules(emulated: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The settings of every schedule by name; linear-quadratic ones once for each number of steps they stand for."""
    found: dict[str, dict[str, Any]] = {}
    for schedule in SCHEDULES:
        if schedule.startswith("linear_quadratic"):
            found |= {
                f"{schedule}_{steps}": {"schedule": schedule, "emulated_steps": steps} for steps in emulated
            }
        else:
            found[schedule] = {"schedule": schedule}
    return found


def measure(
    task: FlowTask,
    begin: Start,
    base: SamplerConfig,
    budgets: Sequence[int],
    reference: SamplerConfig,
    emulated: Sequence[int] = EMULATED,
) -> list[Point]:
    """Every solver and schedule at every budget against the solution of `reference`; first, Euler with its steps."""
    truth, count = solution(task, begin, reference)
    print(f"reference {reference.solver}: {count} evaluations", flush=True)
    linear = replace(base, schedule="linear", num_steps=reference.num_steps)
    runs = [(replace(linear, solver="euler"), "linear")]  # the 1000 steps that the paper emulates
    for solver in FIXED_STEPS:
        for name, settings in schedules(emulated).items():
            for budget in budgets:
                steps = budget // EVALUATIONS[solver]
                if steps >= 2:
                    runs.append((replace(base, solver=solver, num_steps=steps, **settings), name))
    runs += [(replace(base, solver="dopri5", tolerance=tolerance), "adaptive") for tolerance in TOLERANCES]
    points = []
    for config, schedule in runs:
        x, count = solution(task, begin, config)
        points.append(Point(config.solver, schedule, count, relative_errors(x, truth)))
        print(f"{config.solver:9} {schedule:29} {count:5d}  {points[-1].errors.mean():.5f}", flush=True)
    return points


def figures(points: Sequence[Point]) -> list[Figure]:
    """The mean error over clips of each solution, with a bootstrap interval; one of the same name is kept once."""
    found: dict[str, Figure] = {}
    for point in points:
        name = f"schedules/{point.solver}/{point.schedule}/error_{point.evaluations}"
        values = point.errors.double().numpy()
        interval = bootstrap_mean(values, BOOTSTRAP, SEED)
        low, high = interval if interval is not None else (None, None)
        found[name] = Figure(name, float(values.mean()), low, high, len(values), "relative error", False)
    return list(found.values())


def chart(points: Sequence[Point]) -> str:
    """Error over evaluations, one curve for each solver and schedule."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        error = max(float(point.errors.mean()), 1e-9)
        curves.setdefault(f"{point.solver}, {point.schedule}", []).append((point.evaluations, error))
    return lines_svg(
        "Latent error against the reference", "evaluations of the velocity", "relative error", curves
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write numbers.json and curves.svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="experiments/toy/weights/t2v")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--reference-steps", type=int, default=1000)
    parser.add_argument("--reference", choices=("midpoint", "dopri5"), default="midpoint")
    parser.add_argument("--reference-tolerance", type=float, default=1e-5, help="of dopri5")
    parser.add_argument("--guidance", type=float, default=3.0, help="as conf/sampler/toy.yaml; 1 for none")
    parser.add_argument(
        "--emulated-steps",
        type=int,
        nargs="+",
        default=list(EMULATED),
        help="of the linear-quadratic schedules",
    )
    parser.add_argument("--size", type=int, nargs=3, default=(16, 64, 64), help="frames, height, width")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args(arguments)
    task = load_task(given.model)
    assert isinstance(task, FlowTask), f"{given.model} is no generator"
    frames, height, width = given.size
    base = SamplerConfig(
        num_frames=frames,
        height=height,
        width=width,
        frame_rate=8.0,
        guidance=given.guidance,
    )
    begin = start(task, prompts(given.clips), base)
    reference = replace(
        base,
        solver=given.reference,
        schedule="linear",
        num_steps=given.reference_steps,
        tolerance=given.reference_tolerance,
    )
    points = measure(task, begin, base, given.budgets, reference, given.emulated_steps)
    write_numbers(given.out / "numbers.json", figures(points))
    write_text(given.out / "curves.svg", chart(points))


if __name__ == "__main__":
    main()
