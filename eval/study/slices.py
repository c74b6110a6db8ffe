"""Results by tag (concept, motion level, ...) and by pairs of tags.

An item whose tag lists several values counts once in the slice of each: slices overlap, and do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from moviegen_eval.study.intervals import net_intervals
from moviegen_eval.study.rates import net_win_rate
from moviegen_eval.study.results import SliceResult
from moviegen_eval.study.significance import holm, sign_test
from moviegen_eval.study.study import Study
from moviegen_eval.study.tally import PairTally, num_clusters, outcome_counts

MAX_VALUES = 60  # a tag with more is a name or a number, not a slice
Tags = tuple[tuple[str, str], ...]


def tag_values(study: Study) -> dict[str, dict[str, list[int]]]:
    """For each tag the items (positions) of each value; tags of more than 60 values are left out."""
    found: dict[str, dict[str, list[int]]] = {}
    for position, item in enumerate(study.items):
        for tag, text in item.tags.items():
            for value in dict.fromkeys(part.strip() for part in text.split(",") if part.strip()):
                found.setdefault(tag, {}).setdefault(value, []).append(position)
    return {tag: dict(sorted(found[tag].items())) for tag in sorted(found) if len(found[tag]) <= MAX_VALUES}


def slice_results(
    study: Study, tallies: Sequence[PairTally], seed: int, resamples: int
) -> tuple[SliceResult, ...]:
    """Every slice of every pair and axis that has votes, by pair, tags, value, axis."""
    values = tag_values(study)
    found: list[list[SliceResult]] = [[] for _ in tallies]
    positions = [{int(item): row for row, item in enumerate(tally.items)} for tally in tallies]
    for names in (*((tag,) for tag in values), *combinations(values, 2)):
        families: list[list[SliceResult]] = [[] for _ in tallies]
        for tags, items in _cells(values, names):
            rows = [np.array([own[item] for item in items if item in own], np.int64) for own in positions]
            for family, results in zip(
                families, _slice(study, tallies, tags, rows, seed, resamples), strict=True
            ):
                family += results
        for results, family in zip(found, families, strict=True):
            results += _with_holm(family)
    return tuple(result for results in found for result in results)


def _cells(
    values: dict[str, dict[str, list[int]]], names: tuple[str, ...]
) -> Iterator[tuple[Tags, list[int]]]:
    """The values of one tag, or all combinations of two tags' values, with their items."""
    if len(names) == 1:
        yield from ((((names[0], value),), items) for value, items in values[names[0]].items())
        return
    for left, left_items in values[names[0]].items():
        for right, right_items in values[names[1]].items():
            both = set(right_items)
            yield ((names[0], left), (names[1], right)), [item for item in left_items if item in both]


def _slice(
    study: Study, tallies: Sequence[PairTally], tags: Tags, rows: list[np.ndarray], seed: int, resamples: int
) -> list[list[SliceResult]]:
    """One slice's results for each pair, on each axis that has votes in it."""
    size, num_axes = num_clusters(tallies), len(study.axes)
    sums = [
        (
            tally.by_cluster(tally.outcome, size, own),
            tally.by_cluster(tally.voted.astype(np.int64), size, own),
        )
        for tally, own in zip(tallies, rows, strict=True)
    ]
    signs, voted = (np.concatenate([pair[side] for pair in sums], axis=1) for side in (0, 1))
    words = [word for tag in tags for word in tag]
    intervals = net_intervals(signs, voted, resamples, seed, "slice", *words)
    found: list[list[SliceResult]] = []
    for number, (tally, own) in enumerate(zip(tallies, rows, strict=True)):
        found.append([])
        for axis in range(num_axes):
            column = number * num_axes + axis
            interval = intervals[column]
            if interval is None:
                continue
            counts = outcome_counts(tally.outcome[own, axis], tally.voted[own, axis])
            p = sign_test(int((signs[:, column] > 0).sum()), int((signs[:, column] < 0).sum()))
            found[-1].append(
                SliceResult(
                    axis=study.axes[axis].key,
                    first=tally.first,
                    second=tally.second,
                    tags=tags,
                    counts=counts,
                    n_items=counts.total,
                    n_prompts=int((voted[:, column] > 0).sum()),
                    n_votes=int(tally.counts[own, axis].sum()),
                    net=net_win_rate(counts, interval),
                    p=p,
                    p_holm=p,
                )
            )
    return found


def _with_holm(family: list[SliceResult]) -> list[SliceResult]:
    """Holm over the values of the same tags, within each axis."""
    adjusted: dict[int, float] = {}
    for axis in {result.axis for result in family}:
        rows = [row for row, result in enumerate(family) if result.axis == axis]
        adjusted.update(zip(rows, holm([family[row].p for row in rows]), strict=True))
    return [replace(result, p_holm=adjusted[row]) for row, result in enumerate(family)]
