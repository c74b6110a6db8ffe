"""Every figure of a comparison as a line of numbers.json."""

from __future__ import annotations

import math

from moviegen_eval.numbers import Figure
from moviegen_eval.report.comparison import Comparison

POINTS = "net win rate, points"


def comparison_figures(comparison: Comparison) -> list[Figure]:
    """`study/...` of each axis and pair, `score/...` of each arm, `agreement/...` of each metric and axis."""
    figures: list[Figure] = []
    analysis = comparison.analysis
    for one in analysis.results if analysis else ():
        name = f"study/{one.axis}/{one.first}_vs_{one.second}"
        net, pooled = one.net, one.pooled.net
        figures.append(Figure(f"{name}/net", net.value, net.low, net.high, one.n_prompts, POINTS, True))
        figures.append(
            Figure(f"{name}/net_pooled", pooled.value, pooled.low, pooled.high, one.n_prompts, POINTS, True)
        )
        half = net.tie_half()
        figures.append(
            Figure(
                f"{name}/tie_half",
                half.value,
                half.low,
                half.high,
                one.n_prompts,
                "win rate %, 50 = tie",
                True,
            )
        )
        for key, value in (
            ("wins", one.wins),
            ("ties", one.ties),
            ("losses", one.losses),
            ("splits", one.splits),
        ):
            figures.append(
                Figure(f"{name}/{key}", float(value), None, None, one.n_items, "items", key == "wins")
            )
        figures.append(Figure(f"{name}/p_holm", one.p_holm, None, None, one.n_prompts, "p", False))
    for axis, alpha in analysis.alphas.items() if analysis else ():
        if alpha is not None:
            low, high = min(alpha.low, alpha.value), max(alpha.high, alpha.value)
            figures.append(
                Figure(f"study/{axis}/alpha", alpha.value, low, high, alpha.n_items, "alpha", True)
            )
    scores = comparison.scores
    figures += [one.figure() for one in (*scores.scores, *scores.by_tag)] if scores else []
    for one in comparison.agreements:
        if math.isfinite(one.accuracy):
            low, high = one.interval or (None, None)
            name = f"agreement/{one.output}/{one.axis}"
            figures.append(Figure(name, one.accuracy, low, high, one.n_decided, "share", True))
            figures.append(Figure(f"{name}/with_ties", one.with_ties, None, None, one.n, "share", True))
    return figures
