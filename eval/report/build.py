"""`moviegen eval report`: puts the page together from what judge wrote, the clips and the logs.

The page is one file without outside references; its content policy forbids the browser to load any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moviegen_eval.bars import Bar
from moviegen_eval.baselines.pca import BlockPca
from moviegen_eval.config import ReportConfig, parse_config
from moviegen_eval.files import read_json, write_atomically
from moviegen_eval.numbers import NUMBERS, Figure, read_numbers, write_numbers
from moviegen_eval.pairs import SETS, read_reconstructions
from moviegen_eval.records import parse_record
from moviegen_eval.report.clips import Budget, generated_section, pairs_section
from moviegen_eval.report.figures import figures_section
from moviegen_eval.report.markup import note, section, tag, text
from moviegen_eval.report.runs import config_section, curves_section, runs_section
from moviegen_eval.verdicts import VERDICTS, Verdict, read_verdicts
from omegaconf import DictConfig

POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"


def report(cfg: DictConfig | Mapping[str, Any]) -> Path:
    """Write the page that `conf/report.yaml` describes, its numbers.json beside it, and return the page's path.

    Raises ValueError of one line when the judged folder has no numbers.json or an input is damaged; inputs
    that are merely absent are named on the page.
    """
    config = parse_config(ReportConfig, cfg, "report")
    judged = Path(config.judged)
    figures = read_numbers(judged / NUMBERS)
    rows = read_verdicts(judged) if (judged / VERDICTS).is_file() else []
    bars = read_bars(judged / "bars.json")
    budget = Budget(int(config.max_megabytes * 1e6))
    sections = [
        figures_section(figures, bars),
        pairs(config, judged, budget),
        generated_section(judged, rows, config.max_clips, budget),
        curves_section(config.runs),
        runs_section(config.runs, rows),
        notes_section(config.notes),
        config_section(config.config, config.runs),
    ]
    # Pairs are few and take from the size limit first; the page shows the generated clips before them.
    sections[1], sections[2] = sections[2], sections[1]
    if budget.num_left_out:
        limit = f"{config.max_megabytes:g} MB of video"
        sections.insert(0, note(f"{budget.num_left_out} clips were left out to keep the page below {limit}."))
    out = Path(config.out) if config.out else judged / "report.html"
    write_numbers(out.parent / NUMBERS, figures)
    write_atomically(out, page(config, headline(figures, bars, rows), sections))
    print(f"report: {out}")
    return out


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
    """The whole document."""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">',
        tag("title", text(config.title)),
        tag("style", style),
    ]
    summary = tag("p", text(config.summary), class_="lead") if config.summary else ""
    top = tag("header", tag("h1", text(config.title)), summary, tag("p", text(facts), class_="facts"))
    body = tag("body", top, tag("main", *sections))
    return f'<!doctype html>\n<html lang="en">\n<head>\n{chr(10).join(head)}\n</head>\n{body}\n</html>\n'
