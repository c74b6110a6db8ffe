"""Every figure of a comparison as a line of numbers.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from moviegen_eval.agreement import Agreement
from moviegen_eval.numbers import Figure, at_level
from moviegen_eval.report.comparison import Comparison
from moviegen_eval.study.analysis import Analysis, PairResult

POINTS = "net win rate, points"


def comparison_figures(comparison: Comparison) -> list[Figure]:
    """`study/...` of each axis and pair, `score/...` of each arm, `agreement/...` of each metric and axis.

    Of a study of toyworld clips all name its level; scores name their own.
    """
    level = comparison.study.level if comparison.study else None
    scores, analysis = comparison.scores, comparison.analysis
    return [
        *(at_level(one, level) for one in (_study_figures(analysis) if analysis else ())),
        *(one.figure() for one in ((*scores.scores, *scores.by_tag) if scores else ())),
        *(at_level(one, level) for one in _agreement_figures(comparison.agreements)),
    ]


def _study_figures(analysis: Analysis) -> Iterator[Figure]:
    for one in analysis.results:
        yield from _result_figures(one)
    for axis, alpha in analysis.alphas.items():
        if alpha is not None:
            low, high = min(alpha.low, alpha.value), max(alpha.high, alpha.value)
            yield Figure(f"study/{axis}/alpha", alpha.value, low, high, alpha.n_items, "alpha", True)


def _result_figures(one: PairResult) -> Iterator[Figure]:
    name, prompts = f"study/{one.axis}/{one.first}_vs_{one.second}", one.n_prompts
    net, pooled, half = one.net, one.pooled.net, one.net.tie_half()
    yield Figure(f"{name}/net", net.value, net.low, net.high, prompts, POINTS, True)
    yield Figure(f"{name}/net_pooled", pooled.value, pooled.low, pooled.high, prompts, POINTS, True)
    yield Figure(f"{name}/tie_half", half.value, half.low, half.high, prompts, "win rate %, 50 = tie", True)
    for key in ("wins", "ties", "losses", "splits"):
        count = float(getattr(one, key))
        yield Figure(f"{name}/{key}", count, None, None, one.n_items, "items", key == "wins")
    yield Figure(f"{name}/p_holm", one.p_holm, None, None, prompts, "p", False)


def _agreement_figures(found: Sequence[Agreement]) -> Iterator[Figure]:
    for one in found:
        if math.isfinite(one.accuracy):
            low, high = one.interval or (None, None)
            name = f"agreement/{one.output}/{one.axis}"
            yield Figure(name, one.accuracy, low, high, one.n_decided, "share", True)
            yield Figure(f"{name}/with_ties", one.with_ties, None, None, one.n, "share", True)
