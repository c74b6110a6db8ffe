"""From a study file and its votes to rates, intervals, tests, ranks, slices and raters.

The main rate takes the majority of each item's raters; the pooled one takes every vote. All intervals resample prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from moviegen_eval.study.davidson import Ranking, connected, ranking
from moviegen_eval.study.intervals import net_intervals, resampled, rng_for
from moviegen_eval.study.raters import Alpha, RaterRow, SideBias, alpha, rater_rows, side_bias
from moviegen_eval.study.rates import Counts, NetWinRate, TieHalfWinRate, net_win_rate
from moviegen_eval.study.results import SMALL, Analysis, PairResult, Rate, SliceResult
from moviegen_eval.study.significance import PAPER_SIGMA, holm, paper_verdict, sign_test, verdict
from moviegen_eval.study.slices import slice_results
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import LeftOut, VoteTable
from moviegen_eval.study.tally import PairTally, item_counts, outcome_counts, pair_tallies, rater_tally
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
        seed=seed,
        resamples=resamples,
        axes=tuple(axis.key for axis in study.axes),
        arms=tuple(arm.name for arm in study.arms),
        n_read=len(table),
        n_votes=int(counts[~gold].sum()),
        n_gold=int(counts[gold].sum()),
        results=pair_results(study, tallies, seed, resamples),
        slices=slice_results(study, tallies, seed, resamples),
        rankings=_rankings(study, tallies, seed, resamples),
        alphas={axis.key: alpha(counts[~gold, n], resamples, seed) for n, axis in enumerate(study.axes)},
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


def pair_results(
    study: Study, tallies: Sequence[PairTally], seed: int, resamples: int
) -> tuple[PairResult, ...]:
    """A result for each pair and axis that has votes, by pair, then axis, both in the study's order."""
    found: list[PairResult] = []
    for tally in tallies:
        rng = rng_for(seed, "pair", tally.first, tally.second)
        found += _with_holm(_pair(study, tally, resamples, rng), "p_holm")
    return tuple(replace(r, verdict=verdict(r.net, r.p_holm)) for r in _with_holm(found, "p_holm_all"))


def _pair(study: Study, tally: PairTally, resamples: int, rng: np.random.Generator) -> list[PairResult]:
    """One pair's results on each axis with votes; p values as they are, Holm comes when all are known."""
    num_axes = len(study.axes)
    signs = np.concatenate([tally.outcome, tally.counts[..., 0] - tally.counts[..., 2]], axis=1)
    sizes = np.concatenate([tally.voted.astype(np.int64), tally.counts.sum(axis=-1)], axis=1)
    signs_CK, sizes_CK = tally.by_cluster(signs), tally.by_cluster(sizes)
    intervals = net_intervals(signs_CK, sizes_CK, resamples, rng)

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
        pooled = rate(num_axes + number, Counts(*tally.counts[:, number].sum(axis=0).tolist()))
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
    order = [arm.name for arm in study.arms]
    found = []
    for number, axis in enumerate(study.axes):
        voted = [tally for tally in tallies if tally.voted[:, number].any()]
        arms = [name for name in order if any(name in (tally.first, tally.second) for tally in voted)]
        pairs = [(arms.index(tally.first), arms.index(tally.second)) for tally in voted]
        if len(arms) < 3 or not connected(len(arms), pairs):
            continue
        clusters = 1 + max(int(tally.cluster.max()) for tally in voted)
        sums = np.zeros((clusters, len(voted), 3), dtype=np.int64)
        for column, tally in enumerate(voted):
            np.add.at(sums[:, column], tally.cluster, tally.counts[:, number])
        sums = sums[sums.sum(axis=(1, 2)) > 0]
        drawn = resampled(sums.reshape(len(sums), -1), resamples, rng_for(seed, "ranking", axis.key))
        found.append(ranking(axis.key, arms, pairs, sums, drawn.reshape(resamples, -1, 3)))
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
