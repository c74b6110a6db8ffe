"""The data module: weighted shard sources in, batches of exactly the fields that the task asks for out.

Nothing but the number of consumed batches is state: the samples of step n follow from (seed, n).
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from moviegen.data.batches import MEDIA, FixedBatches, Reader, TrainBatches
from moviegen.data.mixture import Mixture
from moviegen.data.shards import ShardFolder, ShardSet
from moviegen.fields import Field
from moviegen.types import Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Shards of one split of a folder. Only training looks at `weight`; `match` is a pattern of tar names."""

    path: str
    split: str = "train"
    weight: float = 1.0
    match: str = "*"


class StepSampler(Sampler[int]):
    """The steps from `module.step` on; asked anew whenever the loader starts."""

    def __init__(self, module: ShardData):
        self.module = module

    def __iter__(self) -> Iterator[int]:
        return count(self.module.step)


class ShardData(LightningDataModule):
    """Training and validation batches from shards, with exact resume in the middle of an epoch.

    The training loader is endless: `Trainer(max_steps=...)` ends the run. Order depends on `seed` and
    the step alone, not on workers or ranks; `Trainer(use_distributed_sampler=False)` is assumed.

    Args:
        train, val: sources by name. Each step draws one source by weight; validation reads all of every one.
        batch_size: samples of a step over all data-parallel ranks.
        num_workers: processes that read ahead.
        cache_bytes: memory in which each worker keeps decoded samples, 0 for none. An mp4 of the toy size
            takes about 8 ms to decode, nearly all of it to open.
    """

    def __init__(
        self,
        train: Mapping[str, Source],
        val: Mapping[str, Source] | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        cache_bytes: int = 0,
    ):
        super().__init__()
        if not train:
            raise ValueError("data needs at least one training source, got none")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.train_sources, self.val_sources = dict(train), dict(val or {})
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.cache_bytes = cache_bytes
        self.fields: dict[str, Field] = {}
        self.step = 0  # batches that training has consumed
        self._dp: tuple[int, int] | None = None

    def use(
        self, fields: Mapping[str, Field], dp_rank: int | None = None, dp_size: int | None = None
    ) -> None:
        """Say what to read, before loaders are made: a field for "media" and one for each condition.

        Without `dp_rank` and `dp_size`, each process of the trainer is a data-parallel rank of its own.
        """
        if MEDIA not in fields:
            raise ValueError(f"fields must hold {MEDIA!r}, got {', '.join(fields) or 'none'}")
        self.fields = dict(fields)
        if dp_rank is not None and dp_size is not None:
            self._dp = (dp_rank, dp_size)

    def _rank_and_world(self) -> tuple[int, int]:
        if self._dp is not None:
            return self._dp
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _divided(self) -> tuple[int, int]:
        rank, world = self._rank_and_world()
        if self.batch_size % world:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of the {world} data-parallel ranks"
            )
        return rank, world

    def train_dataloader(self) -> DataLoader:
        sets, weights = weighted_sets(self.train_sources)
        mixture = Mixture([len(samples) for samples in sets], weights, self.batch_size, self.seed)
        return self._loader(TrainBatches(sets, mixture, self._reader(), *self._divided()), StepSampler(self))

    def val_dataloader(self) -> DataLoader | list:
        if not self.val_sources:
            return []
        sets, _ = weighted_sets(self.val_sources)
        return self._loader(FixedBatches(sets, self.batch_size, self._reader(), *self._divided()), None)

    def _reader(self) -> Reader:
        if not self.fields:
            raise ValueError("nothing says what to read: call use(fields) before making a loader")
        return Reader(self.fields, self.cache_bytes)

    def _loader(self, batches: Dataset, sampler: Sampler[int] | None) -> DataLoader:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_ignore_interrupts,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Count the batches that reach a training step; a loader that reads ahead does not count."""
        if self.trainer is not None and self.trainer.training:
            self.step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "batch_size": self.batch_size, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        for name in ("batch_size", "seed"):
            if state_dict[name] != getattr(self, name):
                log.warning(
                    "data.%s was %s and is now %s: the samples that follow are not those of the first run",
                    name,
                    state_dict[name],
                    getattr(self, name),
                )


def _ignore_interrupts(worker: int) -> None:  # noqa: ARG001 (signature of a worker_init_fn)
    """Leave Ctrl-C to the training process, which ends its step first and then its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def weighted_sets(sources: Mapping[str, Source]) -> tuple[list[ShardSet], list[float]]:
    """The sets of all sources by name; a source of several sizes gives each its share of the weight."""
    sets: list[ShardSet] = []
    weights: list[float] = []
    for _, source in sorted(sources.items()):
        found = ShardFolder(source.path).sets(source.split, source.match)
        total = sum(len(samples) for samples in found)
        sets += found
        weights += [source.weight * len(samples) / total for samples in found]
    return sets, weights
