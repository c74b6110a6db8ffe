"""Bradley and Terry's model with Davidson's ties: one strength an arm from all pairs, and ranks with intervals.

Of a pair (i, j): win : tie : loss = exp(theta_i) : nu exp((theta_i + theta_j) / 2) : exp(theta_j). Counting a tie as
half a win instead shrinks the strengths; an online Elo would depend on the order of the votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import evalica
import numpy as np
from moviegen_eval.stats import Interval
from scipy.sparse.csgraph import connected_components

RIDGE = 1e-3  # a weak pull to 0, so that an arm which never loses keeps a finite strength
MAX_STEPS = 200
MAX_STEP = 1.0


@dataclass(frozen=True)
class RankRow:
    """One arm: strength (sum over arms 0, logarithmic), its 95 % interval, rank (1 is best) and its interval."""

    arm: str
    strength: float
    strength_interval: Interval
    rank: int
    rank_interval: tuple[int, int]
    half_win_strength: (
        float | None
    )  # evalica's Bradley-Terry, a tie as half a win each, same scale; None: has none


@dataclass(frozen=True)
class Ranking:
    """All arms of one axis, best first; `ties` is Davidson's nu, n the prompts."""

    axis: str
    rows: tuple[RankRow, ...]
    ties: float
    ties_interval: Interval
    n_prompts: int
    n_votes: int
    finite: bool  # False: some arms only win against others, so that a weak pull alone holds their strengths


def fit_davidson(counts_BP3: np.ndarray, pairs: Sequence[tuple[int, int]], num_arms: int) -> np.ndarray:
    """Fit several tables of counts at once with Newton's method; returns strengths and log nu, [B, arms + 1].

    Args:
        counts_BP3: wins, ties and losses of the first of each pair. [B, pairs, 3]
        pairs: positions of the two arms of each pair.
    """
    counts = np.asarray(counts_BP3, dtype=np.float64)
    design = np.zeros((len(pairs), 3, num_arms + 1))
    for row, (i, j) in enumerate(pairs):
        design[row, 0, i] = design[row, 2, j] = 1.0
        design[row, 1, [i, j]] = 0.5
        design[row, 1, num_arms] = 1.0
    flat = design.reshape(-1, num_arms + 1)  # [pairs * 3, K]
    squares = np.einsum("rk,rl->rkl", flat, flat).reshape(len(flat), -1)
    total, fit = counts.sum(axis=2), np.zeros((len(counts), num_arms + 1))
    for _ in range(MAX_STEPS):
        logits = (fit @ flat.T).reshape(counts.shape)
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares = odds / odds.sum(axis=2, keepdims=True)
        expected = total[..., None] * shares
        gradient = (counts - expected).reshape(len(fit), -1) @ flat - RIDGE * fit
        mean = (shares.transpose(1, 0, 2) @ design).transpose(1, 0, 2) * np.sqrt(total)[
            ..., None
        ]  # [B, pairs, K]
        curvature = (expected.reshape(len(fit), -1) @ squares).reshape(len(fit), num_arms + 1, num_arms + 1)
        curvature = curvature - mean.transpose(0, 2, 1) @ mean + RIDGE * np.eye(num_arms + 1)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step[:, :num_arms] -= step[:, :num_arms].mean(axis=1, keepdims=True)  # a shift of all changes nothing
        fit += np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < 1e-7:
            break
    fit[:, :num_arms] -= fit[:, :num_arms].mean(axis=1, keepdims=True)
    return fit


def ranks_of(strengths_BK: np.ndarray) -> np.ndarray:
    """Rank of each arm in each row, 1 for the strongest; equal strengths share the better rank. int64 [B, K]."""
    stronger = strengths_BK[:, None, :] > strengths_BK[:, :, None] + 1e-9
    return 1 + stronger.sum(axis=2)


def ranking(
    axis: str,
    arms: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    clusters_CP3: np.ndarray,
    resampled_BP3: np.ndarray,
) -> Ranking:
    """Strengths and ranks of arms that pairs connect, with intervals over resamples of prompts.

    Args:
        clusters_CP3: wins, ties, losses of each prompt and pair.
        resampled_BP3: the same, summed over each resample's prompts.
    """
    counts = clusters_CP3.sum(axis=0)
    fit, draws = (
        fit_davidson(counts[None], pairs, len(arms))[0],
        fit_davidson(resampled_BP3, pairs, len(arms)),
    )
    ranks, drawn_ranks = ranks_of(fit[None, :-1])[0], ranks_of(draws[:, :-1])
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    low_rank, high_rank = np.quantile(drawn_ranks, (0.025, 0.975), axis=0, method="inverted_cdf")
    finite = has_finite_strengths(len(arms), pairs, counts)
    half = half_win_strengths(arms, pairs, counts) if finite else {}
    rows = [
        RankRow(
            arm,
            float(fit[k]),
            Interval(float(min(low[k], fit[k])), float(max(high[k], fit[k]))),
            int(ranks[k]),
            (int(min(low_rank[k], ranks[k])), int(max(high_rank[k], ranks[k]))),
            half.get(arm),
        )
        for k, arm in enumerate(arms)
    ]
    ties = np.exp([fit[-1], min(low[-1], fit[-1]), max(high[-1], fit[-1])]).tolist()
    voted = int((clusters_CP3.sum(axis=(1, 2)) > 0).sum())
    best_first = tuple(sorted(rows, key=lambda row: (row.rank, row.arm)))
    return Ranking(axis, best_first, ties[0], Interval(*ties[1:]), voted, int(counts.sum()), finite)


def half_win_strengths(
    arms: Sequence[str], pairs: Sequence[tuple[int, int]], counts_P3: np.ndarray
) -> dict[str, float]:
    """evalica's Bradley-Terry, a tie as half a win for each side; logarithmic, sum over arms 0."""
    winners = (evalica.Winner.X, evalica.Winner.Draw, evalica.Winner.Y)
    rows = [
        (arms[i], arms[j], w, float(n))
        for (i, j), row in zip(pairs, counts_P3, strict=True)
        for w, n in zip(winners, row, strict=True)
        if n
    ]
    xs, ys, won, weights = (list(column) for column in zip(*rows, strict=True))
    scores = evalica.bradley_terry(xs, ys, won, weights=weights, tolerance=1e-10, limit=10_000).scores
    logs = np.log(np.maximum(scores.reindex(list(arms)).to_numpy(dtype=np.float64), 1e-12))
    return dict(zip(arms, (logs - logs.mean()).tolist(), strict=True))


def has_finite_strengths(num_arms: int, pairs: Sequence[tuple[int, int]], counts_P3: np.ndarray) -> bool:
    """Whether from each arm a way of wins and ties leads to each other one; else a likelihood has no maximum."""
    beats = np.zeros((num_arms, num_arms))
    for (i, j), (wins, ties, losses) in zip(pairs, counts_P3, strict=True):
        beats[i, j] += wins + ties
        beats[j, i] += losses + ties
    return int(connected_components(beats, connection="strong")[0]) == 1


def connected(num_arms: int, pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether comparisons lead from each arm to each other one; without that, strengths do not compare."""
    groups = list(range(num_arms))
    for i, j in pairs:
        old, new = groups[i], groups[j]
        groups = [new if group == old else group for group in groups]
    return len(set(groups)) == 1
