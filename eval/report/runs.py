"""What was run: facts, loss curves and resolved configurations from run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.curves import Curve, read_curves
from moviegen_eval.files import read_json, read_text
from moviegen_eval.report.charts import curve_chart
from moviegen_eval.report.markup import folded, note, section, table, tag, text
from moviegen_eval.verdicts import Verdict

NAMED_PACKAGES = ("torch", "lightning", "torchmetrics", "transformers", "webdataset", "decord", "av", "numpy")
STAGES = ("train", "val", "test")


def runs_section(runs: Mapping[str, str], rows: Sequence[Verdict]) -> str:
    """A table of facts for every run folder, and how the clips were generated."""
    parts = [run_facts(name, Path(folder)) for name, folder in runs.items()]
    origins = generation_facts(rows)
    if origins:
        parts += [tag("h3", "Generation"), facts_table(origins)]
    return section("What was run", *(parts or [note("No run folders were given.")]), id_="runs")


def run_facts(name: str, folder: Path) -> str:
    """Command, commit, versions and data of one run, from its run.json."""
    head = tag("h3", text(name))
    path = folder / "run.json"
    if not path.is_file():
        return head + note(f"{folder} has no run.json.")
    run = read_json(path)
    if not isinstance(run, dict):
        return head + note(f"{path} is not an object.")
    packages = run.get("packages")
    versions = folded("all package versions", tag("pre", text(_lines(packages)))) if packages else ""
    return head + facts_table(_facts(run)) + versions


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    command, git = run.get("command"), run.get("git")
    packages = run.get("packages")
    facts = {
        "command": " ".join(map(str, command)) if isinstance(command, list) else command,
        "date": run.get("date"),
        "commit": _commit(git if isinstance(git, dict) else {"commit": run.get("commit")}),
        "python": run.get("python"),
        "platform": run.get("platform"),
        "packages": _some_packages(packages if isinstance(packages, dict) else {}),
        "data": "; ".join(_shards(item) for item in run.get("shards") or [] if isinstance(item, dict)),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _commit(git: Mapping[str, Any]) -> str:
    commit = git.get("commit")
    return f"{commit}{' with uncommitted changes' if git.get('dirty') else ''}" if commit else ""


def _some_packages(packages: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {packages[name]}" for name in NAMED_PACKAGES if name in packages)


def _shards(item: Mapping[str, Any]) -> str:
    """A shard folder with its index's hash, licences and consent ids."""
    words = [str(item.get("folder", "?"))]
    if item.get("index_sha256"):
        words.append(f"index sha256 {str(item['index_sha256'])[:12]}")
    for name in ("licences", "consent"):
        if item.get(name):
            words.append(f"{name} {', '.join(map(str, item[name]))}")
    return ", ".join(words)


def _lines(values: Any) -> str:
    return (
        "\n".join(f"{name} {value}" for name, value in values.items())
        if isinstance(values, dict)
        else str(values)
    )


def generation_facts(rows: Sequence[Verdict]) -> dict[str, str]:
    """The distinct values of each fact about the generated clips; long lists are counted."""
    origins = [row.origin for row in rows if row.kind == "generated"]
    facts = {}
    for name in dict.fromkeys(key for origin in origins for key in origin):
        values = list(dict.fromkeys(str(origin[name]) for origin in origins if name in origin))
        facts[name] = ", ".join(values) if len(values) <= 4 else f"{len(values)} different, {values[0]} first"
    return facts


def facts_table(facts: Mapping[str, str]) -> str:
    """Names and values, two columns."""
    rows = [[text(name), tag("code", text(value), class_="wrap")] for name, value in facts.items()]
    return table(["", ""], rows, class_="facts-table")


def curves_section(runs: Mapping[str, str]) -> str:
    """Charts of every run's logged losses, and of whatever else was logged."""
    parts = []
    for name, folder in runs.items():
        charts = [
            chart for title, curves in grouped(read_curves(folder)) if (chart := curve_chart(title, curves))
        ]
        content = tag("div", *charts, class_="charts") if charts else note(f"{folder} has no metrics.csv.")
        parts += [tag("h3", text(name)), content]
    return section("Training curves", *(parts or [note("No run folders were given.")]), id_="curves")


def grouped(curves: Mapping[str, Curve]) -> list[tuple[str, dict[str, Curve]]]:
    """Training and validation values of one measure on one chart; losses first.

    `train/loss` and `val/loss` share a chart called `loss`; a column of one point only is left out.
    """
    charts: dict[str, dict[str, Curve]] = {}
    for name, curve in sorted(curves.items()):
        if len(curve) < 2:
            continue
        stage, _, measure = name.partition("/")
        title, label = (measure, stage) if stage in STAGES and measure else (name, name)
        charts.setdefault(title, {})[label] = curve
    return sorted(charts.items(), key=lambda item: ("loss" not in item[0], item[0]))


def config_section(config: str | None, runs: Mapping[str, str]) -> str:
    """Resolved configurations, folded."""
    files = [("the whole job", Path(config))] if config else []
    files += [(name, Path(folder) / "config.yaml") for name, folder in runs.items()]
    parts = []
    for name, path in files:
        if path.is_file():
            parts.append(folded(f"{name}: {path}", tag("pre", text(read_text(path)))))
        else:
            parts.append(note(f"{path} does not exist."))
    return section("Configuration", *(parts or [note("No configuration was given.")]), id_="configuration")
