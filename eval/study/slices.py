"""Results by tag (concept, motion level, ...) and by pairs of tags.

An item whose tag lists several values counts once in the slice of each: slices overlap, and do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from moviegen_eval.study.intervals import net_intervals, rng_for
from moviegen_eval.study.rates import net_win_rate
from moviegen_eval.study.results import SliceResult
from moviegen_eval.study.significance import holm, sign_test
from moviegen_eval.study.study import Study
from moviegen_eval.study.tally import PairTally, outcome_counts

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
    found: list[SliceResult] = []
    for tally in tallies:
        positions = {int(item): row for row, item in enumerate(tally.items)}
        for names in (*((tag,) for tag in values), *combinations(values, 2)):
            family = []
            for tags, items in _cells(values, names):
                rows = np.array([positions[item] for item in items if item in positions], dtype=np.int64)
                if len(rows):
                    family += _slice(study, tally, tags, rows, seed, resamples)
            found += _with_holm(family)
    return tuple(found)


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
    study: Study, tally: PairTally, tags: Tags, rows: np.ndarray, seed: int, resamples: int
) -> list[SliceResult]:
    """One slice's result on each axis that has votes in it."""
    signs, voted = tally.by_cluster(tally.outcome, rows), tally.by_cluster(tally.voted.astype(np.int64), rows)
    rng = rng_for(seed, "slice", tally.first, tally.second, *(word for tag in tags for word in tag))
    found = []
    for number, interval in enumerate(net_intervals(signs, voted, resamples, rng)):
        if interval is None:
            continue
        counts = outcome_counts(tally.outcome[rows, number], tally.voted[rows, number])
        p = sign_test(int((signs[:, number] > 0).sum()), int((signs[:, number] < 0).sum()))
        found.append(
            SliceResult(
                axis=study.axes[number].key,
                first=tally.first,
                second=tally.second,
                tags=tags,
                counts=counts,
                n_items=counts.total,
                n_prompts=int((voted[:, number] > 0).sum()),
                n_votes=int(tally.counts[rows, number].sum()),
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
