"""What raters did: agreement (Krippendorff's alpha), a row for each rater, side bias, gold accuracy.

Tests over raters are corrected with Holm, so that among many honest raters few are flagged by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import evalica
import numpy as np
import pandas as pd
from moviegen_eval.study.intervals import resampled, rng_for
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


def alphas(
    study: Study, counts_IA3: np.ndarray, clusters_I: np.ndarray, seed: int, resamples: int
) -> dict[str, Alpha | None]:
    """Agreement on each axis of a study."""
    return {
        axis.key: alpha(counts_IA3[:, number], clusters_I, resamples, rng_for(seed, "alpha", axis.key))
        for number, axis in enumerate(study.axes)
    }


def alpha(
    counts_I3: np.ndarray, clusters_I: np.ndarray, resamples: int, rng: np.random.Generator
) -> Alpha | None:
    """Agreement on one axis. None without an item of two votes, or where all votes are the same answer.

    The coefficient is evalica's, and does not depend on who gave which answer. evalica's interval draws single
    disagreements; this one draws prompts, like all others, and takes a minute less for a million votes.

    Args:
        counts_I3: answers of each item.
        clusters_I: a number for each item's prompt.
    """
    several = counts_I3.sum(axis=1) >= 2
    counts, clusters = counts_I3[several], clusters_I[several]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    ends = counts.cumsum(axis=1)
    slots = np.arange(ends[:, -1].max())[:, None]
    values = np.where(slots < ends[:, 0], 1.0, np.where(slots < ends[:, 1], 0.0, -1.0))
    values[slots >= ends[:, 2]] = np.nan
    value = float(evalica.alpha(pd.DataFrame(values)).alpha)
    drawn = _resampled_alphas(counts, clusters, resamples, rng)
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (value, value)
    return Alpha(value, min(float(low), value), max(float(high), value), len(counts), int(counts.sum()))


def _resampled_alphas(
    counts_I3: np.ndarray, clusters_I: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """alpha = 1 - (n - 1) observed / expected of resamples of prompts, where not all answers are equal."""
    total = counts_I3.sum(axis=1)
    unlike = (total**2 - (counts_I3**2).sum(axis=1)) / (total - 1)
    _, inverse = np.unique(clusters_I, return_inverse=True)
    sums = np.zeros((inverse.max() + 1, 4))
    np.add.at(sums, inverse, np.concatenate([unlike[:, None], counts_I3], axis=1))
    drawn = resampled(sums, resamples, rng)
    size = drawn[:, 1:].sum(axis=1)
    expected = size**2 - (drawn[:, 1:] ** 2).sum(axis=1)
    usable = expected > 0
    return 1 - (size[usable] - 1) * drawn[usable, 0] / expected[usable]


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
