"""`moviegen eval report`: puts the page together from what judge wrote, the clips and the logs.

The page is one file without outside references; its content policy forbids the browser to load any.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.bars import Bar
from moviegen_eval.baselines.pca import BlockPca
from moviegen_eval.config import ReportConfig, parse_config
from moviegen_eval.files import read_json, write_atomically
from moviegen_eval.numbers import NUMBERS, Figure, numbers_json, read_numbers
from moviegen_eval.pairs import SETS, read_reconstructions
from moviegen_eval.records import parse_record
from moviegen_eval.report.check import check_files
from moviegen_eval.report.clips import Budget, generated_section, pairs_section
from moviegen_eval.report.comparison import Comparison, read_comparison, score_folders
from moviegen_eval.report.edited import edited_section
from moviegen_eval.report.figures import figures_section
from moviegen_eval.report.figures_of import comparison_figures
from moviegen_eval.report.grid import SCRIPT
from moviegen_eval.report.markup import note, section, tag, text
from moviegen_eval.report.mirror import mirror
from moviegen_eval.report.people import people_section
from moviegen_eval.report.runs import config_section, curves_section, runs_section
from moviegen_eval.report.sections import comparison_files, comparison_headline, comparison_sections
from moviegen_eval.report.sound import sound_section
from moviegen_eval.report.upscaled import upscaled_section
from moviegen_eval.verdicts import VERDICTS, Verdict, read_verdicts
from omegaconf import DictConfig

# what other judges wrote: the setting that names the folder, and its section
PARTS = {"people": people_section, "edited": edited_section, "upscaled": upscaled_section}


def report(cfg: DictConfig | Mapping[str, Any]) -> Path:
    """Write the page that `conf/report.yaml` describes, its numbers.json beside it, and return the page's path.

    Of a comparison also a folder report.files with report.md, report.tex, one csv a table, items.csv, study.json and
    more. With `check` nothing is written: what is there is compared with what comes out now.

    Raises ValueError of one line when the judged folder has no numbers.json, an input is damaged, or a check finds a
    difference; inputs that are merely absent are named on the page.
    """
    config = parse_config(ReportConfig, cfg, "report")
    comparison = read_comparison(config) if config.study or config.scores else None
    out = _place(config)
    files = _files(config, comparison, out)
    if config.check:
        check_files(out.parent, files)
        print(f"report: {out.parent} is what its inputs give ({len(files)} files)")
        return out
    for name, data in files.items():
        write_atomically(out.parent / name, data)
    if config.wandb is not None:
        mirror(config.wandb, out.parent, list(files), comparison)
    print(f"report: {out}")
    return out


def _place(config: ReportConfig) -> Path:
    """Where the page goes."""
    if config.out:
        return Path(config.out)
    if folders := config.judged_folders():
        return Path(folders[0]) / "report.html"
    beside = Path(config.study).parent if config.study else score_folders(config)[0]
    return beside / "report" / "report.html"


def _files(config: ReportConfig, comparison: Comparison | None, out: Path) -> dict[str, str]:
    """Everything that a report consists of, by name; the page last: where it exists, the others do."""
    judged = Path(config.judged) if config.judged else None
    figures = read_numbers(judged / NUMBERS) if judged else []
    rows = read_verdicts(judged) if judged and (judged / VERDICTS).is_file() else []
    bars = read_bars(judged / "bars.json") if judged else []
    budget = Budget(int(config.max_megabytes * 1e6))
    sections = []
    if judged:
        sections += _judged_sections(config, judged, figures, rows, bars, budget)
    elif config.runs:
        sections += [curves_section(config.runs), runs_section(config.runs, rows)]
    heard = read_numbers(Path(config.sound) / NUMBERS) if config.sound else []
    if heard:
        sections.append(sound_section(heard, Path(config.sounds) if config.sounds else None, budget))
    for name, make in PARTS.items():
        if folder := getattr(config, name):
            part, reached = read_numbers(Path(folder) / NUMBERS), read_bars(Path(folder) / "bars.json")
            sections.append(make(Path(folder), part, reached, budget))
            figures, bars = [*figures, *part], [*bars, *reached]
    if comparison:  # after what one run made, which whoever ran it came to see
        sections += comparison_sections(config, comparison, budget)
    if judged or config.notes:
        sections.append(notes_section(config.notes))
    if judged or config.config:
        sections.append(config_section(config.config, config.runs))
    if budget.num_left_out:
        limit = f"{config.max_megabytes:g} MB of video"
        sections.insert(0, note(f"{budget.num_left_out} clips were left out to keep the page below {limit}."))
    everything = [*figures, *heard, *(comparison_figures(comparison) if comparison else [])]
    measured = bool(config.judged_folders())
    facts = headline(figures, bars, rows) if measured else comparison_headline(comparison)
    tables = comparison_files(config, comparison) if comparison else {}
    files = {f"{out.stem}.files/{name}": data for name, data in tables.items()}
    return files | {NUMBERS: numbers_json(everything), out.name: page(config, facts, sections)}


def _judged_sections(
    config: ReportConfig,
    judged: Path,
    figures: Sequence[Figure],
    rows: Sequence[Verdict],
    bars: Sequence[Bar],
    budget: Budget,
) -> list[str]:
    """What a judged run shows. Pairs are few and take from the size limit first, but stand after the clips."""
    reconstructed = pairs(config, judged, budget)
    generated = generated_section(judged, rows, config.max_clips, budget)
    return [
        figures_section(figures, bars),
        generated,
        reconstructed,
        curves_section(config.runs),
        runs_section(config.runs, rows),
    ]


def read_bars(path: Path) -> list[Bar]:
    """The bars that judge checked; empty when it wrote none."""
    if not path.is_file():
        return []
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of bars")
    return [parse_record(Bar, row, str(path)) for row in rows]


def pairs(config: ReportConfig, judged: Path, budget: Budget) -> str:
    """Clips beside their reconstructions, with the PCA's where judge fitted one."""
    records = read_reconstructions(config.reconstructions) if config.reconstructions else []
    files = {name: judged / f"pca-{name}.npz" for name in SETS}
    pcas = {name: BlockPca.load(path) for name, path in files.items() if path.is_file()}
    return pairs_section(Path(config.reconstructions or "."), records, pcas, config.max_pairs, budget)


def headline(figures: Sequence[Figure], bars: Sequence[Bar], rows: Sequence[Verdict]) -> str:
    """One line under the title: how much was measured and how many bars were reached."""
    clips = sum(row.kind == "generated" for row in rows)
    reached = sum(bar.reached for bar in bars)
    parts = [f"{len(figures)} figures", f"{clips} generated clips"]
    if bars:
        parts.append(f"{reached} of {len(bars)} bars reached")
    return ", ".join(parts) + "."


def notes_section(notes: Sequence[str]) -> str:
    """What is small here and what was never run at scale."""
    items = tag("ul", *(tag("li", text(line)) for line in notes)) if notes else note("Nothing was noted.")
    return section("What is small, and what was never run at scale", items, id_="limits")


def page(config: ReportConfig, facts: str, sections: Sequence[str]) -> str:
    """The whole document. Its policy names the hash of its one script and one style, so that no other can run."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    body = "".join(sections)
    script = SCRIPT.read_text(encoding="utf-8") if 'data-role="grid"' in body else ""
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{text(policy(style, script))}">',
        tag("title", text(config.title)),
        tag("style", style),
    ]
    summary = tag("p", text(config.summary), class_="lead") if config.summary else ""
    top = tag("header", tag("h1", text(config.title)), summary, tag("p", text(facts), class_="facts"))
    end = tag("script", script) if script else ""
    whole = tag("body", top, tag("main", body), end)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{chr(10).join(head)}\n</head>\n{whole}\n</html>\n'


def policy(style: str, script: str) -> str:
    """The content policy of a page with this style and script, none other, and nothing from outside."""
    hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
    rules = ["default-src 'none'", f"style-src 'sha256-{hashes[0]}'", "media-src data:", "img-src data:"]
    if script:
        rules.append(f"script-src 'sha256-{hashes[1]}'")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])
