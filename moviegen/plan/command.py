"""`moviegen plan`: what a recipe costs on some hardware, and the layouts that fit; a table, plan.json and plan.svg."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from moviegen.backbone.config import BackboneConfig
from moviegen.config import UserError, build, check_least, compose, plain
from moviegen.plan.evaluate import Plan, Wanted, cost, plan
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job
from moviegen.plan.picture import picture
from moviegen.plan.shapes import backbone_shape
from moviegen.plan.table import record, table
from moviegen.runfolder import write_json, write_text


@dataclass(frozen=True)
class PlanConfig:
    """The keys of conf/plan.yaml, which says what they are."""

    hardware: Hardware
    gpus: int
    experiments: str | None = None
    settings: list[str] | None = None
    out: Path = Path("runs/plan")
    show: int = 10
    batch: int | None = None
    steps: int | None = None
    clip: tuple[int, int, int] | None = None
    context: int | None = None
    temporal_factor: int = 8
    spatial_factor: int = 8
    dp_replicate: int | None = None
    dp_shard: int | None = None
    cp: int | None = None
    tp: int | None = None
    context_method: Literal["all_gather", "ulysses", "ring"] | None = None
    checkpointing: Literal["none", "selective", "full"] | None = None
    micro_batch: int | None = None
    save_seconds: float = 5.0
    restart_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_least(self, gpus=1, show=1, batch=1, steps=1, context=0, temporal_factor=1, spatial_factor=1)
        check_least(
            self, dp_replicate=1, dp_shard=1, cp=1, tp=1, micro_batch=1, save_seconds=0, restart_seconds=0
        )

    @property
    def wanted(self) -> Wanted:
        """What is fixed of the layout."""
        axes = self.dp_replicate, self.dp_shard, self.cp, self.tp
        return Wanted(*axes, self.context_method, self.checkpointing, self.micro_batch)


@dataclass(frozen=True)
class Recipe:
    """What a training recipe says of its step."""

    backbone: BackboneConfig
    batch: int
    steps: int
    clip: tuple[int, int, int]  # frames, height, width in pixels
    context: int
    ema: bool
    buckets: tuple[tuple[int, int, int], ...] = ()  # frames, height, width of every one, images too


def plan_command(cfg: DictConfig) -> None:
    """Print the plan of a recipe and write it to `out`.

    Raises UserError or LayoutError, before anything is written, for a recipe without a backbone and for devices that no
    layout fits.
    """
    config: PlanConfig = build(cfg)
    recipe = read_recipe(config)
    grid = token_grid_of(recipe, config)
    others = (prod(token_grid_of(replace(recipe, clip=one), config)) for one in recipe.buckets)
    job = Job(
        backbone_shape(recipe.backbone),
        recipe.batch,
        prod(grid),
        recipe.context,
        others=tuple(sorted(set(others))),
    )
    found = plan(job, config.hardware, config.gpus, config.wanted, recipe.ema)
    job_line = (
        f"{config.experiments or 'train'}: batch {recipe.batch} of {'x'.join(map(str, recipe.clip))} pixels"
    )
    _write(config, recipe, job, found, grid, job_line)


def _write(
    config: PlanConfig, recipe: Recipe, job: Job, found: Plan, grid: tuple[int, int, int], title: str
) -> None:
    from moviegen.plan.counting import count
    from moviegen.types import Grid

    counted = count(recipe.backbone, Grid(*grid), recipe.context)
    best = found.fitting[0]
    run = cost(
        best.step.seconds,
        recipe.steps,
        config.gpus,
        config.hardware,
        config.save_seconds,
        config.restart_seconds,
    )
    print(table(title, job, counted, config.hardware, found, run, config.show))
    write_json(config.out / "plan.json", record(job, counted, config.hardware, found, run, config.show))
    write_text(config.out / "plan.svg", picture(title, config.hardware, found.best(config.show)))
    print(f"{config.out / 'plan.json'} and {config.out / 'plan.svg'} written")


def read_recipe(config: PlanConfig) -> Recipe:
    """The parts of a training recipe that a plan needs, each replaced by what the command line gives."""
    overrides = [f"experiments={config.experiments}"] if config.experiments else []
    cfg = plain(compose("train", [*overrides, *(config.settings or [])]))
    node = (cfg["task"].get("backbone") or {}).get("config")
    if node is None:
        raise UserError(
            f"experiments={config.experiments}: {cfg['task']['_target_']} has no backbone; a plan is of a generator"
        )
    ema = bool((cfg["callbacks"] or {}).get("ema"))
    text = sum(_named(cfg["task"].get("conditioners"), "max_tokens"))
    return Recipe(
        backbone=build(node),
        batch=config.batch or int(cfg["data"]["batch_size"]),
        steps=config.steps or int(cfg["trainer"]["max_steps"]),
        clip=config.clip or _largest_clip(cfg),
        context=text if config.context is None else config.context,
        ema=ema,
        buckets=() if config.clip else _buckets(cfg),
    )


def _buckets(cfg: dict[str, Any]) -> tuple[tuple[int, int, int], ...]:
    """Frames, height and width of every bucket that training reads; none where it has no buckets."""
    table = cfg["data"].get("buckets") or {"durations": {}}
    return tuple((n, *size) for n in sorted({*table["durations"].values()}) for size in table["sizes"])


def _largest_clip(cfg: dict[str, Any]) -> tuple[int, int, int]:
    """Frames, height and width of the costliest bucket, or, without buckets, of the videos that training samples."""
    if buckets := _buckets(cfg):
        return max(buckets, key=prod)
    sampler = cfg.get("sampler") or {}
    sizes = [int(sampler[key]) for key in ("num_frames", "height", "width") if key in sampler]
    if len(sizes) < 3:
        raise UserError("the recipe names no sizes of clips: add clip=[frames,height,width]")
    return sizes[0], sizes[1], sizes[2]


def _named(node: Any, name: str) -> Iterator[int]:
    """Values of a key anywhere in a config."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from [int(value)] if key == name else _named(value, name)


def token_grid_of(recipe: Recipe, config: PlanConfig) -> tuple[int, int, int]:
    """Tokens of a clip along time, height and width; raises UserError where they do not divide or are too many."""
    frames, height, width = recipe.clip
    sites = (
        -(-frames // config.temporal_factor),
        height // config.spatial_factor,
        width // config.spatial_factor,
    )
    patch = recipe.backbone.patch
    steps = config.spatial_factor * patch[1], config.spatial_factor * patch[2]
    if sites[0] % patch[0] or height % steps[0] or width % steps[1]:
        raise UserError(
            f"clip={list(recipe.clip)}: height and width must be multiples of {steps[0]} and {steps[1]}"
        )
    grid = sites[0] // patch[0], sites[1] // patch[1], sites[2] // patch[2]
    limits = recipe.backbone.max_frames, recipe.backbone.max_height, recipe.backbone.max_width
    if any(n > limit for n, limit in zip(grid, limits, strict=True)):
        what = f"clip={list(recipe.clip)} is a grid of {list(grid)} tokens"
        raise UserError(f"{what}, the model has positions for {list(limits)}")
    return grid
