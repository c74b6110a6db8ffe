"""The data module: weighted shard sources in, batches of exactly the fields that the task asks for out.

Nothing but the number of consumed batches is state: the samples of step n follow from (seed, n).
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar
from weakref import WeakSet

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from moviegen.data.batches import MEDIA, FixedBatches, Reader, TrainBatches
from moviegen.data.buckets import (
    Bucket,
    BucketTable,
    Dropped,
    Found,
    Plan,
    SampleCost,
    Sizing,
    dropped_before,
    make_plan,
    refuse_empty,
    select,
)
from moviegen.data.mixture import BLOCK, Mixture
from moviegen.data.shards import ShardFolder, ShardSet
from moviegen.fields import Field
from moviegen.parallel.trainer import data_parallel
from moviegen.types import Batch

log = logging.getLogger(__name__)
GRACE_SECONDS = 600  # how long a worker outlives SIGTERM: the training process may save first


@dataclass(frozen=True)
class Source:
    """Shards of one split of a folder. Only training looks at `weight`; `match` is a pattern of tar names."""

    path: str
    split: str = "train"
    weight: float = 1.0
    match: str = "*"


class Loader(DataLoader):
    """One whose workers can be told to end.

    The traceback of what broke a training off holds on to the iterator, and so the workers would live until Python
    ends. Python then sends each of them one SIGTERM and waits, which those of `_outlive_signals` do not heed.
    """

    _running: ClassVar[WeakSet] = WeakSet()  # iterators with workers

    def __iter__(self) -> _BaseDataLoaderIter:
        iterator = super().__iter__()
        if self.num_workers:
            self._running.add(iterator)
        return iterator

    @classmethod
    def end_workers(cls) -> None:
        """End the workers of all loaders of this process, after the batch that each is making."""
        for iterator in list(cls._running):
            iterator._shutdown_workers()  # as Lightning does for workers that are kept between epochs


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
        batch_size: samples of a step over all data-parallel ranks; with `balanced`, of the costliest bucket.
        num_workers: processes that read ahead.
        cache_bytes: memory in which each worker keeps decoded samples, 0 for none. An mp4 of the toy size
            takes about 8 ms to decode, nearly all of it to open.
        buckets: sizes that training expects: other clips are dropped, from validation too; a bucket without samples is
            refused.
        balanced: give cheaper buckets larger batches of the same cost, in multiples of `batch_multiple` and at most
            `batch_limit`.
        mix_by: whether a source's weight is its share of "steps" or of "samples".
        packed_draws: draws of the mixture that a step packs into one sequence; 1 for none.
    """

    def __init__(  # noqa: PLR0913 (the settings of conf/data)
        self,
        train: Mapping[str, Source],
        val: Mapping[str, Source] | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        cache_bytes: int = 0,
        buckets: BucketTable | None = None,
        balanced: bool = False,
        batch_multiple: int = 1,
        mix_by: str = "steps",
        packed_draws: int = 1,
        batch_limit: int | None = None,
    ):
        super().__init__()
        if not train:
            raise ValueError("data needs at least one training source, got none")
        if packed_draws < 1:
            raise ValueError(f"packed_draws must be at least 1, got {packed_draws}")
        self.sizing = Sizing(batch_size, balanced, batch_multiple, mix_by, batch_limit)
        self.buckets, self.packed_draws = buckets, packed_draws
        self.train_sources, self.val_sources = dict(train), dict(val or {})
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.cache_bytes = cache_bytes
        self.fields: dict[str, Field] = {}
        self.cost: SampleCost | None = None
        self.step = 0  # batches that training has consumed
        self._sets: list[list[Any]] = []  # name, samples and steps in a block of each set that training draws
        self._dp: tuple[int, int] | None = None

    def use(
        self,
        fields: Mapping[str, Field],
        dp_rank: int | None = None,
        dp_size: int | None = None,
        cost: SampleCost | None = None,
    ) -> None:
        """Say what to read, before loaders are made: a field for "media" and one for each condition.

        `cost` tells a sample's tokens and cost by its size in pixels; it raises ValueError for one that the model
        cannot take. Without `dp_rank` and `dp_size` they follow from the trainer's mesh, or each of its processes is a
        data-parallel rank of its own.
        """
        if MEDIA not in fields:
            raise ValueError(f"fields must hold {MEDIA!r}, got {', '.join(fields) or 'none'}")
        self.fields, self.cost = dict(fields), cost
        if dp_rank is not None and dp_size is not None:
            self._dp = (dp_rank, dp_size)

    def _rank_and_world(self) -> tuple[int, int]:
        if self._dp is not None:
            return self._dp
        return data_parallel(self.trainer) if self.trainer is not None else (0, 1)

    def plan(self) -> Plan:
        """What training reads, bucket by bucket, and what it and validation leave out.

        Raises ValueError for a bucket without samples, or one that the model or the ranks cannot take.
        """
        found: list[Found] = []
        dropped: list[Dropped] = []
        for name, source in self.train_sources.items():
            pairs, left_out = self._fitting(source)
            dropped += left_out
            found += [Found(name, source.weight, bucket, samples) for bucket, samples in pairs]
        if self.buckets is not None:
            refuse_empty(self.buckets, found, dropped)
        for path in dict.fromkeys(source.path for source in self.train_sources.values()):
            dropped += dropped_before(Path(path))
        for source in self.val_sources.values() if self.buckets is not None else ():
            left_out = self._fitting(source)[1]
            dropped += [replace(one, where=f"{source.split} {one.where}") for one in left_out]
        plan = make_plan(found, dropped, self.sizing, self.cost)
        for row in plan.rows:
            self._share(row.batch_size)
        return plan

    def _fitting(self, source: Source) -> tuple[list[tuple[Bucket | None, ShardSet]], list[Dropped]]:
        """The samples of a source by bucket, and those that fit none; all of them where no buckets are asked for."""
        folder = ShardFolder(source.path)
        sets = folder.sets(source.split, source.match)
        if self.buckets is None:
            return [(_bucket(samples), samples) for samples in sets], []
        suffixes = sorted({s for one in self.fields.values() for s in one.suffixes if s not in one.optional})
        kept, dropped = select(folder, sets, self.buckets, suffixes)
        return list(kept), dropped

    def _share(self, batch_size: int) -> tuple[int, int]:
        rank, world = self._rank_and_world()
        if batch_size % world:
            raise ValueError(f"batch_size {batch_size} is no multiple of the {world} data-parallel ranks")
        return rank, world

    def train_dataloader(self) -> DataLoader:
        plan, reader = self.plan(), self._reader()
        warning = plan.warning()
        if warning and self.trainer is None:  # once: a trainer asks for the loader again
            log.warning(warning)
        sizes = [row.batch_size for row in plan.rows]
        mixture = Mixture(
            [len(row.samples) for row in plan.rows], [row.weight for row in plan.rows], sizes, self.seed
        )
        drawn = zip(plan.rows, mixture.counts, strict=True)
        self._sets = [[f"{row.source} {row.name}", len(row.samples), int(steps)] for row, steps in drawn]
        sets, ranks = [row.samples for row in plan.rows], self._rank_and_world()
        return self._loader(
            TrainBatches(sets, mixture, reader, *ranks, draws=self.packed_draws), StepSampler(self)
        )

    def val_dataloader(self) -> DataLoader | list:
        if not self.val_sources:
            return []
        found = [one for source in self.val_sources.values() for one in self._fitting(source)[0]]
        sets = [samples for _, samples in found]
        if not sets:
            raise ValueError("none of the validation clips fits a bucket of data.buckets")
        return self._loader(
            FixedBatches(sets, self.batch_size, self._reader(), *self._share(self.batch_size)), None
        )

    def first(self, samples: ShardSet) -> Any:
        """The media of the first sample of a set, as a batch of one."""
        return Reader({MEDIA: self.fields[MEDIA]}).batch(samples, [0]).media

    def _reader(self) -> Reader:
        if not self.fields:
            raise ValueError("nothing says what to read: call use(fields) before making a loader")
        return Reader(self.fields, self.cache_bytes)

    def _loader(self, batches: Dataset, sampler: Sampler[int] | None) -> DataLoader:
        return Loader(
            batches,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_outlive_signals,
        )

    def on_exception(self, exception: BaseException) -> None:  # noqa: ARG002 (Lightning's hook)
        Loader.end_workers()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Count the batches that reach a training step; a loader that reads ahead does not count."""
        if self.trainer is not None and self.trainer.training:
            self.step += 1
        return batch

    def _order(self) -> dict[str, Any]:
        """Settings that decide which samples a step takes."""
        sizing = {"balanced": self.sizing.balanced, "mix_by": self.sizing.mix_by}
        order = {"batch_size": self.batch_size, "seed": self.seed, "packed_draws": self.packed_draws}
        return order | sizing | {"batch_multiple": self.sizing.multiple, "batch_limit": self.sizing.limit}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, **self._order(), "sets": self._sets}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]
        for name, value in self._order().items():
            if state_dict.get(name, value) != value:
                log.warning(
                    "data.%s was %s and is now %s: the samples that follow are not those of the first run",
                    name,
                    state_dict[name],
                    value,
                )
        before = state_dict.get("sets")  # none of a checkpoint of before
        if before and self._sets and before != self._sets:
            log.warning(
                "data: %s: the samples that follow are not those of the first run",
                _difference(before, self._sets),
            )


def _difference(before: list[list[Any]], now: list[list[Any]]) -> str:
    """What differs between the sets that two runs draw: the first of them, and how many more."""
    old, new = (
        {name: f"{samples} samples in {steps} of {BLOCK} steps" for name, samples, steps in sets}
        for sets in (before, now)
    )
    names = [name for name in old | new if old.get(name) != new.get(name)]
    if not names:
        return "the sources were in another order"
    first, more = names[0], f" (and {len(names) - 1} more)" * (len(names) > 1)
    return f"{first} had {old.get(first, 'nothing')} and has {new.get(first, 'nothing')}{more}"


def _outlive_signals(worker: int) -> None:  # noqa: ARG001 (signature of a worker_init_fn)
    """Leave signals that reach the whole group to the training process: it ends its step first, then its workers.

    SIGTERM twice ends a worker at once; once, after a while.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _told_to_go)


def _told_to_go(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signature of a handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE_SECONDS)


def _bucket(samples: ShardSet) -> Bucket | None:
    size = samples.shards[0].bucket
    return None if size is None else Bucket("", *size)
