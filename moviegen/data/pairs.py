"""Finetuning data of a language model: json lines, read in the order and with the resume of samples in shards."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path

from moviegen.data.buckets import Bucket, Dropped
from moviegen.data.module import ShardData, Source
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

    def read(self, row: int, suffixes: Iterable[str], optional: Container[str] = ()) -> Sample:  # noqa: ARG002
        """The sample of line number `row`; its key is its id, or its number."""
        line = self.lines[row]
        try:
            PAIR.decode(line)
            key = str(json.loads(line).get("id", row))
        except ValueError as error:
            raise ShardError(f"{self.path}: exchange {row + 1}: {error}") from None
        return Sample(key, dict.fromkeys(suffixes, line))


class PairData(ShardData):
    """As ShardData, of folders with `<split>.jsonl` as `moviegen rewrite data` writes them."""

    def _fitting(self, source: Source) -> tuple[list[tuple[Bucket | None, ShardSet]], list[Dropped]]:
        """The lines of a source as one set; raises ShardError for a file without lines or with a wrong one."""
        shard = LineShard(Path(source.path) / f"{source.split}.jsonl")
        if not len(shard):
            raise ShardError(f"{shard.path}: holds no exchange")
        for row in range(len(shard)):
            shard.read(row, ())
        lines = ShardSet(str(shard.path), [shard])  # type: ignore[list-item] (it reads as a shard does)
        return [(None, lines)], []
