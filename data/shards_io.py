"""Writing shards: tars under a temporary name, a record beside each, index.json last.

A record says by which plan its tar was made, so an interrupted build goes on with the tars that are missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moviegen_data.files import file_sha256
from moviegen_data.samples import BucketUnit, Outcome, Recipe, SoundUnit, Unit, bucket

from moviegen.media import MediaError, atomic_path, write_error
from moviegen.unfinished import INDEX

FORMAT = 1  # of shards and records; part of every hash, so a new format is a new build


@dataclass(frozen=True)
class ShardPlan:
    """One tar to be: its name and its units."""

    name: str  # <shelf>-<source>-<number>.tar
    units: tuple[Unit, ...]
    plan: str  # hash of everything its content depends on

    @property
    def record_name(self) -> str:
        """The record's file name."""
        return self.name.removesuffix(".tar") + ".json"


def lay_out(units: Sequence[Unit], shard_size: int, recipe: Recipe) -> list[ShardPlan]:
    """Cut the units of each (shelf, source, size) into tars of about `shard_size` samples."""
    groups: dict[tuple, list[Unit]] = {}
    for unit in units:
        kind = (*bucket(unit, recipe.clip), _duration(unit))
        groups.setdefault((shelf(unit), unit.group, kind), []).append(unit)
    counts: dict[tuple, int] = {}
    plans = []
    for (split, group, _), members in groups.items():
        for part in _parts(members, shard_size):
            number = counts.get((split, group), 0)
            counts[split, group] = number + 1
            plans.append(ShardPlan(f"{split}-{group}-{number:06d}.tar", tuple(part), _hash(part, recipe)))
    return plans


def _duration(unit: Unit) -> str | None:
    """Name of the duration bucket, which the frames alone do not tell."""
    return unit.duration if isinstance(unit, BucketUnit) else None


def shelf(unit: Unit) -> str:
    """The split as tars and index.json name it. Sound without pictures is apart, so that no video model meets it."""
    return f"{unit.split}_sound" if isinstance(unit, SoundUnit) else unit.split


def _parts(units: Sequence[Unit], shard_size: int) -> Iterator[list[Unit]]:
    part: list[Unit] = []
    size = 0
    for unit in units:
        if part and size + len(unit.keys) > shard_size:
            yield part
            part, size = [], 0
        part.append(unit)
        size += len(unit.keys)
    yield part


def _hash(units: Sequence[Unit], recipe: Recipe) -> str:
    settings = {name: value for name, value in asdict(recipe).items() if name != "sound" or value}
    return digest({"format": FORMAT, "recipe": settings, "units": [asdict(unit) for unit in units]})


def digest(value: Any) -> str:
    """sha256 of a value's canonical json."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_tar(folder: Path, plan: ShardPlan, outcomes: Iterator[tuple[Unit, Outcome]]) -> dict[str, Any]:
    """Write one tar from the outcomes of its units, then its record; returns the record.

    A tar without samples is not written; its record is, so the work is not done again.
    """
    from webdataset.writer import TarWriter

    listed: list[dict[str, Any]] = []
    units: list[dict[str, Any]] = []
    path = folder / plan.name
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:  # type: ignore[arg-type]
                for unit, outcome in outcomes:
                    for sample in outcome.samples:
                        tar.write(sample)
                        listed.append(json.loads(sample["json"]))
                    units.append(_unit_record(unit, outcome))
            if not listed:
                raise _NothingToKeepError
            size, sha256 = temporary.stat().st_size, file_sha256(temporary)
    except _NothingToKeepError:
        size, sha256 = 0, None
    record = _record(plan, listed, units) | {"bytes": size, "sha256": sha256}
    write_json(folder / plan.record_name, record)
    return record


class _NothingToKeepError(Exception):
    """Leaves the context of a tar without samples, so that it is not kept."""


def _unit_record(unit: Unit, outcome: Outcome) -> dict[str, Any]:
    file = getattr(unit, "file", None)
    shown = str(file.path) if file else None
    record = {"file": shown, "samples": len(outcome.samples), "rule": outcome.rule, "detail": outcome.detail}
    return {"key": unit.keys[0], **record}


def _record(plan: ShardPlan, listed: list[dict[str, Any]], units: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("frames", "height", "width", "fps")
    sizes: dict[str, Any] = {name: listed[0][name] if listed else None for name in names}
    assert all(sample[name] == sizes[name] for sample in listed for name in names if name != "fps")
    rates = [sample["fps"] for sample in listed] or [None]
    kept = ("key", "sha256", "source_sha256", "source_file", "span", "consent")
    return {
        "name": plan.name,
        "plan": plan.plan,
        "split": shelf(plan.units[0]),
        "source": plan.units[0].group,
        "num_samples": len(listed),
        **sizes,
        "fps_range": [min(rates), max(rates)],  # clips of a bucket keep their own rates
        **({"duration": duration} if (duration := _duration(plan.units[0])) else {}),
        "licences": sorted({sample["licence"] for sample in listed}),
        "consents": sorted({sample["consent"] for sample in listed}),
        "samples": [{name: sample[name] for name in kept} for sample in listed],
        "units": units,
    }


def read_record(folder: Path, plan: ShardPlan) -> dict[str, Any] | None:
    """The record of a finished tar of exactly this plan, or None."""
    record = read_json(folder / plan.record_name)
    if record is None or record.get("plan") != plan.plan:
        return None
    if record["num_samples"] and not _has_size(folder / plan.name, record["bytes"]):
        return None
    return record


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def finished_index(folder: Path, build: str) -> dict[str, Any] | None:
    """The index of a finished build of this hash whose tars are all there, or None."""
    index = read_json(folder / INDEX)
    if index is None or index.get("build") != build:
        return None
    complete = all(_has_size(folder / shard["name"], shard["bytes"]) for shard in index["shards"])
    return index if complete else None


def write_index(folder: Path, build: str, records: Sequence[dict[str, Any]], totals: dict[str, Any]) -> None:
    """Write index.json: what a reader needs to know of each tar."""
    left_out = ("samples", "units")
    shards = [{k: v for k, v in r.items() if k not in left_out} for r in records if r["num_samples"]]
    index = {"format": FORMAT, "build": build, "num_samples": totals["samples"], "totals": totals}
    write_json(folder / INDEX, index | {"shards": shards})


def foreign_records(folder: Path, plans: Sequence[ShardPlan]) -> list[dict[str, Any]]:
    """Records of tars in the folder that this build did not plan."""
    expected = {plan.record_name: plan.plan for plan in plans}
    found = []
    for path in sorted(folder.glob("*-*-[0-9][0-9][0-9][0-9][0-9][0-9].json")):
        record = read_json(path)
        if record is not None and "plan" in record and expected.get(path.name) != record["plan"]:
            found.append(record | {"name": path.stem + ".tar"})  # a record must not name what is removed
    return found


def remove_shard(folder: Path, record: dict[str, Any]) -> None:
    """Remove a tar, its record and the reader's index beside it."""
    name = record["name"]
    for file in (name, name.removesuffix(".tar") + ".json", name + ".idx.npy"):
        (folder / file).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write json, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a json file holds, or None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second build out of the folder, and clear what a killed one left half-written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise write_error(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MediaError(folder, "another build is writing to this folder", "write") from None
        for part in folder.glob(".*.tmp"):
            part.unlink(missing_ok=True)
        yield
