"""`moviegen data build`: toyworld clips, video files and photographs become WebDataset shards."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from moviegen_data import outcomes as report
from moviegen_data.buckets import table as bucket_table
from moviegen_data.config import BuildConfig, parse
from moviegen_data.files import SourceFile
from moviegen_data.plan import Plan, list_sources, make_plan
from moviegen_data.samples import Outcome, Recipe, Unit, make
from moviegen_data.shards_io import (
    FORMAT,
    ShardPlan,
    digest,
    finished_index,
    foreign_records,
    lay_out,
    locked,
    read_json,
    read_record,
    remove_shard,
    write_index,
    write_json,
    write_tar,
    write_text,
)
from moviegen_data.workers import WorkerKilledError, in_processes
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from moviegen import interrupts, unfinished

OUTCOMES = "outcomes.json"


def build(cfg: DictConfig | Mapping[str, Any] | BuildConfig) -> dict[str, Any]:
    """Write the shards that a config describes and return the totals that index.json holds.

    A finished build is recognised; an interrupted one goes on; Ctrl-C keeps the finished tars.

    Raises:
        ValueError: what a user gave is wrong: an empty folder, one file in two splits, no usable file, shards
            of another configuration in `out`; MediaError (a ValueError) where a file cannot be written.
    """
    config = _parse(cfg)
    folder = Path(config.out)
    listed = list_sources(config)
    key = build_hash(config, listed)
    with locked(folder):
        index = finished_index(folder, key)
        if index is not None:
            _tell_again(folder, index)
            return index["totals"]
        plan = make_plan(config, listed, tqdm(config.sources, desc="reading sources", unit="source"))
        recipe = Recipe(config.clip, config.limits, config.crf, config.sound)
        shards = lay_out(plan.units, config.shard_size, recipe)
        _clear(folder, shards, config.overwrite)
        records = _write(folder, shards, recipe, config.workers)
        return _finish(folder, key, plan, records)


def build_hash(config: BuildConfig, listed: Mapping[str, Sequence[SourceFile]]) -> str:
    """What a finished build is recognised by: the config, and names, sizes and times of the source files."""
    settings = asdict(replace(config, out="", workers=0, overwrite=False))
    settings = {name: value for name, value in settings.items() if name not in ("buckets", "sound") or value}
    kinds = {node: type(source).__name__ for node, source in config.sources.items()}
    files = {node: [(asdict(file), _stamp(file.path)) for file in files] for node, files in listed.items()}
    return digest({"format": FORMAT, "settings": settings, "kinds": kinds, "files": files})


def _parse(cfg: DictConfig | Mapping[str, Any] | BuildConfig) -> BuildConfig:
    if isinstance(cfg, BuildConfig):
        return cfg
    values = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    assert isinstance(values, dict)
    return parse({"_target_": "moviegen_data.config.BuildConfig"} | values)


def _stamp(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _clear(folder: Path, shards: Sequence[ShardPlan], overwrite: bool) -> None:
    """Remove the index, which is no longer true, and with `overwrite` the shards of another build."""
    foreign = foreign_records(folder, shards)
    if foreign and not overwrite:
        names = ", ".join(record["name"] for record in foreign[:3])
        raise ValueError(
            f"{folder} holds shards of another configuration ({names}); use another out or overwrite=true"
        )
    unfinished.begin(folder)
    for record in foreign:
        remove_shard(folder, record)


def _write(folder: Path, shards: Sequence[ShardPlan], recipe: Recipe, workers: int) -> list[dict[str, Any]]:
    """Write the tars that are missing; records of all, in order."""
    done = {plan.name: record for plan in shards if (record := read_record(folder, plan)) is not None}
    missing = [plan for plan in shards if plan.name not in done]
    units = [unit for plan in missing for unit in plan.units]
    kept = sum(record["num_samples"] for record in done.values())
    if done:
        print(f"{folder}: {len(done)} of {len(shards)} shards ({kept} samples) were finished before")
    with interrupts.remembered(), _made(units, recipe, workers) as made:
        counted = _counted(zip(units, made, strict=True), sum(len(unit.keys) for unit in units))
        with closing(counted):  # its bar ends before whatever is said of an interruption
            for plan in missing:
                done[plan.name] = write_tar(folder, plan, islice(counted, len(plan.units)))
    return [done[plan.name] for plan in shards]


def _counted(
    pairs: Iterator[tuple[Unit, Outcome]], total: int
) -> Generator[tuple[Unit, Outcome], None, None]:
    with tqdm(total=total, desc="writing shards", unit="sample", disable=not total) as bar:
        for unit, outcome in pairs:
            interrupts.check()
            yield unit, outcome
            bar.update(len(unit.keys))


@contextmanager
def _made(units: Sequence[Unit], recipe: Recipe, workers: int) -> Iterator[Iterator[Outcome]]:
    """The outcomes of the units in order, made by worker processes."""
    work = partial(make, recipe=recipe)
    if workers == 0 or len(units) < 2:
        yield map(work, units)
        return
    try:
        with in_processes(work, units, workers) as outcomes:
            yield outcomes
    except WorkerKilledError as error:
        reason = f"{error}, perhaps for lack of memory"
        raise ValueError(f"{reason}; run again to go on, with fewer workers ({workers} now)") from None


def _finish(folder: Path, key: str, plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count what became of every file, print it, write it, and the index last."""
    _count(plan, records)
    results = list(plan.outcomes.values())
    print("\n".join([report.table(results), *bucket_table(plan.units), *_licences(records)]))
    totals = report.summary(results)
    if not totals["samples"]:
        unfinished.end(folder)
        raise ValueError(
            f"{folder}: no sample could be made of {totals['files']} sources; see the lines above"
        )
    write_json(folder / OUTCOMES, {"totals": totals, "files": [o.record() for o in results]})
    write_text(folder / "outcomes.csv", report.as_csv(results))
    write_index(folder, key, records, totals)
    unfinished.end(folder)
    return totals


def _tell_again(folder: Path, index: Mapping[str, Any]) -> None:
    """Print what a finished build made, and what became of every file where outcomes.json is there to say it."""
    lines = [f"{folder}: finished before, {index['num_samples']} samples in {len(index['shards'])} shards"]
    stored = read_json(folder / OUTCOMES)
    if isinstance(stored, dict):
        lines.append(report.table([report.from_record(row) for row in stored["files"]]))
    print("\n".join([*lines, *_licences(index["shards"])]))


def _licences(records: Sequence[dict[str, Any]]) -> list[str]:
    """A line a source: the licences that the configuration, or its csv, states for its samples."""
    stated: dict[str, set[str]] = {}
    for record in records:
        stated.setdefault(record["source"], set()).update(record["licences"])
    return [
        f"licence of {name}, as stated: {'; '.join(sorted(found))}" for name, found in stated.items() if found
    ]


def _count(plan: Plan, records: Sequence[dict[str, Any]]) -> None:
    """Add up the samples and dropped spans of each source."""
    by_key = {unit["key"]: unit for record in records for unit in record["units"]}
    for unit in plan.units:
        outcome, made = plan.outcomes[unit.origin], by_key[unit.keys[0]]
        outcome.samples += made["samples"]
        if made["rule"]:
            outcome.spans_dropped[made["rule"]] += 1
            outcome.detail = made["detail"]
    for outcome in plan.outcomes.values():
        outcome.settle()
