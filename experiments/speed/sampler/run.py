"""What sampling costs beside the network: `python experiments/speed/sampler/run.py --help`

Times whole solves of a trained model and, within them, the calls of its backbone. The rest (guidance, solver, path) is
the sampler's overhead. Writes numbers.json beside this file (or into --out). Conditions are encoded once a clip, before
what is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from moviegen_eval.numbers import Figure, write_numbers
from torch import Tensor, nn

from moviegen.backbone.patchify import patchify
from moviegen.modelfile import load_task
from moviegen.rng import SampleRng
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig
from moviegen.tasks.solving import guided_velocity, solve

HERE = Path(__file__).parent
PROMPT = "a big red star moves left on a plain background, the camera is still."


class Timed(nn.Module):
    """A backbone that adds up the seconds that it takes."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.config, self.seconds = backbone, backbone.config, 0.0

    def forward(self, *arguments: Any) -> Tensor:
        _wait()
        begin = time.perf_counter()
        answer = self.backbone(*arguments)
        _wait()
        self.seconds += time.perf_counter() - begin
        return answer


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def shares(
    task: FlowTask, config: SamplerConfig, batch_size: int, num_rounds: int
) -> list[tuple[float, float]]:
    """Of each round: the share of the time that went by outside the network, and the milliseconds of a step."""
    cells = task.codec.grid(config.num_frames, config.height, config.width)
    noise = SampleRng(0, 0, torch.arange(batch_size)).randn(
        task.codec.latent_channels, cells.frames, cells.height, cells.width
    )
    x_0, grid = patchify(noise.to(task.device), task.backbone.config.patch)
    inputs = {"text": task.conditioners.named()["text"].features([PROMPT] * batch_size)}
    inside = Timed(task.backbone)
    task.backbone = inside
    velocity, found = guided_velocity(task, inputs, grid, config), []
    velocity(x_0, torch.zeros(batch_size, device=x_0.device))  # encodes the conditions
    for _ in range(num_rounds):
        inside.seconds = 0.0
        begin = time.perf_counter()
        solve(velocity, x_0, task.path, config)
        _wait()
        total = time.perf_counter() - begin
        found.append((1 - inside.seconds / total, 1000 * total / config.num_steps))
    task.backbone = inside.backbone
    return found


def figures(rounds: Sequence[tuple[float, float]], solver: str) -> list[Figure]:
    """Medians over rounds; low and high are the least and the greatest."""
    named = {
        "overhead": ("share of the step", [a for a, _ in rounds]),
        "step": ("ms", [b for _, b in rounds]),
    }
    return [
        Figure(f"sampler/{solver}/{name}", median(v), min(v), max(v), len(v), unit, False)
        for name, (unit, v) in named.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each solver and write numbers.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="experiments/toy/weights/t2v")
    parser.add_argument("--batch", type=int, default=16, help="clips, as conf/generate.yaml")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--solvers", nargs="+", default=["euler", "midpoint", "heun"])
    parser.add_argument("--size", type=int, nargs=3, default=(16, 64, 64), help="frames, height, width")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args(arguments)
    task = load_task(given.model)
    assert isinstance(task, FlowTask), f"{given.model} is no generator"
    frames, height, width = given.size
    found = []
    for solver in given.solvers:
        config = SamplerConfig(
            num_frames=frames, height=height, width=width, frame_rate=8.0, num_steps=given.steps,
            solver=solver, guidance=3.0,
        )  # fmt: skip
        found += figures(shares(task, config, given.batch, given.rounds), solver)
    for figure in found:
        print(f"{figure.name:28} {figure.value:.4f} ({figure.low:.4f} .. {figure.high:.4f}) {figure.unit}")
    write_numbers(given.out / "numbers.json", found)


if __name__ == "__main__":
    main()
