"""`moviegen runs compare FOLDER`: how the runs of a sweep differ, and their final figures with intervals.

What differs comes from the sweep's own list of jobs; in a folder of runs without one, from the runs' configurations.
Figures come from a run's `numbers.json`, the last line of `held_out.jsonl`, and the end of its log. Runs that differ by
their seed alone are also told of together: their mean, with Student's interval over seeds.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from moviegen_eval.bench_config import flat
from moviegen_eval.config import parse_config
from moviegen_eval.curves import read_curves
from moviegen_eval.files import read_json, write_atomically
from moviegen_eval.numbers import NUMBERS, Figure, read_numbers, write_numbers
from moviegen_eval.report.tables import Table, to_csv, to_markdown
from moviegen_eval.stats import student_mean
from omegaconf import DictConfig

SEED = "seed"
SAME_EVERYWHERE = ("run_dir", "launcher", "nodes")  # say where a run ran, not what it was
END = 10  # the last tenth of the logged steps is the end of a curve
LOWER = ("loss", "l1", "mse", "kl", "lpips", "outlier", "fvd", "fid", "error")
HELD_OUT = ("held_out/loss", "held_out/loss/task/")


@dataclass(frozen=True)
class RunsConfig:
    """The keys of conf/runs_compare.yaml, which says what they are."""

    folder: str
    out: str | None = None
    figures: list[str] = field(default_factory=list)
    wandb: dict[str, str] | None = None


@dataclass(frozen=True)
class Run:
    """One run: its folder, its settings that differ from other runs', how far it came, and its figures by name."""

    name: str
    settings: dict[str, str]
    state: str
    figures: dict[str, Figure]


def compare(cfg: DictConfig | Mapping[str, Any]) -> list[Run]:
    """Write table.md, table.csv and numbers.json into `out` (`folder`/compare), print the table, return the runs.

    Raises ValueError where the folder holds no runs, or none of them has a figure that is asked for.
    """
    config = parse_config(RunsConfig, cfg, "runs compare")
    folder = Path(config.folder)
    runs = [replace(run, figures=_chosen(run.figures, config.figures)) for run in read_runs(folder)]
    names = list(dict.fromkeys(name for run in runs for name in run.figures))
    if not names:
        asked = f" of {', '.join(config.figures)}" if config.figures else ""
        raise ValueError(f"{folder}: none of its {len(runs)} runs has a figure{asked} yet; see their logs")
    groups = over_seeds(runs)
    tables = [_table("runs", f"Runs of {folder.name}", runs, names)]
    if groups:
        tables.append(_table("seeds", "The same over seeds: mean and Student's 95 % interval", groups, names))
    out = Path(config.out) if config.out else folder / "compare"
    write_atomically(out / "table.md", "\n".join(map(to_markdown, tables)))
    write_atomically(out / "table.csv", to_csv(_flat_table([*runs, *groups])))
    figures = [
        replace(figure, name=f"runs/{run.name}/{figure.name}")
        for run in (*runs, *groups)
        for figure in run.figures.values()
    ]
    write_numbers(out / NUMBERS, figures)
    print("\n".join(map(to_markdown, tables)))
    if config.wandb is not None:
        _mirror(config.wandb, out, tables)
    print(f"written to {out}: table.md, table.csv, {NUMBERS}")
    return runs


def read_runs(folder: Path) -> list[Run]:
    """The runs in a folder, numbered ones in order. Raises ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; give the run_dir of a sweep")
    jobs = _jobs(folder / "sweep.json")
    paths = [folder / str(number) for number in range(len(jobs))]
    if not jobs:
        paths = sorted((path.parent for path in folder.glob("*/run.json")), key=_in_order)
    if not paths:
        raise ValueError(f"{folder}: holds no runs (no sweep.json, and no run.json one folder below)")
    settings = _varied(jobs) if jobs else _varied([_configured(path) for path in paths])
    return [Run(path.name, own, *_state_and_figures(path)) for path, own in zip(paths, settings, strict=True)]


def _in_order(path: Path) -> tuple[int, str]:
    return (int(path.name) if path.name.isdigit() else -1, path.name)


def over_seeds(runs: Sequence[Run]) -> list[Run]:
    """One entry for each group of at least two runs that differ by their seed alone."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        if SEED in run.settings:
            key = tuple((name, value) for name, value in run.settings.items() if name != SEED)
            groups.setdefault(key, []).append(run)
    return [_merged(dict(key), group) for key, group in groups.items() if len(group) > 1]


def _merged(settings: dict[str, str], runs: Sequence[Run]) -> Run:
    figures = {}
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        found = [run.figures[name] for run in runs if name in run.figures]
        values = [figure.value for figure in found]
        interval = student_mean(values)
        low, high = interval if interval else (None, None)
        mean = statistics.fmean(values)
        if (
            low is not None and high is not None
        ):  # of values that are all alike the mean may be rounded outside
            low, high = min(low, mean), max(high, mean)
        figures[name] = replace(found[0], value=mean, low=low, high=high, n=len(values))
    name = "+".join(run.name for run in runs)
    return Run(name, {**settings, SEED: f"{len(runs)} seeds"}, "", figures)


def _jobs(path: Path) -> list[dict[str, str]]:
    """The overrides of each job of a sweep, by key; none where there is no sweep.json."""
    if not path.is_file():
        return []
    listed = read_json(path)
    jobs = listed.get("jobs") if isinstance(listed, dict) else None
    if not isinstance(jobs, list) or not all(isinstance(job, list) for job in jobs):
        raise ValueError(f"{path}: does not list the jobs of a sweep")
    pairs = [[str(word).lstrip("+~").partition("=") for word in job] for job in jobs]
    return [{key: value for key, _, value in job} for job in pairs]


def _configured(run: Path) -> dict[str, str]:
    """All settings of a run by dotted key, with its own folder's name left out of them."""
    recorded = read_json(run / "run.json")
    if not isinstance(recorded, dict) or not isinstance(recorded.get("config"), dict):
        raise ValueError(f"{run / 'run.json'}: does not describe a run")
    config = recorded["config"]
    own = str(config.get("run_dir", run.name))
    return {key: str(value).replace(own, "RUN") for key, value in flat(config).items()}


def _varied(all_settings: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Of each run's settings those that are not the same in all runs."""
    names = dict.fromkeys(name for settings in all_settings for name in settings)
    kept = [
        name
        for name in names
        if name.partition(".")[0] not in SAME_EVERYWHERE
        and (len({settings.get(name) for settings in all_settings}) > 1 or len(all_settings) == 1)
    ]
    return [{name: settings.get(name, "") for name in kept} for settings in all_settings]


def _state_and_figures(run: Path) -> tuple[str, dict[str, Figure]]:
    if not run.is_dir():
        return "not started", {}
    curves = read_curves(run)
    # Lightning writes the number of a step, from 0; the held-out losses how many were done
    counted = [curve for name, curve in curves.items() if not name.startswith("held_out/")]
    steps = max((point[0] for curve in counted for point in curve), default=-1) + 1
    finished = any((run / name).exists() for name in ("model.json", "adapter", NUMBERS))
    figures = _from_curves(curves) | _held_out(run / "held_out.jsonl")
    if (run / NUMBERS).is_file():
        figures |= {figure.name: figure for figure in read_numbers(run / NUMBERS)}
    return f"{'finished' if finished else 'not finished'}, {steps:.0f} steps", figures


def _from_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Figure]:
    """The training loss over the end of the run, with Student's interval over its steps; validation's last value."""
    found = {}
    for name, curve in curves.items():
        values = [value for _, value in curve]
        if name == "train/loss":
            values = values[-max(1, math.ceil(len(values) / END)) :]
        elif name.startswith(("val/", "metrics/")):
            values = values[-1:]
        else:
            continue
        mean, interval = statistics.fmean(values), student_mean(values)
        low, high = (min(interval.low, mean), max(interval.high, mean)) if interval else (None, None)
        higher = not any(word in name.lower() for word in LOWER)
        found[name] = Figure(name, mean, low, high, len(values), "", higher)
    return found


def _held_out(path: Path) -> dict[str, Figure]:
    """The held-out losses of the last validation; those by time and size are left to `figures=`."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        numbers = json.loads(lines[-1])["numbers"]
        rows = [(row["name"], row["value"], row["low"], row["high"], row["n"]) for row in numbers]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: its last line is not a validation ({error!r})") from None
    return {row[0]: Figure(*row, unit="", higher_is_better=False) for row in rows}


def _chosen(figures: Mapping[str, Figure], patterns: Sequence[str]) -> dict[str, Figure]:
    """Figures whose name fits a pattern; without patterns all but the details of the held-out loss."""
    if patterns:
        fitting: Iterable[str] = (name for name in figures if any(fnmatchcase(name, p) for p in patterns))
    else:
        fitting = (
            n for n in figures if not n.startswith("held_out/") or n == HELD_OUT[0] or HELD_OUT[1] in n
        )
    return {name: figures[name] for name in fitting}


def _table(name: str, title: str, runs: Sequence[Run], names: Sequence[str]) -> Table:
    settings = list(dict.fromkeys(key for run in runs for key in run.settings))
    rows = []
    for run in runs:
        cells = [_cell(run.figures.get(figure)) for figure in names]
        rows.append((run.name, *(run.settings.get(key, "") for key in settings), *cells, run.state))
    return Table(name, title, ("run", *settings, *names, "state"), tuple(rows))


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} [{figure.low:.4g}, {figure.high:.4g}]"


def _flat_table(runs: Sequence[Run]) -> Table:
    """One line a run and figure, for programs."""
    settings = list(dict.fromkeys(key for run in runs for key in run.settings))
    head = ("run", *settings, "figure", "value", "low", "high", "n")
    rows = []
    for run in runs:
        for figure in run.figures.values():
            numbers = (figure.value, figure.low, figure.high, figure.n)
            cells = ("" if number is None else repr(number) for number in numbers)
            rows.append((run.name, *(run.settings.get(key, "") for key in settings), figure.name, *cells))
    return Table("flat", "", head, tuple(rows))


def _mirror(settings: Mapping[str, str], out: Path, tables: Sequence[Table]) -> None:
    """The same tables in Weights & Biases; offline unless `mode` says otherwise."""
    import wandb

    run = wandb.init(
        project=settings.get("project", "moviegen"),
        name=settings.get("name"),
        mode=settings.get("mode", "offline"),  # type: ignore[arg-type]
        dir=settings.get("dir", str(out)),
        job_type="compare",
        settings=wandb.Settings(silent=True),
    )
    try:
        for table in tables:
            rows: Any = [list(row) for row in table.rows]
            run.log({table.name: wandb.Table(columns=list(table.head), data=rows)})
    finally:
        run.finish()
