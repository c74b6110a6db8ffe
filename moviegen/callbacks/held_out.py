"""A held-out loss that says something: by noise level, size and task, with intervals, and against a base model.

Samples, noise and times are fixed, so that two checkpoints differ by their weights alone. Movie Gen chooses checkpoints
and learning rates by such a loss, which goes with what people prefer (paper 3.2.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import WandbLogger
from safetensors.torch import load_file
from scipy.special import ndtr, stdtrit
from torch import Tensor

from moviegen.backbone.positions import grown
from moviegen.tasks.flow_task import VALIDATION_TIMES, FlowTask
from moviegen.tasks.lora import under_lora
from moviegen.tasks.sharded import placed_like
from moviegen.types import Batch, Latent

RESAMPLES = 1000
Fit = Callable[[dict[str, Tensor], FlowTask, str], dict[str, Tensor]]


@dataclass(frozen=True)
class Number:
    """A mean over `n` samples with a 95 % interval; null bounds for a single sample."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Measured:
    """The losses of one held-out sample under one task, at each of the fixed times."""

    task: str
    key: int
    bucket: str
    losses: list[float]
    base: list[float] | None
    batch: int = 0  # number of its batch, the same at each validation

    @property
    def name(self) -> tuple[str, int, str, int]:
        """What tells it from others: sources may hold a sample of the same key, at another frame rate say."""
        return self.task, self.key, self.bucket, self.batch


class HeldOutLoss(L.Callback):
    """At each validation of a generator, split up its held-out loss and log it as curves, a file and a W&B table.

    Args:
        file: one line of json a validation is added to it.
        tasks: name -> conditions that are withheld, None to leave the task out; everything else is told of the first.
        base: a model on disk (path without suffix), of the same architecture or one to start from; each loss is
            also given as a ratio to its.
        samples: where the Samples callback writes; its videos go into the W&B table of this validation.
    """

    def __init__(
        self,
        file: str,
        tasks: Mapping[str, list[str] | None] | None = None,
        base: str | None = None,
        samples: str | None = None,
    ):
        self.file, self.samples = Path(file), Path(samples) if samples else None
        asked = {name: drop for name, drop in (tasks or {}).items() if drop is not None}
        self.tasks = {name: frozenset(drop) for name, drop in (asked or {"all": []}).items()}
        self.base = Path(f"{base}.safetensors") if base else None
        if self.base is not None and not self.base.is_file():
            raise ValueError(f"base={base}: there is no {self.base}")
        self._weights: dict[str, Tensor] = {}
        self._base_losses: dict[tuple[str, int, int], list[float]] = {}  # by task, batch, key
        self._rows: list[Measured] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        if not self._weights:
            self.prepare(pl_module)

    def prepare(self, pl_module: L.LightningModule, fit: Fit | None = None) -> None:
        """Read the base, made to fit a model as it would to start from it; other tasks have none.

        Args:
            fit: makes weights of the model at a path fit a task, before its own `adopted`.

        Raises ValueError for a base, or a withheld condition, that the model does not have.
        """
        if not isinstance(pl_module, FlowTask):
            return
        has = pl_module.conditioners.named()
        if unknown := sorted({name for drop in self.tasks.values() for name in drop} - set(has)):
            raise ValueError(f"held-out tasks withhold {unknown[0]!r}; this model has {sorted(has)}")
        if self.base is not None:
            own = {name: value.detach() for name, value in pl_module.named_parameters()}
            read = load_file(self.base)
            fitted = fit(read, pl_module, str(self.base.with_suffix(""))) if fit else read
            base = under_lora(fitted, own)
            self._weights = pl_module.adopted(grown(base, own))
            wrong = [n for n in own if n not in self._weights or self._weights[n].shape != own[n].shape]
            if wrong:
                raise ValueError(
                    f"base {self.base} is of another architecture: {wrong[0]} is absent or differs"
                )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._rows = []

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, FlowTask):
            return
        bucket, keys = _bucket(batch), batch.keys.tolist()
        for task, drop in self.tasks.items():
            with trainer.precision_plugin.val_step_context():  # Lightning has closed that of the step
                losses = pl_module.held_out(batch, drop) if drop else outputs
                self._measure_base(pl_module, batch, task, batch_idx)
            for key, row in zip(keys, losses.float().tolist(), strict=True):
                base = self._base_losses.get((task, batch_idx, key))
                self._rows.append(Measured(task, key, bucket, row, base, batch_idx))

    def _measure_base(self, task: FlowTask, batch: Batch, name: str, number: int) -> None:
        """The base's losses on batch number `number`, once a run."""
        keys = [(name, number, key) for key in batch.keys.tolist()]
        if self._weights and any(key not in self._base_losses for key in keys):
            with _weights_of(task, self._weights):
                found = task.held_out(batch, self.tasks[name]).float().tolist()
            self._base_losses |= dict(zip(keys, found, strict=True))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, FlowTask):
            return
        rows = _everywhere(self._rows)
        if not rows or not trainer.is_global_zero:
            return
        numbers, step = summarized(rows, next(iter(self.tasks))), trainer.global_step
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = {"step": step, "base": str(self.base) if self.base else None}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"numbers": [asdict(number) for number in numbers]}) + "\n")
        curves = {number.name: number.value for number in numbers}
        curves |= {f"{n.name}/low": n.low for n in numbers if n.low is not None}
        curves |= {f"{n.name}/high": n.high for n in numbers if n.high is not None}
        for logger in trainer.loggers:
            logger.log_metrics(curves, step=step)
            if isinstance(logger, WandbLogger):
                self._log_tables(logger, numbers, step)

    def _log_tables(self, logger: WandbLogger, numbers: list[Number], step: int) -> None:
        import wandb

        rows = [[step, n.name, n.value, n.low, n.high, n.n] for n in numbers]
        logger.log_table(
            "held_out", columns=["step", "name", "value", "low", "high", "n"], data=rows, step=step
        )
        folder = self.samples / f"step-{step:06d}" if self.samples else None
        paths = [file for end in ("mp4", "png") for file in sorted(folder.glob(f"*.{end}"))] if folder else []
        if paths:
            of = {n.name: n.value for n in numbers}
            rest = [of["held_out/loss"], of.get("held_out/ratio")]
            videos = []
            for path in paths:  # a column of a W&B table takes one kind of media
                still = path.suffix == ".png"
                video = None if still else wandb.Video(str(path), format="mp4")
                videos.append([step, path.stem, video, wandb.Image(str(path)) if still else None, *rest])
            columns = ["step", "sample", "video", "image", "held_out/loss", "held_out/ratio"]
            logger.log_table("held_out/samples", columns=columns, data=videos, step=step)


def _bucket(batch: Batch) -> str:
    """Height x width x frames of a batch, in cells of cached latents or else pixels, and the name of its duration."""
    values = batch.media.values if isinstance(batch.media, Latent) else batch.video().frames
    frames, height, width = values.shape[2:]
    return f"{height}x{width}x{frames}" + f"/{batch.duration}" * bool(batch.duration)


@contextmanager
def _weights_of(task: FlowTask, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The task with other weights, and with its own again afterwards."""
    own = {name: p.detach().clone() for name, p in task.named_parameters()}
    try:
        for name, p in task.named_parameters():
            p.copy_(placed_like(weights[name], p))
        yield
    finally:
        for name, p in task.named_parameters():
            p.copy_(own[name])


def _everywhere(rows: list[Measured]) -> list[Measured]:
    """The rows of all processes; a sample that filled up its batch counts once."""
    parts: list[list[Measured]] = [rows]
    if dist.is_initialized() and dist.get_world_size() > 1:
        parts = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, rows)
    found = {row.name: row for part in parts for row in part}
    return [found[name] for name in sorted(found)]


def summarized(rows: list[Measured], first: str) -> list[Number]:
    """Means with intervals: over all samples, by time, by bucket and by task, then the same as ratios to the base.

    Time and bucket are told of the task `first`. Every sample weighs the same.
    """
    of_first = [row for row in rows if row.task == first]
    groups: dict[str, tuple[list[Measured], slice]] = {"": (of_first, slice(None))}
    for number, time in enumerate(VALIDATION_TIMES):
        groups[f"/time/{time}"] = (of_first, slice(number, number + 1))
    for bucket in sorted({row.bucket for row in of_first}):
        groups[f"/bucket/{bucket}"] = ([row for row in of_first if row.bucket == bucket], slice(None))
    for task in dict.fromkeys(row.task for row in rows):
        groups[f"/task/{task}"] = ([row for row in rows if row.task == task], slice(None))
    losses = [
        _number(f"held_out/loss{name}", part, times, ratio=False) for name, (part, times) in groups.items()
    ]
    if any(row.base is None for row in rows):
        return losses
    return losses + [
        _number(f"held_out/ratio{name}", part, times, ratio=True) for name, (part, times) in groups.items()
    ]


def _number(name: str, rows: list[Measured], times: slice, ratio: bool) -> Number:
    own = np.array([np.mean(row.losses[times]) for row in rows])
    base = np.array([np.mean((row.base or [])[times]) for row in rows]) if ratio else np.ones(len(rows))
    low, high = interval(own, base)
    return Number(name, float(own.sum() / base.sum()), low, high, len(rows))


def interval(own: np.ndarray, base: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """95 % bootstrap interval of sum(own) / sum(base), pairs [N] drawn together; a mean where `base` is ones.

    Percentiles are moved outwards until, for normal values, they are as wide as Student's.
    """
    count = len(own)
    if count < 2:
        return None, None
    picks = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    reach = math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975)
    value = own.sum() / base.sum()
    low, high = np.quantile(own[picks].sum(1) / base[picks].sum(1), (ndtr(-reach), ndtr(reach)))
    return float(min(low, value)), float(max(high, value))
