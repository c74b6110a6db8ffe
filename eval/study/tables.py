"""An analysis as a Markdown table, as the figures of numbers.json, and as csv files of raters and left-out votes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from moviegen_eval.numbers import Figure, at_level
from moviegen_eval.study.exchange import escaped
from moviegen_eval.study.results import Analysis, PairResult, Rate
from moviegen_eval.study.table import LeftOut

MAX_ROWS = 40  # of a list on the screen; the csv files hold all


def analysis_table(analysis: Analysis) -> str:
    """What `moviegen eval study analyse` prints."""
    used = analysis.n_votes + analysis.n_gold
    label = " SIMULATED RATERS." if analysis.simulated else ""
    parts = [
        f"# {analysis.title}",
        f"Study {analysis.study}, sha256 {analysis.digest}.{label} Of {analysis.n_read} votes {used} count, "
        f"{analysis.n_gold} of them on gold items. Intervals: 95 %, {analysis.resamples} resamples of prompts, seed "
        f"{analysis.seed}.",
        _main(analysis),
        "Net: win % - loss %. p: sign test over prompts; Holm: over the axes of a pair, and over all rows. "
        "significant: Holm below 0.05; moderate: the interval alone leaves out 0. Paper: its rule of 1 and 2 sigma of "
        "rater noise.",
        *([_ranks(analysis)] if analysis.rankings else []),
        _agreement(analysis),
        _raters(analysis),
        *_list("Left out", [str(out) for out in analysis.left_out]),
        *_list("Notes", analysis.notes),
    ]
    return "\n\n".join(parts) + "\n"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _main(analysis: Analysis) -> str:
    rows = [
        [
            r.axis, f"{r.first} / {r.second}", r.n_prompts, r.majority.counts, r.splits, r.net, r.majority.tie_half,
            r.n_votes, r.pooled.net, f"{r.p:.3g}", f"{r.p_holm:.3g}", f"{r.majority.p_holm_all:.3g}", r.verdict,
            r.paper_verdict or "no sigma",
        ]
        for r in analysis.results
    ]  # fmt: skip
    header = (
        "axis", "arms", "prompts", "W-T-L majority", "splits", "net majority", "50 = tie", "votes", "net pooled", "p",
        "p Holm", "p Holm all", "ours", "paper",
    )  # fmt: skip
    return markdown(header, rows)


def _ranks(analysis: Analysis) -> str:
    rows = []
    for ranks in analysis.rankings:
        for row in ranks.rows:
            low, high = row.strength_interval
            strength = f"{row.strength:+.3f} [{low:+.3f}, {high:+.3f}]"
            interval = f"{row.rank} [{row.rank_interval[0]}, {row.rank_interval[1]}]"
            rows.append(
                [
                    ranks.axis,
                    interval,
                    row.arm,
                    strength,
                    half_win_cell(row.half_win_strength),
                    ranks.n_prompts,
                ]
            )
    header = ("axis", "rank", "arm", "strength (Davidson)", "tie as half a win", "prompts")
    apart = [ranks.axis for ranks in analysis.rankings if not ranks.finite]
    return markdown(header, rows) + (f"\n\n{', '.join(apart)}: {APART}" if apart else "")


APART = (
    "some arms won every vote against the others, so no finite strength fits the votes best: what stands here is held "
    "by a weak pull to 0, and its interval says nothing. The ranks hold."
)


def half_win_cell(strength: float | None, digits: int = 3) -> str:
    """The strength with ties as half wins, where there is one."""
    return "-" if strength is None else f"{strength:+.{digits}f}"


def _agreement(analysis: Analysis) -> str:
    rows = [
        [axis, f"{a.value:.3f} [{a.low:.3f}, {a.high:.3f}]" if a else "none", a.n_items if a else 0]
        for axis, a in analysis.alphas.items()
    ]
    side = analysis.side
    return (
        markdown(("axis", "Krippendorff's alpha", "items of two votes or more"), rows)
        + f"\n\nSides: {side.left} left, {side.right} right, bias {side.value:+.3f}, p {side.p:.3g}."
    )


def _raters(analysis: Analysis) -> str:
    order = sorted(analysis.raters, key=lambda row: (row.excluded is None, not row.flags, row.rater))
    table = (
        markdown(RATER_COLUMNS, list(rater_cells(analysis))[: len(order)]) if len(order) <= MAX_ROWS else ""
    )
    if not table:
        keep = {row.rater for row in order[:MAX_ROWS]}
        table = markdown(RATER_COLUMNS, [cells for cells in rater_cells(analysis) if cells[0] in keep])
        table += f"\n\n{len(order)} raters; excluded and flagged ones first, all in raters.csv."
    return table


RATER_COLUMNS = (
    "rater", "votes", "W-T-L", "ties", "left", "right", "p side", "gold", "agreed with others", "watched s", "flags",
    "excluded",
)  # fmt: skip


def rater_cells(analysis: Analysis) -> Iterable[list[object]]:
    """One row of cells a rater."""
    for row in analysis.raters:
        yield [
            row.rater,
            row.votes,
            row.counts,
            "" if row.tie_rate is None else f"{row.tie_rate:.2f}",
            row.side.left,
            row.side.right,
            f"{row.side.p:.2g}",
            f"{row.gold_right} of {row.gold}",
            f"{row.agreed} of {row.compared}",
            "" if row.watch_seconds is None else f"{row.watch_seconds:.1f}",
            ", ".join(row.flags),
            row.excluded or "",
        ]


def _list(title: str, lines: Sequence[str]) -> list[str]:
    more = [f"- and {len(lines) - MAX_ROWS} more"] if len(lines) > MAX_ROWS else []
    return ["\n".join([f"{title}:", *(f"- {line}" for line in lines[:MAX_ROWS]), *more])] if lines else []


def raters_csv(analysis: Analysis) -> str:
    """All raters."""
    return _csv(RATER_COLUMNS, ([escaped(str(cell)) for cell in cells] for cells in rater_cells(analysis)))


def left_out_csv(left_out: Iterable[LeftOut]) -> str:
    """Every line and vote that does not count, with the reason."""
    rows = ([escaped(out.reason), escaped(place)] for out in left_out for place in out.places)
    return _csv(("reason", "vote or line"), rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def analysis_figures(analysis: Analysis) -> list[Figure]:
    """Every figure of the analysis, named study/<id>/<axis>/<first>_vs_<second>/... from the side of the first arm."""
    top = f"study/{analysis.study}"
    found = [figure for result in analysis.results for figure in _result_figures(top, result)]
    for part in analysis.slices:
        tags = "/".join(f"{_word(tag)}/{_word(value)}" for tag, value in part.tags)
        name = f"{top}/{part.axis}/{part.first}_vs_{part.second}/by/{tags}/net"
        found.append(
            Figure(name, part.net.value, part.net.low, part.net.high, part.n_prompts, "points", True)
        )
    for axis, own in analysis.alphas.items():
        if own:
            found.append(Figure(f"{top}/{axis}/alpha", own.value, own.low, own.high, own.n_items, "", True))
    for ranks in analysis.rankings:
        for row in ranks.rows:
            name, n = f"{top}/{ranks.axis}/ranking/{row.arm}", ranks.n_prompts
            found.append(
                Figure(f"{name}/strength", row.strength, *row.strength_interval, n, "log odds", True)
            )
            found.append(Figure(f"{name}/rank", row.rank, *row.rank_interval, n, "", False))
    votes = analysis.side.left + analysis.side.right
    found.append(Figure(f"{top}/side_bias", analysis.side.value, None, None, votes, "", False))
    found.append(Figure(f"{top}/votes", analysis.n_votes, None, None, analysis.n_read, "", True))
    return [at_level(figure, analysis.level) for figure in _unique(found)]


def _result_figures(top: str, result: PairResult) -> Iterable[Figure]:
    name = f"{top}/{result.axis}/{result.first}_vs_{result.second}"
    rates: tuple[tuple[str, Rate, int], ...] = (
        ("majority", result.majority, result.n_items),
        ("pooled", result.pooled, result.n_votes),
    )
    for kind, rate, n in rates:
        net, half, prompts = rate.net, rate.tie_half, result.n_prompts
        yield Figure(f"{name}/{kind}/net", net.value, net.low, net.high, prompts, "points", True)
        yield Figure(f"{name}/{kind}/tie_half", half.value, half.low, half.high, prompts, "%", True)
        for key in ("wins", "ties", "losses"):
            yield Figure(
                f"{name}/{kind}/{key}", getattr(rate.counts, key), None, None, n, "", key != "losses"
            )
        for key in ("p", "p_holm", "p_holm_all"):
            yield Figure(f"{name}/{kind}/{key}", getattr(rate, key), None, None, prompts, "", False)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)


def _unique(figures: list[Figure]) -> list[Figure]:
    """Tags that differ only in letters that a name cannot have get a number."""
    seen: dict[str, int] = {}
    found = []
    for figure in figures:
        seen[figure.name] = seen.get(figure.name, 0) + 1
        count = seen[figure.name]
        found.append(Figure(**{**figure.__dict__, "name": f"{figure.name}-{count}"}) if count > 1 else figure)
    return found
