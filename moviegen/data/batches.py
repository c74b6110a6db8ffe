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
from torch.utils.data import Dataset

from moviegen.data.mixture import Mixture
from moviegen.data.shards import ShardError, ShardSet
from moviegen.fields import Field
from moviegen.types import Batch

MEDIA = "media"


def key_number(key: str) -> int:
    """A stable number for a sample's key, 0 <= number < 2^63; it seeds the sample's noise."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def load_batch(samples: ShardSet, positions: Sequence[int], fields: Mapping[str, Field]) -> Batch:
    """Read, decode and collate `fields` of the samples at `positions`; reads no other file."""
    suffixes = {suffix: None for field in fields.values() for suffix in field.suffixes}
    keys: list[str] = []
    values: dict[str, list] = {name: [] for name in fields}
    for position in positions:
        shard, row = samples.find(int(position))
        sample = shard.read(row, suffixes)
        keys.append(sample.key)
        for name, field in fields.items():
            files = [sample.files[suffix] for suffix in field.suffixes]
            values[name].append(_decoded(field, files, f"{shard.path}: sample {sample.key}"))
    batch = {name: _collated(field, values[name], samples.name) for name, field in fields.items()}
    numbers = torch.tensor([key_number(key) for key in keys], dtype=torch.int64)
    return Batch(keys=numbers, media=batch.pop(MEDIA), inputs=batch)


def _decoded(field: Field, files: list[bytes], where: str) -> Any:
    try:
        return field.decode(*files)
    except Exception as error:
        raise ShardError(f"{where}: .{field.suffix} cannot be decoded ({error})") from error


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
    """Item `step` is this rank's batch of global step `step`, endlessly."""

    def __init__(
        self, sets: list[ShardSet], mixture: Mixture, fields: dict[str, Field], rank: int = 0, world: int = 1
    ):
        self.sets, self.mixture, self.fields = sets, mixture, fields
        self.rank, self.world = rank, world

    def __getitem__(self, step: int) -> Batch:
        source, positions = self.mixture.at(step)
        return load_batch(self.sets[source], rank_slice(positions, self.rank, self.world), self.fields)


class FixedBatches(Dataset):
    """Every sample once, in shard order, one size a batch; the last batch of a size may be smaller.

    On several ranks that last batch is filled up to a multiple of them by repeating its first samples.
    """

    def __init__(
        self, sets: list[ShardSet], batch_size: int, fields: dict[str, Field], rank: int = 0, world: int = 1
    ):
        self.sets, self.fields, self.rank, self.world = sets, fields, rank, world
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
        return load_batch(self.sets[which], rank_slice(positions, self.rank, self.world), self.fields)
