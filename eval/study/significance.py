"""Sign test, Holm's correction, and two verdicts beside each other: ours, and the paper's rule of sigmas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from moviegen_eval.study.rates import NetWinRate
from scipy.stats import binomtest

LEVEL = 0.05
SIGNIFICANT, MODERATE, ON_PAR = "significant", "moderate", "on par"

# Net win rate, standard deviation of one A/B annotation repeated four times on 381 prompts (the paper's Table 6): the
# noise of raters alone, without that of prompts. Second-hand; realness and aesthetics are not confirmed.
PAPER_SIGMA = {
    "overall": 5.07,
    "consistency": 4.08,
    "motion_naturalness": 3.98,
    "motion_completeness": 1.68,
    "text_alignment": 3.74,
    "realness": 2.52,
    "aesthetics": 4.84,
}


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the sign test; ties say nothing. 1.0 without wins and losses."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given.

    As statsmodels' `multipletests(method="holm")`, which collects garbage at each call: 0.1 s beside a large vote file.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def verdict(net: NetWinRate, p_holm: float) -> str:
    """Ours: significant after Holm; moderate where only the interval leaves out 0; else on par."""
    if p_holm < LEVEL:
        return SIGNIFICANT
    return MODERATE if net.low > 0 or net.high < 0 else ON_PAR


def paper_verdict(axis: str, net: NetWinRate) -> str | None:
    """The paper's: beyond 2 sigma significant, 1 to 2 moderate, below 1 on par; None for an axis without sigma."""
    sigma = PAPER_SIGMA.get(axis)
    if sigma is None:
        return None
    distance = abs(net.value) / sigma
    return SIGNIFICANT if distance > 2 else MODERATE if distance > 1 else ON_PAR
