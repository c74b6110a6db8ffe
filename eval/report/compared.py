"""The tables of a comparison: main table, settings, slices, rankings, metrics, raters, what was left out."""

from __future__ import annotations

from collections.abc import Sequence

from moviegen_eval.arms import unlike_settings
from moviegen_eval.arms.card import SETTINGS, shown_setting
from moviegen_eval.report.comparison import Comparison, comparable_scores
from moviegen_eval.report.published import COLUMN
from moviegen_eval.report.tables import Table
from moviegen_eval.scores import Score, ScoreFile
from moviegen_eval.study.analysis import SMALL, Analysis, PairResult
from moviegen_eval.study.tables import APART, half_win_cell

RULE = "beyond 2 sigma significant, 1 to 2 moderate, below 1 on par; sigma is the noise of raters alone"


def all_tables(comparison: Comparison) -> list[Table]:
    """Every table that the inputs allow, in the order of the page."""
    tables = [settings_table(comparison)] if comparison.cards else []
    if comparison.analysis:
        tables += [main_table(comparison), slices_table(comparison.analysis)]
        tables += rankings(comparison.analysis)
    if comparison.scores:
        tables += [metrics_table(comparison), by_tag_table(comparison.scores), problems_table(comparison)]
    if comparison.agreements:
        tables.append(agreement_table(comparison))
    if comparison.analysis:
        tables += [alpha_table(comparison.analysis), raters_table(comparison.analysis)]
        tables.append(left_out_table(comparison.analysis))
    return [table for table in tables if table.rows]


def main_table(comparison: Comparison) -> Table:
    """Axis by baseline: counts, net win rate with interval, significance by Holm and by the paper's rule."""
    analysis = comparison.analysis
    assert analysis is not None
    head = ["axis", "comparison", "W-T-L", "items", "net win rate", "95 % interval"]
    head += [COLUMN] if comparison.published else []
    head += ["p (Holm)", "ours", "paper's rule", "votes", "pooled net", "50 = tie", "prompts", "split"]
    rows = []
    for axis in analysis.axes:
        for result in (one for one in analysis.results if one.axis == axis):
            published = [_published(comparison, result)] if comparison.published else []
            row = [axis, f"{result.first} vs {result.second}", *_result_cells(result, published)]
            rows.append(tuple(row))
    notes = [
        "W-T-L: items by the majority of their raters, from the side of the first arm; a split without a leading "
        "answer is a tie. Net win rate: win % minus loss %, -100 to 100. Pooled: every vote by itself.",
        "Intervals: bootstrap over prompts. p: sign test over prompts, Holm over the axes of one comparison. "
        f"Ours: significant after Holm, moderate where only the interval leaves out 0. The paper's rule: {RULE}.",
    ]
    if comparison.published:
        notes += [f"{COLUMN}: {comparison.published.source}", *comparison.published.notes]
        if comparison.published.unconfirmed:
            axes = ", ".join(comparison.published.unconfirmed)
            notes.append(f"Not checked against the source: {axes}.")
    if analysis.simulated:
        notes.insert(0, "SIMULATED RATERS: these votes were made by a program and say nothing of any video.")
    return Table("main", "Preference by axis and baseline", tuple(head), tuple(rows), tuple(notes))


def _result_cells(result: PairResult, published: Sequence[str]) -> list[str]:
    net = result.net
    return [
        f"{result.wins}-{result.ties}-{result.losses}",
        str(result.n_items),
        f"{net.value:+.2f}",
        f"{net.low:+.1f} to {net.high:+.1f}",
        *published,
        p_value(result.p_holm),
        result.verdict,
        result.paper_verdict or "-",
        str(result.n_votes),
        f"{result.pooled.net.value:+.2f}",
        f"{net.tie_half().value:.1f} %",
        str(result.n_prompts),
        str(result.splits),
    ]


def _published(comparison: Comparison, result: PairResult) -> str:
    published = comparison.published
    assert published is not None
    if (net := published.net(result.axis, result.second)) is not None:
        return f"{net:+.2f}"
    flipped = published.net(result.axis, result.first)
    return "-" if flipped is None else f"{-flipped:+.2f}"


def p_value(p: float) -> str:
    """Two digits, or a bound."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def settings_table(comparison: Comparison) -> Table:
    """A row a setting, a column an arm; settings that differ come first and say so."""
    cards = comparison.cards
    unlike = unlike_settings(cards) if len(cards) > 1 else {}
    rows = []
    for setting in sorted(SETTINGS, key=lambda name: name not in unlike):
        mark = "differs" if setting in unlike else "same"
        if len(cards) == 1:
            mark = "-"
        rows.append(
            (setting.replace("_", " "), mark, *(shown_setting(card, setting) for card in cards.values()))
        )
    rows += _measured(comparison)
    rows.append(("refusals", "-", *(str(len(card.refusals)) for card in cards.values())))
    rows.append(("notes", "-", *(card.notes or "-" for card in cards.values())))
    notes = []
    facts = comparison.scores.facts if comparison.scores else {}
    if facts.get("normal"):
        notes.append(
            f"Automatic metrics: the arms' videos differ, so all of them were brought to {facts['normal_words']}."
        )
    elif facts.get("differences"):
        words = "; ".join(
            f"{name} " + ", ".join(f"{arm} {value}" for arm, value in values.items())
            for name, values in facts["differences"].items()
        )
        notes.append(f"Automatic metrics were taken of unlike videos (unlike=as_they_are): {words}.")
    faint = frozenset(
        number for number, row in enumerate(rows) if all(cell == "not stated" for cell in row[2:])
    )
    head = ("setting", "arms", *cards)
    return Table("settings", "Settings of each arm", head, tuple(rows), tuple(notes), faint)


MEASURED = {"frame_rate": "frames/s", "seconds": "s", "width": "pixels", "height": "pixels"}


def _measured(comparison: Comparison) -> list[tuple[str, ...]]:
    """What the arms' videos are, by median, whatever their cards say; nothing without scores."""
    known = comparison.scores.facts.get("arms", {}) if comparison.scores else {}
    found = [known.get(arm, {}).get("typical", {}) for arm in comparison.cards]
    rows = []
    for name, unit in MEASURED.items():
        cells = [f"{one[name]:.4g} {unit}" if name in one else "not measured" for one in found]
        mark = "-" if len(cells) == 1 else "same" if len(set(cells)) == 1 else "differs"
        rows.append((f"{name.replace('_', ' ')} as measured", mark, *cells))
    return rows if any(found) else []


def slices_table(analysis: Analysis) -> Table:
    """Every slice by one tag, with n; small ones are greyed."""
    rows, faint = [], set()
    for one in analysis.slices:
        if len(one.tags) != 1:
            continue
        if one.small:
            faint.add(len(rows))
        tag, value = one.tags[0]
        counts = f"{one.counts.wins}-{one.counts.ties}-{one.counts.losses}"
        interval = f"{one.net.low:+.1f} to {one.net.high:+.1f}"
        rows.append(
            (one.axis, f"{one.first} vs {one.second}", tag, value, counts, str(one.n_items),
             f"{one.net.value:+.1f}", interval, p_value(one.p_holm))
        )  # fmt: skip
    head = ("axis", "comparison", "tag", "value", "W-T-L", "items", "net", "95 % interval", "p (Holm)")
    notes = (
        f"Greyed: fewer than {SMALL} items. Prompts with several values count in each, so slices overlap and do not "
        "add up. Holm over the values of one tag; many slices are looked at, so some are far from 0 by chance.",
    )
    return Table("slices", "Slices by tag", head, tuple(rows), notes, frozenset(faint))


def rankings(analysis: Analysis) -> list[Table]:
    """Davidson's Bradley-Terry model, where three arms or more were compared."""
    rows = []
    for ranking in analysis.rankings:
        for row in ranking.rows:
            low, high = row.strength_interval
            rank = f"{row.rank_interval[0]} to {row.rank_interval[1]}"
            rows.append(
                (ranking.axis, str(row.rank), rank, row.arm, f"{row.strength:+.2f}", f"{low:+.2f} to {high:+.2f}",
                 half_win_cell(row.half_win_strength, 2), str(ranking.n_prompts))
            )  # fmt: skip
    head = (
        "axis",
        "rank",
        "95 % of ranks",
        "arm",
        "strength",
        "95 % interval",
        "ties as half wins",
        "prompts",
    )
    notes = [
        "Bradley-Terry with ties (Davidson); strengths add up to 0. Online Elo is not used: it depends on order."
    ]
    if apart := [ranking.axis for ranking in analysis.rankings if not ranking.finite]:
        notes.append(f"{', '.join(apart)}: {APART}")
    return [Table("ranking", "Ranking", head, tuple(rows), tuple(notes))] if rows else []


def metrics_table(comparison: Comparison) -> Table:
    """A row an output, a column an arm; what does not compare is printed apart and says why."""
    assert comparison.scores is not None
    arms = list(dict.fromkeys(one.arm for one in comparison.scores.scores))
    best = _best_agreement(comparison)
    rows, notes = [], [f"Warning: {line}" for line in comparison.scores.facts.get("warnings", [])]
    for output, (scores, reason) in comparable_scores(comparison.scores.scores).items():
        for own in [[one] for one in scores] if reason else [scores]:
            rows.append(_metric_row(own, arms, best.get(output, "-")))
        if reason:
            notes.append(f"Not comparable, so each arm has a row of its own: {reason}.")
    skipped = comparison.scores.facts.get("skipped", {})
    notes += [f"Left out: {name}: {reason}" for name, reason in skipped.items()]
    head = ("metric", "unit, better", "n", *arms, "manifest", "agreement with votes")
    return Table("metrics", "Automatic metrics", head, tuple(rows), tuple(notes))


def by_tag_table(scores: ScoreFile) -> Table:
    """The metrics of the prompts that have one value of a tag: a row an output and value, a column an arm."""
    arms = list(dict.fromkeys(one.arm for one in (*scores.scores, *scores.by_tag)))
    rows = []
    for output, (found, reason) in comparable_scores(scores.by_tag).items():
        tag, value, _ = output.split("/", 2)
        for own in [[one] for one in found] if reason else [found]:
            name, unit, *rest = _metric_row(own, arms, "")[:-1]
            rows.append((tag, value, name.split("/", 2)[2], unit, *rest))
    head = ("tag", "value", "metric", "unit, better", "n", *arms, "manifest")
    notes = (
        "Prompts with several values count in each. `_minus_`: how far the arm in whose column it stands is above the "
        "other, prompt by prompt; an interval that leaves out 0 tells them apart.",
    )
    return Table("metrics_by_tag", "Automatic metrics by tag", head, tuple(rows), notes)


def _metric_row(scores: Sequence[Score], arms: Sequence[str], agreement: str) -> tuple[str, ...]:
    """One row of scores that compare, each in the column of its arm."""
    by_arm, first = {one.arm: one for one in scores}, scores[0]
    unit = f"{first.unit}, {'higher' if first.higher_is_better else 'lower'}"
    found = [by_arm.get(arm) for arm in arms]
    cells = ["-" if one is None else _interval(one.value, one.low, one.high) for one in found]
    return (first.output, unit, str(first.n), *cells, first.digest[:12], agreement)


def _best_agreement(comparison: Comparison) -> dict[str, str]:
    """Output -> its accuracy on the first axis that it was held against."""
    found: dict[str, str] = {}
    for one in comparison.agreements:
        if one.output not in found:
            found[one.output] = f"{one.accuracy:.2f} on {one.axis} (n {one.n_decided})"
    return found


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.4g}" if low is None or high is None else f"{value:.4g} [{low:.4g}, {high:.4g}]"


def agreement_table(comparison: Comparison) -> Table:
    """How often each metric prefers what the raters prefer."""
    rows = []
    for one in comparison.agreements:
        interval = "-" if one.interval is None else f"{one.interval.low:.2f} to {one.interval.high:.2f}"
        three = f"{one.with_ties:.3f}"
        rows.append(
            (one.output, one.axis, f"{one.accuracy:.3f}", interval, str(one.n_decided), three, str(one.n))
        )
    head = ("metric", "axis", "accuracy", "95 % interval", "decided items", "with ties", "items")
    notes = (
        "Accuracy: share of the items that the raters decided in which the metric prefers their side; 0.5 is chance. "
        "With ties: three answers, the metric's threshold fitted on the other half of the prompts.",
    )
    return Table("agreement", "Agreement of metrics with the votes", head, tuple(rows), notes)


def problems_table(comparison: Comparison) -> Table:
    """What of the arms could not be used: counted and named."""
    assert comparison.scores is not None
    found = comparison.scores.facts.get("problems", [])
    groups: dict[tuple[str, str], list[dict]] = {}
    for problem in found:
        groups.setdefault((problem["arm"], problem["kind"]), []).append(problem)
    rows = [(arm, kind, str(len(own)), _names(own)) for (arm, kind), own in groups.items()]
    return Table(
        "problems", "Videos and prompts that were not used", ("arm", "kind", "count", "which"), tuple(rows)
    )


def _names(problems: Sequence[dict], limit: int = 6) -> str:
    words = [f"{problem['name']} ({problem['reason']})" for problem in problems[:limit]]
    return "; ".join(words) + (f"; {len(problems) - limit} more" if len(problems) > limit else "")


def alpha_table(analysis: Analysis) -> Table:
    """Krippendorff's alpha of each axis."""
    rows = []
    for axis, alpha in analysis.alphas.items():
        if alpha is None:
            rows.append((axis, "not defined", "-", "-", "-"))
        else:
            interval = f"{alpha.low:.2f} to {alpha.high:.2f}"
            rows.append((axis, f"{alpha.value:.3f}", interval, str(alpha.n_items), str(alpha.n_votes)))
    head = ("axis", "alpha", "95 % interval", "items", "votes")
    notes = (
        "Krippendorff's nominal alpha: 1 where all raters agree, 0 as by chance. 0.3 to 0.45 is usual here. "
        "Not defined where no item has two votes, or all votes are the same answer.",
    )
    return Table("alpha", "Agreement of raters", head, tuple(rows), notes)


def raters_table(analysis: Analysis) -> Table:
    """A row a rater, the excluded ones too."""
    rows, faint = [], set()
    for one in analysis.raters:
        if one.excluded:
            faint.add(len(rows))
        ties = "-" if one.tie_rate is None else f"{100 * one.tie_rate:.0f} %"
        gold = f"{one.gold_right}/{one.gold}" if one.gold else "-"
        agreed = f"{100 * one.agreed / one.compared:.0f} % of {one.compared}" if one.compared else "-"
        watched = "-" if one.watch_seconds is None else f"{one.watch_seconds:.1f} s"
        rows.append(
            (one.rater, str(one.votes), f"{one.counts.wins}-{one.counts.ties}-{one.counts.losses}", ties,
             f"{one.side.value:+.2f}", gold, agreed, watched, one.excluded or ", ".join(one.flags) or "-")
        )  # fmt: skip
    side = analysis.side
    notes = (
        f"All raters together: left {side.left}, right {side.right} (bias {side.value:+.3f}, p {p_value(side.p)}). "
        "Side bias: (left - right) / (left + right). Watched: median over votes of the video watched less. Greyed: "
        "excluded.",
    )
    head = (
        "rater",
        "votes",
        "W-T-L",
        "ties",
        "side bias",
        "gold",
        "agrees with others",
        "watched",
        "remarks",
    )
    return Table("raters", "Raters", head, tuple(rows), notes, frozenset(faint))


def left_out_table(analysis: Analysis) -> Table:
    """Votes that do not count, by reason."""
    rows = [(out.reason, str(out.count), ", ".join(out.places[:4])) for out in analysis.left_out]
    notes = (
        f"{analysis.n_read} votes read; {analysis.n_votes} count, {analysis.n_gold} more on gold items.",
        *analysis.notes,
    )
    if not rows:
        rows = [("nothing was left out", "0", "-")]
    return Table(
        "left_out", "Votes that do not count", ("reason", "count", "first of them"), tuple(rows), notes
    )
