"""What each process of the scaling bench does: build a model on a layout, train a step, multiply matrices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import axes
from moviegen.parallel.plan import Plan
from moviegen.types import Grid

WORDS = 64  # tokens of text
PRODUCTS = 3  # of one reading of the ceiling, which takes the best


@dataclass(frozen=True)
class Shape:
    """The model and the batch, over all processes; the feed-forward network is 8/3 as wide as the model (paper)."""

    dim: int
    layers: int
    heads: int
    grid: tuple[int, ...]
    batch: int

    @property
    def tokens(self) -> int:
        """Of one sample."""
        return prod(self.grid)

    @property
    def config(self) -> BackboneConfig:
        frames, height, width = self.grid
        wide = self.dim * 8 // 3 // 64 * 64
        return BackboneConfig(
            self.dim, self.layers, self.heads, wide, max_frames=frames, max_height=height, max_width=width
        )


@dataclass
class _Kept:
    """What a process keeps from one call to the next."""

    steps: dict[str, Callable[[], None]] = field(default_factory=dict)
    groups: dict[str, dist.ProcessGroup | None] = field(default_factory=dict)
    like: Tensor = field(default_factory=lambda: torch.zeros(0))


KEPT = _Kept()


def prepare(name: str, config: ParallelConfig, shape: Shape, device: str, dtype: str) -> None:
    """Build the model of a layout and take its first step; one of a single process is built on rank 0 alone."""
    world, place = dist.get_world_size(), torch.device(device, dist.get_rank() if device == "cuda" else None)
    like = torch.zeros(0, device=place, dtype=getattr(torch, dtype))
    KEPT.like = like
    size = (config.dp_replicate or 1) * (config.dp_shard or 1) * config.cp * config.tp
    alone = size == 1
    mesh = None if alone else config.mesh(world).build(device)
    KEPT.groups[name] = None if alone else dist.group.WORLD
    if alone and dist.get_rank() > 0:
        return
    torch.manual_seed(0)
    model = Backbone(shape.config)
    Plan(mesh, config, None if dtype == "float32" else like.dtype).backbone(model)
    model.to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    samples = shape.batch if mesh is None else shape.batch // axes(mesh, "dp").size()
    x, target = torch.randn(2, samples, shape.tokens, shape.config.token_channels, device=place).unbind(0)
    text, mask = (
        torch.randn(samples, WORDS, shape.dim, device=place),
        torch.ones(samples, WORDS, device=place).bool(),
    )
    conditions, t = Conditions(Grid(*shape.grid), text, mask), torch.rand(samples, device=place)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, like.dtype, enabled=dtype != "float32"):
            velocity = model(x, t, conditions)
        (velocity - target).square().mean().backward()
        optimizer.step()

    run()
    KEPT.steps[name] = run


def _synchronize(name: str) -> None:
    if KEPT.like.is_cuda:
        torch.cuda.synchronize()
    if KEPT.groups[name] is not None:
        dist.barrier()


def step(name: str) -> float:
    """Seconds of one training step; 0 of a process that has no part in it."""
    if name not in KEPT.steps:
        return 0.0
    _synchronize(name)
    start = time.perf_counter()
    KEPT.steps[name]()
    _synchronize(name)
    return time.perf_counter() - start


def ceiling(name: str, size: int) -> float:
    """Best FLOP/s of a square matrix product, while all other processes of the layout do the same; 0 of the rest."""
    if name not in KEPT.steps:
        return 0.0
    a, b = torch.ones(2, size, size).to(KEPT.like).unbind(0)
    _synchronize(name)
    best = 0.0
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        torch.mm(a, b)
        if a.is_cuda:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
