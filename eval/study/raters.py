"""What raters did: agreement (Krippendorff's alpha), a row for each rater, side bias, gold accuracy.

Tests over raters are corrected with Holm, so that among many honest raters few are flagged by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import evalica
import numpy as np
import pandas as pd
from moviegen_eval.study.rates import Counts
from moviegen_eval.study.significance import holm
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import VoteTable
from moviegen_eval.study.tally import RaterTally, rater_tally
from scipy.stats import binom

FLAG_LEVEL = 0.01  # of Holm's adjusted p, over all raters of the study


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's nominal alpha of an axis with its 95 % interval, over items with two votes or more."""

    value: float
    low: float
    high: float
    n_items: int
    n_votes: int


@dataclass(frozen=True)
class SideBias:
    """Answers for the left and for the right video, and p of the binomial test against no bias."""

    left: int
    right: int
    p: float

    @property
    def value(self) -> float:
        """(left - right) / (left + right), 0 without either."""
        return (self.left - self.right) / max(1, self.left + self.right)


@dataclass(frozen=True)
class RaterRow:
    """One rater: sound votes, whether a rule excluded them all, and what stands out."""

    rater: str
    votes: int  # gold items too
    counts: Counts  # of the pair's first arm, on items that are not gold
    side: SideBias
    gold: int
    gold_right: int
    compared: int  # votes on items where the other raters had one leading answer
    agreed: int  # of them, votes for that answer
    watch_seconds: float | None  # median over votes of the less watched video
    excluded: str | None  # the rule, or None
    flags: tuple[str, ...]  # side bias, gold, agreement

    @property
    def tie_rate(self) -> float | None:
        """Share of ties among the answers that are not gold."""
        return self.counts.ties / self.counts.total if self.counts.total else None


def alpha(counts_I3: np.ndarray, count: int, seed: int) -> Alpha | None:
    """Agreement on one axis. None without an item of two votes, or where all votes are the same answer.

    Args:
        counts_I3: answers of each item. The coefficient does not depend on who gave which.
    """
    counts = counts_I3[counts_I3.sum(axis=1) >= 2]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    ends = counts.cumsum(axis=1)
    slots = np.arange(ends[:, -1].max())[:, None]
    values = np.where(slots < ends[:, 0], 1.0, np.where(slots < ends[:, 1], 0.0, -1.0))
    values[slots >= ends[:, 2]] = np.nan
    found = evalica.alpha_bootstrap(pd.DataFrame(values), n_resamples=count, random_state=seed)
    low, high = min(found.low, found.alpha), max(found.high, found.alpha)
    return Alpha(float(found.alpha), float(low), float(high), len(counts), int(counts.sum()))


def side_bias(table: VoteTable) -> SideBias:
    """The side bias of all raters together."""
    side = table.answer * table.shown_left
    left, right = int((side == 1).sum()), int((side == -1).sum())
    return SideBias(left, right, float(_two_sided(np.array([left]), np.array([left + right]))[0]))


def rater_rows(table: VoteTable, study: Study, excluded: Mapping[str, str]) -> tuple[RaterRow, ...]:
    """A row for each rater of a table of sound votes, by name."""
    tally = rater_tally(table, study)
    voted = np.flatnonzero(tally.votes)
    flags = _flags(tally, voted)
    watched = _median_watched(table, len(tally.names))
    rows = []
    for at, row in enumerate(voted):
        name, sides = tally.names[row], (int(tally.left[row]), int(tally.right[row]))
        p_side = float(_two_sided(np.array(sides[:1]), np.array([sum(sides)]))[0])
        rows.append(
            RaterRow(
                rater=name,
                votes=int(tally.votes[row]),
                counts=Counts(*tally.answers[row].tolist()),
                side=SideBias(*sides, p_side),
                gold=int(tally.gold[row]),
                gold_right=int(tally.gold_right[row]),
                compared=int(tally.compared[row]),
                agreed=int(tally.agreed[row]),
                watch_seconds=watched.get(int(row)),
                excluded=excluded.get(name),
                flags=flags[at],
            )
        )
    return tuple(sorted(rows, key=lambda row: row.rater))


def _flags(tally: RaterTally, rows: np.ndarray) -> list[tuple[str, ...]]:
    """What stands out of each rater: too many answers on one side, too few that are right, or that others share."""
    tests = {
        "side bias": _two_sided(tally.left[rows], (tally.left + tally.right)[rows]),
        "gold": _below(tally.gold_right[rows], tally.gold[rows]),
        "agreement": _below(tally.agreed[rows], tally.compared[rows]),
    }
    adjusted = {name: holm(p.tolist()) for name, p in tests.items()}
    return [tuple(name for name, p in adjusted.items() if p[row] < FLAG_LEVEL) for row in range(len(rows))]


def _two_sided(hits: np.ndarray, total: np.ndarray) -> np.ndarray:
    """p of the binomial test of one half, 1 where there is nothing to test."""
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(hits, total - hits), total, 0.5))


def _below(hits: np.ndarray, total: np.ndarray) -> np.ndarray:
    """One-sided p of a share that low, when the share of all other raters together is the truth."""
    others, rest = hits.sum() - hits, total.sum() - total
    usual = np.divide(others, rest, out=np.zeros(len(hits)), where=rest > 0)
    return np.where(total > 0, binom.cdf(hits, total, usual), 1.0)


def _median_watched(table: VoteTable, size: int) -> dict[int, float]:
    least = table.watch_seconds.min(axis=1)
    known = np.flatnonzero(~np.isnan(least))
    order = known[np.lexsort((least[known], table.rater.codes[known]))]
    counts = np.bincount(table.rater.codes[known], minlength=size)
    starts = np.r_[0, counts.cumsum()[:-1]]
    return {
        row: float((least[order[starts[row] + (n - 1) // 2]] + least[order[starts[row] + n // 2]]) / 2)
        for row, n in enumerate(counts.tolist())
        if n
    }
