"""The commands `moviegen eval study analyse | power | import | export | simulate | check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moviegen_eval.config import parse_config
from moviegen_eval.files import write_atomically, write_json
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.study import batches, exchange, power
from moviegen_eval.study.analysis import Analysis
from moviegen_eval.study.analysis import analyse as analyse_votes
from moviegen_eval.study.built import read_built
from moviegen_eval.study.check import check_videos
from moviegen_eval.study.rewardbench import export_rewardbench, import_rewardbench
from moviegen_eval.study.settings import (
    StudyAnalyseConfig,
    StudyCheckConfig,
    StudyExportConfig,
    StudyImportConfig,
    StudyPowerConfig,
    StudySimulateConfig,
)
from moviegen_eval.study.simulate import Simulation
from moviegen_eval.study.simulate import simulate as simulate_votes
from moviegen_eval.study.study import Study, load_study, save_study
from moviegen_eval.study.table import LeftOut, VoteTable, read_votes
from moviegen_eval.study.tables import analysis_figures, analysis_table, left_out_csv, markdown, raters_csv
from moviegen_eval.study.validity import valid_votes
from moviegen_eval.study.votes import Vote, VoteLog
from omegaconf import DictConfig

PLATFORMS = {"mturk": batches.MTURK, "prolific": batches.PROLIFIC}
Settings = DictConfig | Mapping[str, Any]


def analyse(cfg: Settings) -> Analysis:
    """Write numbers.json, analysis.json, table.md, raters.csv, left_out.csv to `out`, and print the table."""
    config = parse_config(StudyAnalyseConfig, cfg, "study analyse")
    study, out = load_study(config.study), Path(config.out)
    analysis = analyse_votes(study, read_votes(config.votes), config.seed, config.resamples)
    table = analysis_table(analysis)
    write_json(out / "analysis.json", analysis.to_dict())
    write_atomically(out / "raters.csv", raters_csv(analysis))
    write_atomically(out / "left_out.csv", left_out_csv(analysis.left_out))
    write_atomically(out / "table.md", table)
    write_numbers(out / NUMBERS, analysis_figures(analysis))
    print(table, end="")
    return analysis


def plan(cfg: Settings) -> list[Figure]:
    """Print what studies of some sizes can show, and how many prompts a wanted effect needs; `out`: numbers.json."""
    config = parse_config(StudyPowerConfig, cfg, "study power")
    figures, rows, needed = [], [], {}
    for ties in config.ties if config.net is not None else ():
        needed[ties] = power.prompts_needed(float(config.net or 0.0), ties, config.power, config.num_tests)
    for prompts in config.prompts:
        cells: list[object] = [prompts]
        for ties in config.ties:
            half = power.half_width(prompts, ties)
            net = power.detectable(prompts, ties, config.power, config.num_tests)
            cells.append(f"+-{half:.1f} / {net:.1f}")
            name = f"power/ties_{ties:g}/prompts_{prompts}"
            figures.append(Figure(f"{name}/half_width", half, None, None, prompts, "points", False))
            figures.append(Figure(f"{name}/detectable", net, None, None, prompts, "points", False))
        rows.append(cells)
    tests = f", 5 % shared by {config.num_tests} tests" if config.num_tests > 1 else ""
    print(f"95 % half-width / net win rate found with {config.power:.0%} power{tests}, in points\n")
    print(markdown(("prompts", *(f"ties {ties:.0%}" for ties in config.ties)), rows))
    for ties, count in needed.items():
        print(f"\na net win rate of {config.net:g} with {ties:.0%} ties needs {count} prompts", end="")
        name = f"power/ties_{ties:g}/net_{abs(config.net or 0.0):g}/prompts_needed"
        figures.append(Figure(name, count, None, None, count, "prompts", False))
    print("\n" if needed else "", end="")
    if config.out:
        write_numbers(Path(config.out) / NUMBERS, figures)
    return figures


def import_votes(cfg: Settings) -> list[Vote]:
    """Append a file's votes to the log `votes`, but those that it has already; returns those added."""
    config = parse_config(StudyImportConfig, cfg, "study import")
    if config.format == "videogen_rewardbench":
        study, found = import_rewardbench(config.file, config.encoding)
        _save_once(study, Path(config.study))
    else:
        found = _imported(config, load_study(config.study))
    path = Path(config.votes)
    known = {name.decode() for name in read_votes(path).id.tolist()} if path.exists() else set()
    new = [vote for vote in {vote.id: vote for vote in found.votes}.values() if vote.id not in known]
    if new:
        with VoteLog(path) as log:
            log.append(new)
    print(f"{len(new)} votes added to {path}; {len(found.votes) - len(new)} were there already")
    beside = path.with_name(f"{path.stem}.left_out.csv")
    if found.left_out:
        write_atomically(beside, left_out_csv(found.left_out))
        _say(found.left_out, beside)
    return new


def _imported(config: StudyImportConfig, study: Study) -> exchange.Imported:
    if config.format == "jsonl":
        return exchange.import_jsonl(config.file)
    if config.format == "csv":
        return exchange.import_csv(config.file, study, config.encoding)
    platform = PLATFORMS[config.format]
    return batches.import_batch(config.file, study, platform, config.encoding, config.submissions)


def _save_once(study: Study, path: Path) -> None:
    """Write the study of a file of judgements, or find the same one there."""
    if not path.exists():
        save_study(study, path)
    elif load_study(path).digest != study.digest:
        raise ValueError(f"{path}: exists and is another study than the file's; give another name")


def export(cfg: Settings) -> list[Path]:
    """Write votes (csv, jsonl) to the file `out`, or the tasks of a batch (mturk, prolific) into the folder `out`."""
    config = parse_config(StudyExportConfig, cfg, "study export")
    study, out = load_study(config.study), Path(config.out)
    if config.format in PLATFORMS:
        shown = _opaque(study, config.built) if config.built else study
        assert config.url is not None
        written = batches.export_batch(
            study, shown, out, PLATFORMS[config.format], config.url, config.set_size
        )
    else:
        assert config.votes is not None
        table = read_votes(config.votes)
        left_out: tuple[LeftOut, ...] = table.left_out
        if config.valid_only or config.format == "videogen_rewardbench":
            table, left_out = valid_votes(table, study)
        if config.format == "videogen_rewardbench":
            export_rewardbench(study, table, out)
        else:
            (exchange.export_csv if config.format == "csv" else exchange.export_jsonl)(table, out)
        _say(left_out)
        written = [out]
    print(f"written: {', '.join(map(str, written))}")
    return written


def _opaque(study: Study, folder: str) -> Study:
    """The study with the names of the built copies."""
    built = read_built(Path(folder))
    missing = [item.id for item in study.items if item.id not in built.items]
    if missing:
        raise ValueError(
            f"{folder}: item {missing[0]!r} is not built ({len(missing)} such); run eval study build"
        )
    pairs = {i.id: built.items[i.id] for i in study.items}
    items = [
        replace(i, video_a=pairs[i.id].a, video_b=pairs[i.id].b, reference=pairs[i.id].reference)
        for i in study.items
    ]
    return replace(study, items=tuple(items))


def simulate(cfg: Settings) -> VoteTable:
    """Write the votes of simulated raters to a new log; they say so in their source."""
    config = parse_config(StudySimulateConfig, cfg, "study simulate")
    path = Path(config.votes)
    if path.exists() and not (config.overwrite and _only_simulated(path)):
        raise ValueError(f"{path}: exists; simulated votes go to a log of their own, never among others")
    values = {name: getattr(config, name) for name in Simulation.__dataclass_fields__}
    table = simulate_votes(load_study(config.study), Simulation(**values), config.seed)
    exchange.export_jsonl(table, path)
    print(f"{len(table)} simulated votes of {config.raters} raters written to {path}")
    return table


def _only_simulated(path: Path) -> bool:
    """Whether a log holds votes of simulated raters alone, which may be made again."""
    table = read_votes(path)
    return bool(table.source.equals("simulated").all()) and not table.left_out


def check(cfg: Settings) -> int:
    """Look at every video of a study; prints what is wrong by kind, returns 1 where anything is."""
    config = parse_config(StudyCheckConfig, cfg, "study check")
    study = load_study(config.study)
    found = check_videos(study)
    if config.out:
        write_atomically(config.out, left_out_csv(found))
    for problem in found:
        shown = "; ".join(problem.places[:3]) + ("; ..." if problem.count > 3 else "")
        print(f"{problem.reason}: {problem.count} ({shown})")
    print(f"{len(study.items)} items, {sum(p.count for p in found)} faults; study sha256 {study.digest}")
    return 1 if found else 0


def _say(left_out: tuple[LeftOut, ...], path: Path | None = None) -> None:
    for out in left_out:
        print(out)
    if path:
        print(f"all of them: {path}")
