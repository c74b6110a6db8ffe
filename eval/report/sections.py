"""The comparison's part of the page, and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from moviegen_eval.config import ReportConfig
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.compared import all_tables
from moviegen_eval.report.comparison import Comparison
from moviegen_eval.report.forest import bars, forest, heat_map
from moviegen_eval.report.grid import draw_items, grid_section
from moviegen_eval.report.markup import folded, note, section, tag, text
from moviegen_eval.report.runs import facts_table
from moviegen_eval.report.tables import Table, to_csv, to_html, to_latex, to_markdown
from moviegen_eval.study.analysis import Analysis, PairResult
from moviegen_eval.study.study import ExclusionRules
from moviegen_eval.suites import CONCEPT, FAMILY, MOTION

BANNER = "SIMULATED RATERS. The votes were made by a program: nothing here says which videos people prefer."
FOLDED_ROWS = 30  # a longer table opens on a click


def comparison_sections(config: ReportConfig, comparison: Comparison, budget: Budget) -> list[str]:
    """Header, settings, preference, slices, metrics, raters, videos."""
    tables = {table.name: table for table in all_tables(comparison)}
    parts = []
    if comparison.analysis and comparison.analysis.simulated:
        parts.append(tag("p", text(BANNER), class_="banner"))
    parts.append(
        section(
            "What was compared", facts_table(header(comparison)), *_html(tables, "settings"), id_="compared"
        )
    )
    if comparison.analysis:
        parts.append(section("Preference", *_preference(comparison, tables), id_="preference"))
        parts.append(section("Slices", *_maps(comparison.analysis), *_html(tables, "slices"), id_="slices"))
    elif comparison.study:
        parts.append(section("Preference", note("No votes were given."), id_="preference"))
    if comparison.scores:
        names = ("metrics", "metrics_by_tag", "agreement", "problems")
        parts.append(section("Automatic metrics", *_html(tables, *names), id_="metrics"))
    if comparison.analysis:
        names = ("alpha", "raters", "left_out")
        parts.append(section("Raters", *_html(tables, *names), _declared(comparison), id_="raters"))
    if comparison.study:
        parts.append(
            grid_section(
                comparison,
                config.grid_items,
                config.grid_seed,
                config.grid_height,
                config.grid_seconds,
                budget,
            )
        )
    return parts


def header(comparison: Comparison) -> dict[str, str]:
    """Names, hashes and numbers that identify what was done."""
    facts = {}
    study, analysis, scores = comparison.study, comparison.analysis, comparison.scores
    if study:
        plain = sum(item.gold is None for item in study.items)
        facts["study"] = f"{study.id}: {study.title}"
        facts["study sha256"] = study.digest
        facts["declared"] = (
            f"{len(study.axes)} axes, {len(study.arms)} arms, {plain} items, {len(study.items) - plain} gold items, "
            f"seed {study.seed}; hashed into every vote"
        )
        facts["raters per item"] = ", ".join(f"{axis.key} {axis.raters}" for axis in study.axes)
        facts["exclusion rules"] = exclusion_words(study.exclusion)
        facts["videos as rated"] = comparison.form
    if analysis:
        facts["votes"] = (
            f"{analysis.n_votes} counted of {analysis.n_read} read, {analysis.n_gold} on gold items"
        )
        facts["dates of votes"] = " to ".join(analysis.dates) if analysis.dates else "not known"
        facts["sources of votes"] = ", ".join(f"{name} {count}" for name, count in analysis.sources.items())
        facts["intervals"] = f"95 %, {analysis.resamples} resamples of prompts, seed {analysis.seed}"
    if scores:
        facts |= _suite_facts(scores.facts.get("suite", {}))
    facts |= {f"{name} sha256": digest for name, digest in comparison.inputs.items()}
    if study:
        facts |= {name: value for name, value in comparison.protocol.items()}
    return facts


def exclusion_words(rules: ExclusionRules) -> str:
    """The rules that apply, with their numbers; "none" where none does."""
    values = {key: value for key, value in vars(rules).items() if value not in (None, 0, 0.0)}
    for key, rule in (("min_gold_votes", "min_gold_accuracy"), ("max_side_p", "max_side_bias")):
        if rule not in values:  # it only says when the rule applies
            values.pop(key, None)
    return ", ".join(f"{key} {value:g}" for key, value in values.items()) or "none"


def _suite_facts(suite: dict) -> dict[str, str]:
    facts = {
        "suite": f"{suite.get('name')}: {suite.get('prompts')} prompts, {suite.get('unique')} unique texts",
        "suite sha256": str(suite.get("sha256")),
        "suite licence": str(suite.get("licence")),
        "counting rule": "a prompt counts once for each value of a tag, however often it repeats it",
    }
    if suite.get("remarks"):
        facts["suite remarks"] = "; ".join(suite["remarks"])
    return facts


def _html(tables: dict[str, Table], *names: str) -> list[str]:
    """Tables by name, those that are there; long ones open on a click."""
    parts = []
    for name in names:
        if name in tables:
            table, body = tables[name], to_html(tables[name])
            long = len(table.rows) > FOLDED_ROWS
            parts.append(folded(f"{table.title} ({len(table.rows)} rows)", body) if long else body)
    return parts


def _preference(comparison: Comparison, tables: dict[str, Table]) -> list[str]:
    """The main table and the ranking, then forest and bars of each comparison."""
    assert comparison.analysis is not None
    words = "Square: net win rate with its 95 % interval, filled where significant after Holm. "
    if comparison.published:
        words += "Empty diamond: published, n unknown. "
    words += "Bars: items by the majority of their raters."
    parts = [*_html(tables, "main", "ranking"), tag("p", text(words), class_="caption")]
    for own in by_pair(comparison.analysis):
        title = f"{own[0].first} against {own[0].second}"
        plots = [forest(own, comparison.published), bars(own)]
        parts += [tag("h3", text(title)), *(tag("figure", plot, class_="plot") for plot in plots)]
    return parts


def by_pair(analysis: Analysis) -> list[list[PairResult]]:
    """Results by pair of arms, in the analysis' order."""
    groups: dict[tuple[str, str], list[PairResult]] = {}
    for one in analysis.results:
        groups.setdefault((one.first, one.second), []).append(one)
    return list(groups.values())


def _maps(analysis: Analysis) -> list[str]:
    """Concept by motion of each pair, on the first axis that has votes; the other axes open on a click."""
    parts = []
    for own in by_pair(analysis):
        maps = []
        for one in own:
            rows = FAMILY if any(FAMILY in dict(s.tags) for s in analysis.slices) else CONCEPT
            if picture := heat_map(analysis, one.axis, one.first, one.second, rows, MOTION):
                title = (
                    f"{one.axis.replace('_', ' ')}: {one.first} against {one.second}, concept by motion level"
                )
                maps.append((title, picture))
        if maps:
            parts += [tag("h3", text(maps[0][0])), tag("figure", maps[0][1], class_="plot")]
            rest = "".join(
                tag("h3", text(title)) + tag("figure", picture, class_="plot") for title, picture in maps[1:]
            )
            parts.append(folded("other axes", rest) if rest else "")
    return parts or [note("No item has both a concept and a motion level.")]


def _declared(comparison: Comparison) -> str:
    """What raters were told and asked, as declared."""
    study = comparison.study
    assert study is not None
    rows = {axis.key: axis.question for axis in study.axes}
    rows |= {"instructions": study.instructions or "none", "consent": study.consent or "none"}
    return folded("Questions, instructions and consent as declared", facts_table(rows))


def comparison_headline(comparison: Comparison | None) -> str:
    """One line under the title."""
    if comparison is None:
        return ""
    parts = []
    if comparison.analysis:
        analysis = comparison.analysis
        parts.append(f"{analysis.n_votes} votes of {sum(not r.excluded for r in analysis.raters)} raters")
        parts.append(f"{len(analysis.arms)} arms, {len(analysis.axes)} axes")
    if comparison.scores:
        parts.append(f"{len(comparison.scores.scores)} scores")
    return ", ".join(parts) + "." if parts else ""


def comparison_files(config: ReportConfig, comparison: Comparison) -> dict[str, str]:
    """report.md, report.tex, a csv for each table, items.csv, study.json, report.json."""
    tables = all_tables(comparison)
    simulated = comparison.analysis is not None and comparison.analysis.simulated
    files = {f"{table.name}.csv": to_csv(table) for table in tables}
    files["report.md"] = _markdown(config, comparison, tables, simulated)
    tex = "".join(to_latex(table) + "\n" for table in tables)
    files["report.tex"] = (f"% {BANNER}\n" if simulated else "") + "% needs booktabs\n" + tex
    if comparison.study:
        files["study.json"] = json.dumps(comparison.study.to_dict(), indent=1, ensure_ascii=False) + "\n"
        files["grid.json"] = (
            json.dumps(
                {
                    "seed": config.grid_seed,
                    "items": [
                        item.id for item in draw_items(comparison.study, config.grid_items, config.grid_seed)
                    ],
                },
                indent=1,
            )
            + "\n"
        )
    if comparison.analysis:
        files["items.csv"] = to_csv(_items(comparison))
    files["report.json"] = json.dumps({"header": header(comparison), "simulated": simulated}, indent=1) + "\n"
    return files


def _markdown(config: ReportConfig, comparison: Comparison, tables: Sequence[Table], simulated: bool) -> str:
    title = Table("title", config.title, ("what", "value"), tuple(header(comparison).items()))
    parts = [to_markdown(title).replace("## ", "# ", 1)]
    if simulated:
        parts.insert(0, f"**{BANNER}**\n")
    return "\n".join([*parts, *map(to_markdown, tables)])


def _items(comparison: Comparison) -> Table:
    """All votes of every item."""
    study, analysis = comparison.study, comparison.analysis
    assert study is not None
    assert analysis is not None
    rows = []
    for item in study.items:
        if item.gold is None:
            counts = [analysis.item(item.id, axis) for axis in analysis.axes]
            words = [f"{c.wins}-{c.ties}-{c.losses}" for c in counts]
            tags = "; ".join(f"{key}: {value}" for key, value in item.tags.items())
            rows.append((item.id, item.prompt, tags, item.arm_a, item.arm_b, *words))
    head = ("item", "prompt", "tags", "arm a", "arm b", *(f"{axis} a-tie-b" for axis in analysis.axes))
    return Table("items", "Votes by item", head, tuple(rows))
