"""From a study file and its votes to rates, intervals, tests, ranks, slices and raters.

The main rate takes the majority of each item's raters; the pooled one takes every vote. All intervals resample prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from moviegen_eval.stats import Interval
from moviegen_eval.study.davidson import Ranking, connected, ranking
from moviegen_eval.study.intervals import net_intervals, resampled, rng_for
from moviegen_eval.study.raters import Alpha, RaterRow, SideBias, alphas, rater_rows, side_bias
from moviegen_eval.study.rates import Counts, NetWinRate, TieHalfWinRate, net_win_rate
from moviegen_eval.study.results import SMALL, Analysis, PairResult, Rate, SliceResult
from moviegen_eval.study.significance import PAPER_SIGMA, holm, paper_verdict, sign_test, verdict
from moviegen_eval.study.slices import slice_results
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import LeftOut, VoteTable
from moviegen_eval.study.tally import (
    PairTally,
    clusters_of,
    item_counts,
    num_clusters,
    outcome_counts,
    pair_tallies,
    rater_tally,
)
from moviegen_eval.study.validity import clean_votes, excluded_raters, without_excluded

__all__ = [
    "SMALL",
    "Alpha",
    "Analysis",
    "Counts",
    "LeftOut",
    "NetWinRate",
    "PairResult",
    "Ranking",
    "Rate",
    "RaterRow",
    "SideBias",
    "SliceResult",
    "TieHalfWinRate",
    "analyse",
]


def analyse(study: Study, table: VoteTable, seed: int | None = None, resamples: int = 2000) -> Analysis:
    """Everything that the votes say; the same for any order of the votes.

    Args:
        seed: of the resampling; None takes the study's.
        resamples: of prompts, for each interval.

    Raises ValueError, with what was left out, when no vote counts.
    """
    seed = study.seed if seed is None else seed
    clean, left_out = clean_votes(table, study)
    valid, by_rater = without_excluded(clean, study)
    counts = item_counts(study, valid)
    gold = np.array([item.gold is not None for item in study.items])
    if not counts[~gold].sum():
        reasons = "; ".join(str(out) for out in (*left_out, *by_rater)) or "the file holds no line"
        raise ValueError(f"study {study.id!r}: no vote counts: {reasons}")
    tallies = pair_tallies(study, counts)
    excluded = excluded_raters(rater_tally(clean, study), study.exclusion)
    return Analysis(
        study=study.id,
        title=study.title,
        digest=study.digest,
        level=study.level,
        seed=seed,
        resamples=resamples,
        axes=tuple(axis.key for axis in study.axes),
        arms=tuple(arm.name for arm in study.arms),
        n_read=len(table),
        n_votes=int(counts[~gold].sum()),
        n_gold=int(counts[gold].sum()),
        dates=_dates(valid),
        results=pair_results(study, tallies, seed, resamples),
        slices=slice_results(study, tallies, seed, resamples),
        rankings=_rankings(study, tallies, seed, resamples),
        alphas=alphas(study, counts[~gold], clusters_of(study)[~gold], seed, resamples),
        raters=rater_rows(clean, study, excluded),
        side=side_bias(valid),
        left_out=(*left_out, *by_rater),
        notes=_notes(study, counts, gold),
        sources={
            n: int(valid.source.equals(n).sum())
            for n in sorted(valid.source.names)
            if valid.source.equals(n).any()
        },
        items=tuple(item.id for item in study.items),
        item_counts=counts,
    )


def _dates(table: VoteTable) -> tuple[str, str] | None:
    """The days of the first and the last vote."""
    known = table.time[~np.isnat(table.time)]
    return (str(known.min())[:10], str(known.max())[:10]) if len(known) else None


def pair_results(
    study: Study, tallies: Sequence[PairTally], seed: int, resamples: int
) -> tuple[PairResult, ...]:
    """A result for each pair and axis that has votes, by pair, then axis, both in the study's order."""
    size = num_clusters(tallies)
    signs_CPK = np.stack([tally.by_cluster(_signs(tally), size) for tally in tallies], axis=1)
    sizes_CPK = np.stack([tally.by_cluster(_sizes(tally), size) for tally in tallies], axis=1)
    found = net_intervals(signs_CPK.reshape(size, -1), sizes_CPK.reshape(size, -1), resamples, seed, "pairs")
    width, results = signs_CPK.shape[2], []
    for number, tally in enumerate(tallies):
        own = found[number * width : (number + 1) * width]
        pair = _pair(study, tally, signs_CPK[:, number], sizes_CPK[:, number], own)
        results += _with_holm(pair, "p_holm")
    return tuple(replace(r, verdict=verdict(r.net, r.p_holm)) for r in _with_holm(results, "p_holm_all"))


def _signs(tally: PairTally) -> np.ndarray:
    """Of each item: outcomes of the majority on each axis, then sums over votes. [I, 2 axes]."""
    return np.concatenate([tally.outcome, tally.counts[..., 0] - tally.counts[..., 2]], axis=1)


def _sizes(tally: PairTally) -> np.ndarray:
    """Of each item: one where it has votes, then the number of votes. [I, 2 axes]."""
    return np.concatenate([tally.voted.astype(np.int64), tally.counts.sum(axis=-1)], axis=1)


def _pair(
    study: Study,
    tally: PairTally,
    signs_CK: np.ndarray,
    sizes_CK: np.ndarray,
    intervals: Sequence[Interval | None],
) -> list[PairResult]:
    """One pair's results on each axis with votes; p values as they are, Holm comes when all are known."""

    def rate(column: int, counts: Counts) -> Rate:
        interval = intervals[column]
        assert interval is not None
        p = sign_test(int((signs_CK[:, column] > 0).sum()), int((signs_CK[:, column] < 0).sum()))
        return Rate(counts, net_win_rate(counts, interval), p, p, p)

    found = []
    for number, axis in enumerate(study.axes):
        if not tally.voted[:, number].any():
            continue
        majority = rate(number, outcome_counts(tally.outcome[:, number], tally.voted[:, number]))
        pooled = rate(len(study.axes) + number, Counts(*tally.counts[:, number].sum(axis=0).tolist()))
        found.append(
            PairResult(
                axis=axis.key,
                first=tally.first,
                second=tally.second,
                n_items=majority.counts.total,
                n_prompts=int((sizes_CK[:, number] > 0).sum()),
                n_votes=pooled.counts.total,
                splits=int(tally.split[:, number].sum()),
                majority=majority,
                pooled=pooled,
                verdict="",
                sigma=PAPER_SIGMA.get(axis.key),
                paper_verdict=paper_verdict(axis.key, majority.net),
            )
        )
    return found


def _with_holm(results: list[PairResult], key: str) -> list[PairResult]:
    """The results with Holm's p over all of them, of the majority and of the pooled rate apart."""
    majority = holm([r.majority.p for r in results])
    pooled = holm([r.pooled.p for r in results])
    return [
        replace(r, majority=replace(r.majority, **{key: own}), pooled=replace(r.pooled, **{key: all_votes}))
        for r, own, all_votes in zip(results, majority, pooled, strict=True)
    ]


def _rankings(study: Study, tallies: Sequence[PairTally], seed: int, resamples: int) -> tuple[Ranking, ...]:
    """A ranking of each axis on which votes connect three arms or more; arms without votes are not ranked."""
    order, size, num_pairs = [arm.name for arm in study.arms], num_clusters(tallies), len(tallies)
    if num_pairs < 2:
        return ()
    sums_CAP3 = np.stack([tally.by_cluster(tally.counts, size) for tally in tallies], axis=2)
    sums_CAP3 = sums_CAP3[sums_CAP3.any(axis=(1, 2, 3))]  # prompts without votes are not drawn
    drawn = resampled(sums_CAP3.reshape(len(sums_CAP3), -1), resamples, rng_for(seed, "ranking"))
    drawn_BAP3 = drawn.reshape(resamples, len(study.axes), num_pairs, 3)
    found = []
    for number, axis in enumerate(study.axes):
        voted = [row for row, tally in enumerate(tallies) if tally.voted[:, number].any()]
        named = [(tallies[row].first, tallies[row].second) for row in voted]
        arms = [name for name in order if any(name in pair for pair in named)]
        pairs = [(arms.index(first), arms.index(second)) for first, second in named]
        if len(arms) >= 3 and connected(len(arms), pairs):
            own, own_drawn = sums_CAP3[:, number, voted], drawn_BAP3[:, number, voted]
            found.append(ranking(axis.key, arms, pairs, own, own_drawn))
    return tuple(found)


def _notes(study: Study, counts: np.ndarray, gold: np.ndarray) -> tuple[str, ...]:
    """What a reader must know of how complete the votes are."""
    notes = []
    for number, axis in enumerate(study.axes):
        votes = counts[~gold, number].sum(axis=1)
        fewer, more = int((votes < axis.raters).sum()), int((votes > axis.raters).sum())
        if fewer or more:
            notes.append(
                f"axis {axis.key}: of {len(votes)} items {fewer} have fewer and {more} more votes than the "
                f"{axis.raters} declared"
            )
    repeated = len(study.items) - gold.sum() - len({i.cluster for i in study.items if i.gold is None})
    if repeated:
        notes.append(
            f"{repeated} items share their prompt with another; intervals resample prompts, not items"
        )
    return tuple(notes)
