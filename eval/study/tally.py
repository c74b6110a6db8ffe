"""Counting votes: into items x axes x answers, into pairs of arms, into raters. Whole numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from moviegen_eval.study.rates import Counts
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import VoteTable

A, TIE, B = 0, 1, 2  # last dimension of counts


@dataclass(frozen=True)
class Codes:
    """Positions in the study of each vote's item and axis, -1 where the study has none. int32 [N] each."""

    item: np.ndarray
    axis: np.ndarray

    @classmethod
    def of(cls, study: Study, table: VoteTable) -> Codes:
        """The codes of a table."""
        items = {item.id: position for position, item in enumerate(study.items)}
        axes = {axis.key: position for position, axis in enumerate(study.axes)}
        return cls(table.item.positions(items), table.axis.positions(axes))


def item_counts(study: Study, table: VoteTable) -> np.ndarray:
    """Answers a, tie, b of each item on each axis, of votes that are valid. int64 [items, axes, 3]."""
    codes, shape = Codes.of(study, table), (len(study.items), len(study.axes), 3)
    cell = (codes.item.astype(np.int64) * shape[1] + codes.axis) * 3 + (1 - table.answer)
    return np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)


def majority(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each item's outcome and whether its raters split. int64 and bool, of the shape of `counts` but its last.

    The outcome is +1, 0, -1 for the answer that most raters gave; where no answer leads alone (1-1-1, 3-3, 2-2-2)
    they split, which counts as a tie. 0 also without votes.
    """
    most = counts.max(axis=-1)
    leaders = counts == most[..., None]
    split = (leaders.sum(axis=-1) > 1) & (most > 0)
    return np.where(split | (most == 0), 0, 1 - counts.argmax(axis=-1)), split


def outcome_counts(outcome_I: np.ndarray, voted_I: np.ndarray) -> Counts:
    """Wins, ties and losses among the items that have votes."""
    own = outcome_I[voted_I]
    return Counts(*(int((own == sign).sum()) for sign in (1, 0, -1)))


@dataclass(frozen=True)
class PairTally:
    """Items of one pair of arms, from the side of the first. Gold items are not among them."""

    first: str
    second: str
    items: np.ndarray  # positions in the study, int64 [I]
    cluster: np.ndarray  # number of each item's prompt in the study, int64 [I]
    counts: np.ndarray  # wins, ties, losses, int64 [I, axes, 3]
    outcome: np.ndarray  # of the majority, +1, 0, -1, int64 [I, axes]
    split: np.ndarray  # bool [I, axes]
    voted: np.ndarray  # whether there are votes, bool [I, axes]

    def by_cluster(
        self, values: np.ndarray, size: int, items: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Sums over the items of each of the study's `size` prompts. [size, ...]."""
        sums = np.zeros((size, *values.shape[1:]), dtype=np.int64)
        np.add.at(sums, self.cluster[items], values[items])
        return sums


def clusters_of(study: Study) -> np.ndarray:
    """A number for the prompt of each item. int64 [items]."""
    names: dict[str, int] = {}
    return np.array([names.setdefault(item.cluster, len(names)) for item in study.items], dtype=np.int64)


def num_clusters(tallies: Sequence[PairTally]) -> int:
    """How many prompts at most the items of these pairs have."""
    return 1 + max(int(tally.cluster.max()) for tally in tallies)


def pair_tallies(study: Study, counts: np.ndarray) -> list[PairTally]:
    """One tally for each pair of arms that the study compares. `counts`: see `item_counts`."""
    clusters = clusters_of(study)
    outcome, split = majority(counts)
    found = []
    for first, second in study.pairs():
        here = [
            p for p, i in enumerate(study.items) if i.gold is None and {i.arm_a, i.arm_b} == {first, second}
        ]
        items = np.array(here, dtype=np.int64)
        sign = np.array([1 if study.items[p].arm_a == first else -1 for p in here])[:, None]
        own = counts[items]
        own = np.where(sign[..., None] > 0, own, own[..., ::-1])
        found.append(
            PairTally(
                first,
                second,
                items,
                clusters[items],
                own,
                outcome[items] * sign,
                split[items],
                own.sum(axis=-1) > 0,
            )
        )
    return found


@dataclass(frozen=True)
class RaterTally:
    """Whole numbers for each rater of a table, in the order of names. int64 [R] each."""

    names: tuple[str, ...]
    votes: np.ndarray  # gold items too
    answers: np.ndarray  # wins, ties, losses of the pair's first arm, on items that are not gold, [R, 3]
    left: np.ndarray  # answers for the video on the left, of votes that know their sides
    right: np.ndarray
    gold: np.ndarray  # answers to gold items
    gold_right: np.ndarray
    agreed: np.ndarray  # answers equal to the one that most of the others gave
    compared: np.ndarray  # answers on items where the others had one leading answer


def rater_tally(table: VoteTable, study: Study) -> RaterTally:
    """What each rater answered, of sound votes."""
    codes, counts = Codes.of(study, table), item_counts(study, table)
    gold = np.array([{"a": 1, "tie": 0, "b": -1, None: 2}[item.gold] for item in study.items], np.int8)
    expected = gold[codes.item] if len(table) else np.zeros(0, np.int8)
    is_gold, side = expected != 2, table.answer * table.shown_left
    order = {arm.name: position for position, arm in enumerate(study.arms)}
    first = [item.gold is not None or order[item.arm_a] < order[item.arm_b] for item in study.items]
    oriented = np.where(np.array(first)[codes.item], table.answer, -table.answer)
    agreed, compared = _agreement(table, codes, counts)
    size, plain = len(table.rater.names), ~is_gold

    def total(rows: np.ndarray) -> np.ndarray:
        return np.bincount(table.rater.codes[rows], minlength=size)

    return RaterTally(
        names=table.rater.names,
        votes=total(np.ones(len(table), bool)),
        answers=np.stack([total(plain & (oriented == sign)) for sign in (1, 0, -1)], axis=1),
        left=total(side == 1),
        right=total(side == -1),
        gold=total(is_gold),
        gold_right=total(is_gold & (table.answer == expected)),
        agreed=total(plain & agreed),
        compared=total(plain & compared),
    )


def _agreement(table: VoteTable, codes: Codes, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each vote: whether it equals the leading answer of the item's other raters, and whether there is one."""
    others = counts[codes.item, codes.axis].copy()
    answer = 1 - table.answer.astype(np.int64)
    others[np.arange(len(table)), answer] -= 1
    most = others.max(axis=1, initial=0)
    compared = ((others == most[:, None]).sum(axis=1) == 1) & (most > 0)
    return compared & (others.argmax(axis=1) == answer), compared
