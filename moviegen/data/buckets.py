"""Buckets: the sizes that training expects, how many samples of each make a step, and what is left out (paper 3.2.2).

Every bucket is an aspect ratio and a duration; the paper has five of each. Samples of one bucket have equal latents,
and shards hold one bucket each. A step costs the same whatever its bucket, so small sizes come in larger batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moviegen.data.shards import ABSENT, Shard, ShardFolder, ShardSet

SampleCost = Callable[[int, int, int], tuple[int, float]]  # frames, height, width -> tokens, cost


@dataclass(frozen=True)
class Bucket:
    """Samples of one size; two durations may have the same number of frames, at other frame rates."""

    duration: str  # name of the duration, "" where shards tell sizes only
    frames: int
    height: int  # pixels
    width: int

    def __str__(self) -> str:
        size = f"{self.height}x{self.width}x{self.frames}"
        return f"{size} {self.duration}".rstrip()


@dataclass(frozen=True)
class BucketTable:
    """The buckets of a recipe: every size with every duration.

    Args:
        sizes: (height, width) of each aspect ratio, in pixels.
        durations: name -> frames; 1 for images. Names are those in the shards' index.json, where it has them.
    """

    sizes: tuple[tuple[int, int], ...]
    durations: dict[str, int]

    def __post_init__(self) -> None:
        if not self.sizes or not self.durations:
            raise ValueError("a bucket table needs at least one size and one duration")
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"a bucket table names each size once, got {[list(s) for s in self.sizes]}")

    def buckets(self) -> list[Bucket]:
        """All of them, durations first."""
        return [Bucket(name, n, *size) for name, n in self.durations.items() for size in self.sizes]

    def find(self, shard: Shard) -> Bucket | None:
        """The bucket that a shard's samples belong to; by size alone where the shard names no duration."""
        name = shard.record.get("duration")
        for bucket in self.buckets():
            same = shard.bucket == (bucket.frames, bucket.height, bucket.width)
            if same and name in (None, bucket.duration):
                return bucket
        return None


@dataclass(frozen=True)
class Dropped:
    """A clip that training or validation leaves out, and the rule that says so."""

    where: str
    key: str
    rule: str


@dataclass(frozen=True)
class Row:
    """One bucket of one source in a plan."""

    source: str
    bucket: Bucket | None  # None: shards without index.json, whose size nobody knows
    samples: ShardSet
    tokens: int
    cost: float  # of one sample
    batch_size: int  # samples of a step, over all ranks
    weight: float  # of its steps in the mixture

    @property
    def name(self) -> str:
        return "unknown size" if self.bucket is None else str(self.bucket)

    @property
    def repeats(self) -> bool:
        """Whether a step takes more samples than there are, so that some come twice in it, with the same noise."""
        return len(self.samples) < self.batch_size


@dataclass(frozen=True)
class Plan:
    """What training will read: the rows of the bucket table, and every clip that is dropped."""

    rows: list[Row]
    dropped: list[Dropped] = field(default_factory=list)

    def text(self) -> str:
        """The table as it is printed by a dry run."""
        total = sum(row.weight for row in self.rows)
        lines = [
            f"{'source':<12} {'bucket':<28} {'samples':>9} {'tokens':>8} {'batch':>6} {'cost':>11} {'steps':>7}"
        ]
        for row in self.rows:
            note = "  samples repeat within a step" if row.repeats else ""
            lines.append(
                f"{row.source:<12} {row.name:<28} {len(row.samples):>9} {row.tokens:>8} {row.batch_size:>6} "
                f"{row.batch_size * row.cost:>11.4g} {row.weight / total:>7.1%}{note}"
            )
        count = len(self.dropped)
        lines.append(f"{count} clips dropped" + (":" if count else ""))
        return "\n".join(lines + [f"  {one.where}: {one.key}: {one.rule}" for one in self.dropped])

    def warning(self) -> str | None:
        """One line on buckets with fewer samples than a batch takes; None where there is none."""
        rows = [row for row in self.rows if row.repeats]
        if not rows:
            return None
        one = rows[0]
        return (
            f"{len(rows)} of {len(self.rows)} buckets have fewer samples than a batch, which come more than once in a "
            f"step, with the same noise: {one.source} {one.name} has {len(one.samples)} for a batch of "
            f"{one.batch_size}; add samples, or lower data.batch_size or data.batch_limit"
        )


@dataclass(frozen=True)
class Sizing:
    """How many samples a step takes.

    Args:
        batch_size: of the costliest bucket, or of every bucket where `balanced` is off.
        balanced: give every other bucket as many samples as cost the same.
        multiple: batch sizes are multiples of it, so that they can be shared out to that many ranks.
        mix_by: whether weights of sources are shares of "steps" or of "samples".
        limit: no batch is larger, however cheap its samples are; None for no limit.
    """

    batch_size: int
    balanced: bool = False
    multiple: int = 1
    mix_by: str = "steps"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.multiple < 1:
            raise ValueError(
                f"batch_size must be at least 1, got {self.batch_size}, and batch_multiple, got {self.multiple}"
            )
        if self.mix_by not in ("steps", "samples"):
            raise ValueError(f"mix_by must be steps or samples, got {self.mix_by!r}")
        if self.balanced and self.batch_size % self.multiple:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of batch_multiple {self.multiple}")
        if self.limit is not None and self.limit < self.batch_size:
            raise ValueError(f"batch_limit {self.limit} is below batch_size {self.batch_size}")

    def batch_sizes(self, costs: Sequence[float]) -> list[int]:
        """Samples of a step for each bucket, whose samples cost `costs`."""
        if not self.balanced:
            return [self.batch_size] * len(costs)
        budget = self.batch_size * max(costs)
        most = math.inf if self.limit is None else self.limit
        sizes = [min(most, budget / cost) for cost in costs]
        return [int(size / self.multiple + 1e-9) * self.multiple for size in sizes]

    def step_weights(self, weight: float, counts: Sequence[int], sizes: Sequence[int]) -> list[float]:
        """How often each bucket of a source of `weight` is drawn, so that all its samples come equally often."""
        if len(set(sizes)) == 1 and self.mix_by == "steps":
            sizes = [1] * len(sizes)
        steps = [count / size for count, size in zip(counts, sizes, strict=True)]
        total = sum(steps) if self.mix_by == "steps" else sum(counts)
        return [weight * one / total for one in steps]


@dataclass(frozen=True)
class Found:
    """One set of samples of a source that training keeps."""

    source: str
    weight: float
    bucket: Bucket | None
    samples: ShardSet


def make_plan(
    found: Sequence[Found], dropped: Sequence[Dropped], sizing: Sizing, cost: SampleCost | None
) -> Plan:
    """Batch sizes and weights of all sets. Raises ValueError for a size that the model cannot take."""
    if sizing.balanced and (cost is None or any(one.bucket is None for one in found)):
        raise ValueError(
            "balanced batches need shards with an index.json, and a task that knows a sample's cost"
        )
    priced = [_priced(one.bucket, cost) for one in found]
    sizes = sizing.batch_sizes([price for _, price in priced])
    rows: list[Row] = []
    for source in dict.fromkeys(one.source for one in found):
        members = [i for i, one in enumerate(found) if one.source == source]
        counts = [len(found[i].samples) for i in members]
        weights = sizing.step_weights(found[members[0]].weight, counts, [sizes[i] for i in members])
        for i, weight in zip(members, weights, strict=True):
            rows.append(Row(source, found[i].bucket, found[i].samples, *priced[i], sizes[i], weight))
    return Plan(rows, list(dropped))


def _priced(bucket: Bucket | None, cost: SampleCost | None) -> tuple[int, float]:
    if bucket is None or cost is None:
        return 0, 1.0
    try:
        return cost(bucket.frames, bucket.height, bucket.width)
    except ValueError as error:
        raise ValueError(f"bucket {bucket}: {error}") from None


def select(
    folder: ShardFolder, sets: Sequence[ShardSet], table: BucketTable, suffixes: Sequence[str]
) -> tuple[list[tuple[Bucket, ShardSet]], list[Dropped]]:
    """Of the sets of a folder, the samples that fit a bucket and have every file that is read; the rest is dropped."""
    kept: dict[Bucket, list[tuple[Shard, np.ndarray]]] = {}
    dropped = []
    for shard in (shard for samples in sets for shard in samples.shards):
        bucket = table.find(shard)
        if bucket is None:
            size = "of no stated size" if shard.bucket is None else "x".join(map(str, _h_w_t(shard.bucket)))
            size = f"{size} {shard.record.get('duration', '')}".strip()
            rule = f"no bucket: {size} is none of the {len(table.buckets())} in the table"
            dropped += [Dropped(shard.path.name, shard.key(row), rule) for row in range(len(shard))]
            continue
        missing = _missing(shard, suffixes)
        dropped += [Dropped(shard.path.name, shard.key(row), rule) for row, rule in missing.items()]
        rows = np.array([row for row in range(len(shard)) if row not in missing], np.int64)
        kept.setdefault(bucket, []).append((shard, rows))
    found = []
    for bucket, parts in kept.items():
        shards, rows = [shard for shard, _ in parts], [rows for _, rows in parts]
        found.append((bucket, ShardSet(f"{folder.path} {bucket}", shards, rows, bucket.duration)))
    order = {bucket: number for number, bucket in enumerate(table.buckets())}
    return sorted((pair for pair in found if len(pair[1])), key=lambda pair: order[pair[0]]), dropped


def _h_w_t(size: tuple[int, ...]) -> tuple[int, ...]:
    frames, height, width = size
    return height, width, frames


def _missing(shard: Shard, suffixes: Sequence[str]) -> dict[int, str]:
    """Rows that lack a file which is read, and the rule that says so."""
    names = shard.table.dtype.names or ()
    found: dict[int, str] = {}
    for suffix in suffixes:
        starts = shard.table[suffix][:, 0] if suffix in names else np.full(len(shard), ABSENT)
        found |= {int(row): f"no .{suffix}" for row in np.flatnonzero(starts == ABSENT)}
    return found


def refuse_empty(table: BucketTable, found: Sequence[Found], dropped: Sequence[Dropped]) -> None:
    """Raise ValueError if a bucket of the table has no sample in any source."""
    empty = [bucket for bucket in table.buckets() if bucket not in {one.bucket for one in found}]
    if empty:
        names = ", ".join(str(bucket) for bucket in empty[:5]) + (", ..." if len(empty) > 5 else "")
        because = f"; dropped: {dropped[0].key}: {dropped[0].rule}" if dropped else ""
        raise ValueError(
            f"{len(empty)} of {len(table.buckets())} buckets have no samples: {names}; add clips, or take the bucket "
            f"out of data.buckets{because}"
        )


def dropped_before(folder: Path) -> list[Dropped]:
    """Files and spans that `moviegen data build` left out of these shards, from its outcomes.json."""
    try:
        files = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))["files"]
        found = []
        for one in files:
            rules = {one["rule"] or "no samples": ""} if one["result"] == "dropped" else {}
            rules |= {rule: f" ({count} spans)" for rule, count in one["spans_dropped"].items()}
            for rule, spans in rules.items():
                reason = f"{rule}{spans}" + (f": {one['detail']}" if one["detail"] else "")
                found.append(Dropped(str(folder), one["file"], reason))
        return found
    except OSError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'outcomes.json'} is not what data build writes ({error})") from None
