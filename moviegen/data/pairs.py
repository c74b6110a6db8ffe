"""Finetuning data of a language model: json lines, read in the order and with the resume of samples in shards."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from torch.utils.data import DataLoader

from moviegen.data.batches import FixedBatches, TrainBatches
from moviegen.data.mixture import Mixture
from moviegen.data.module import ShardData, Source, StepSampler
from moviegen.data.shards import Sample, ShardError, ShardSet
from moviegen.fields import PAIR


class LineShard:
    """The lines of a jsonl file, each one sample with a single file `.pair.json`."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line.strip()]
        except OSError as error:
            raise ShardError(f"{self.path}: cannot be read ({error.strerror})") from None

    def __len__(self) -> int:
        return len(self.lines)

    def read(self, row: int, suffixes: Iterable[str]) -> Sample:
        """The sample of line number `row`; its key is its id, or its number."""
        line = self.lines[row]
        try:
            PAIR.decode(line)
            key = str(json.loads(line).get("id", row))
        except ValueError as error:
            raise ShardError(f"{self.path}: exchange {row + 1}: {error}") from None
        return Sample(key, dict.fromkeys(suffixes, line))


def line_sets(sources: dict[str, Source]) -> tuple[list[ShardSet], list[float]]:
    """One set for each source by name, and its weight; ShardError for a file without lines or with a wrong one."""
    sets, weights = [], []
    for _, source in sorted(sources.items()):
        shard = LineShard(Path(source.path) / f"{source.split}.jsonl")
        if not len(shard):
            raise ShardError(f"{shard.path}: holds no exchange")
        for row in range(len(shard)):
            shard.read(row, ())
        sets.append(ShardSet(str(shard.path), [shard]))  # type: ignore[list-item] (it reads as a shard does)
        weights.append(source.weight)
    return sets, weights


class PairData(ShardData):
    """As ShardData, of folders with `<split>.jsonl` as `moviegen rewrite data` writes them."""

    def train_dataloader(self) -> DataLoader:
        sets, weights = line_sets(self.train_sources)
        mixture = Mixture([len(lines) for lines in sets], weights, self.batch_size, self.seed)
        return self._loader(TrainBatches(sets, mixture, self._reader(), *self._divided()), StepSampler(self))

    def val_dataloader(self) -> DataLoader | list:
        if not self.val_sources:
            return []
        sets, _ = line_sets(self.val_sources)
        return self._loader(FixedBatches(sets, self.batch_size, self._reader(), *self._divided()), None)
