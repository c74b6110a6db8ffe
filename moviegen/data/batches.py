"""Batches from shard sets: for training one of each step, for validation a fixed list.

Both are map-style datasets whose item is a whole batch: the DataLoader keeps their order for any number of
workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from moviegen.data.mixture import Mixture
from moviegen.data.shards import Shard, ShardError, ShardSet
from moviegen.fields import Field
from moviegen.types import Batch, PackedBatch

MEDIA = "media"


def key_number(key: str) -> int:
    """A stable number for a sample's key, its 64-bit hash as a signed integer (int64); it seeds the sample's noise."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


class Reader:
    """Reads, decodes and collates `fields` of samples, and no other file.

    Decoded values are kept until they fill `cache_bytes`; each worker process has a cache of its own.
    """

    def __init__(self, fields: Mapping[str, Field], cache_bytes: int = 0):
        self.fields, self.cache_bytes = dict(fields), cache_bytes
        self._kept: dict[tuple, tuple[str, list]] = {}
        self._kept_bytes = 0

    def batch(self, samples: ShardSet, positions: Sequence[int]) -> Batch:
        """The samples of a set at `positions`."""
        found = [self._sample(*samples.find(position)) for position in positions]
        columns = zip(*(values for _, values in found), strict=True)
        batch = {
            name: _collated(field, list(values), samples.name)
            for (name, field), values in zip(self.fields.items(), columns, strict=True)
        }
        numbers = torch.tensor([key_number(key) for key, _ in found], dtype=torch.int64)
        names = tuple(key for key, _ in found)
        return Batch(numbers, batch.pop(MEDIA), batch, names, samples.duration)

    def _sample(self, shard: Shard, row: int) -> tuple[str, list]:
        """Key and decoded values of one sample."""
        if (shard.path, row) in self._kept:
            return self._kept[shard.path, row]
        suffixes = {suffix: None for field in self.fields.values() for suffix in field.suffixes}
        optional = {suffix for field in self.fields.values() for suffix in field.optional}
        sample = shard.read(row, suffixes, optional)
        where = f"{shard.path}: sample {sample.key}"
        values = [
            _decoded(field, [sample.files[suffix] for suffix in field.suffixes], where)
            for field in self.fields.values()
        ]
        size = sum(num_bytes(value) for value in values)
        if self._kept_bytes + size <= self.cache_bytes:
            self._kept[shard.path, row] = (sample.key, values)
            self._kept_bytes += size
        return sample.key, values


def num_bytes(value: Any) -> int:
    """Memory of a decoded value; what is no array counts as a kilobyte."""
    if isinstance(value, tuple | list):
        return sum(num_bytes(item) for item in value)
    return value.nbytes if isinstance(value, np.ndarray | Tensor) else 1024


def _decoded(field: Field, files: list[bytes], where: str) -> Any:
    try:
        return field.decode(*files)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ShardError(f"{where}: .{field.suffix} cannot be decoded ({reason})") from error


def _collated(field: Field, values: list, where: str) -> Any:
    try:
        return field.collate(values)
    except ValueError as error:
        raise ShardError(f"{where}: {error}") from error


def rank_slice(positions: np.ndarray, rank: int, world: int) -> list[int]:
    """The part of a global batch that data-parallel rank `rank` of `world` takes."""
    share = len(positions) // world
    return positions[rank * share : (rank + 1) * share].tolist()


class TrainBatches(Dataset):
    """Item `step` is this rank's batch of global step `step`, endlessly.

    With `draws` above 1 a step takes that many draws of the mixture, packed; draws of one set are one part.
    """

    def __init__(
        self,
        sets: list[ShardSet],
        mixture: Mixture,
        reader: Reader,
        rank: int = 0,
        world: int = 1,
        draws: int = 1,
    ):
        self.sets, self.mixture, self.reader = sets, mixture, reader
        self.rank, self.world, self.draws = rank, world, draws

    def __getitem__(self, step: int) -> Batch | PackedBatch:
        drawn: dict[int, list[int]] = {}
        for draw in range(step * self.draws, (step + 1) * self.draws):
            source, positions = self.mixture.at(draw)
            drawn.setdefault(source, []).extend(rank_slice(positions, self.rank, self.world))
        parts = tuple(self.reader.batch(self.sets[source], drawn[source]) for source in sorted(drawn))
        return parts[0] if self.draws == 1 else PackedBatch(parts)


class FixedBatches(Dataset):
    """Every sample once, in shard order, one size a batch; the last batch of a size may be smaller.

    On several ranks that last batch is filled up to a multiple of them by repeating its first samples.
    """

    def __init__(self, sets: list[ShardSet], batch_size: int, reader: Reader, rank: int = 0, world: int = 1):
        self.sets, self.reader, self.rank, self.world = sets, reader, rank, world
        self.plan = [
            (which, first, min(first + batch_size, len(samples)))
            for which, samples in enumerate(sets)
            for first in range(0, len(samples), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Batch:
        which, first, last = self.plan[index]
        count = -(-(last - first) // self.world) * self.world
        positions = np.resize(np.arange(first, last), count)
        return self.reader.batch(self.sets[which], rank_slice(positions, self.rank, self.world))
