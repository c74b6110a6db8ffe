"""Which votes count. Every vote that does not is named under the first rule that it breaks.

No rule depends on the order of the log: what a rule prefers, it prefers by time and id.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from moviegen_eval.study.study import ExclusionRules, Study
from moviegen_eval.study.table import Column, LeftOut, VoteTable
from moviegen_eval.study.tally import Codes, RaterTally, rater_tally
from moviegen_eval.study.votes import ANSWER_SIGNS
from scipy.stats import binomtest

Rule = tuple[str, np.ndarray]  # the reason, and where it holds, bool [N]


def valid_votes(table: VoteTable, study: Study) -> tuple[VoteTable, tuple[LeftOut, ...]]:
    """The votes that count (those on gold items too), and what was left out and why, unreadable lines included."""
    clean, left_out = clean_votes(table, study)
    kept, by_rater = without_excluded(clean, study)
    return kept, (*left_out, *by_rater)


def clean_votes(table: VoteTable, study: Study) -> tuple[VoteTable, tuple[LeftOut, ...]]:
    """The votes that are sound one by one, before any rater as a whole is judged."""
    left_out, codes = list(table.left_out), Codes.of(study, table)
    keep = np.ones(len(table), dtype=bool)
    for reason, broken in _rules(table, study, codes, keep):
        rows = np.flatnonzero(keep & broken)
        if len(rows):
            left_out.append(LeftOut(reason, _ids(table, rows)))
            keep[rows] = False
    return table.take(keep), tuple(left_out)


def without_excluded(table: VoteTable, study: Study) -> tuple[VoteTable, tuple[LeftOut, ...]]:
    """The votes of the raters that pass the study's exclusion rules, and those of each rater that does not."""
    reasons = excluded_raters(rater_tally(table, study), study.exclusion)
    left_out = [
        LeftOut(f"rater {name}: {reason}", _ids(table, np.flatnonzero(table.rater.equals(name))))
        for name, reason in sorted(reasons.items())
    ]
    gone = np.array([name in reasons for name in table.rater.names] or [False])
    return table.take(~gone[table.rater.codes]), tuple(left_out)


def excluded_raters(tally: RaterTally, rules: ExclusionRules) -> dict[str, str]:
    """Raters that the declared rules exclude, each with the first rule and its own numbers."""
    found = {}
    for row, name in enumerate(tally.names):
        reason = _exclusion(tally, row, rules)
        if reason:
            found[name] = reason
    return found


def _exclusion(tally: RaterTally, row: int, rules: ExclusionRules) -> str | None:
    votes, gold, right = int(tally.votes[row]), int(tally.gold[row]), int(tally.gold_right[row])
    if not votes:
        return None
    if votes < rules.min_votes:
        return f"{votes} votes, fewer than {rules.min_votes}"
    least = rules.min_gold_accuracy
    if least is not None and gold >= max(1, rules.min_gold_votes) and right < least * gold:
        return f"{right} of {gold} gold answers right, below {least:g}"
    if rules.max_side_bias is not None:
        left, sided = int(tally.left[row]), int(tally.left[row] + tally.right[row])
        if sided and abs(2 * left - sided) / sided > rules.max_side_bias:
            p = float(binomtest(left, sided).pvalue)
            if p < rules.max_side_p:
                return f"left in {left} of {sided} answers, bias above {rules.max_side_bias:g} (p = {p:.1g})"
    return None


def _ids(table: VoteTable, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(sorted(name.decode() for name in table.id[rows].tolist()))


def _rules(table: VoteTable, study: Study, codes: Codes, keep: np.ndarray) -> Iterator[Rule]:
    """The rules in order; `keep`, which shrinks between them, says which votes the earlier ones left."""
    yield "a vote of another study, or of this one before it was changed", ~table.study.equals(study.digest)
    yield "its item is not in the study", codes.item < 0
    yield "its axis is not in the study", codes.axis < 0
    same, different = _repeated_ids(table, keep)
    yield "the same vote twice: one of them counts", same
    yield "one id for different votes: none of them counts", different
    yield "taken back by its rater", _taken_back(table, keep)
    yield "takes a vote back and answers nothing", table.answer == ANSWER_SIGNS["none"]
    yield "a rater twice on one item and axis: the earliest counts", _later_ones(table, study, codes, keep)
    least = study.exclusion.min_watch_seconds
    yield f"a video watched for less than {least:g} s", (table.watch_seconds < least).any(axis=1)


def _repeated_ids(table: VoteTable, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a vote repeats another one word for word, and where votes share an id but nothing else."""
    same, different = np.zeros(len(table), bool), np.zeros(len(table), bool)
    rows = np.flatnonzero(keep)
    order = rows[np.argsort(table.id[rows], kind="stable")]
    repeats = np.flatnonzero(table.id[order[1:]] == table.id[order[:-1]])
    if not len(repeats):
        return same, different
    starts = np.r_[0, np.flatnonzero(table.id[order[1:]] != table.id[order[:-1]]) + 1]
    group = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    unlike = np.zeros(len(starts), bool)
    for column in (*_columns(table), np.nan_to_num(table.watch_seconds, nan=-1.0)):
        differs = column[order[repeats]] != column[order[repeats + 1]]
        unlike[group[repeats[differs.any(axis=1) if differs.ndim == 2 else differs]]] = True
    same[order[repeats + 1]] = ~unlike[group[repeats + 1]]
    different[order] = unlike[group]
    return same, different


def _columns(table: VoteTable) -> list[np.ndarray]:
    texts = [value.codes for value in vars(table).values() if isinstance(value, Column)]
    return [*texts, table.answer, table.shown_left, _times(table), table.undoes]


def _taken_back(table: VoteTable, keep: np.ndarray) -> np.ndarray:
    """Votes that a vote of the same rater on the same item and axis takes back."""
    found = np.zeros(len(table), bool)
    undoing, rows = np.flatnonzero(keep & (table.undoes != b"")), np.flatnonzero(keep)
    if not len(undoing):
        return found
    rows = rows[np.argsort(table.id[rows])]
    at = np.searchsorted(table.id[rows], table.undoes[undoing])
    target = rows[np.minimum(at, len(rows) - 1)]
    good = (table.id[target] == table.undoes[undoing]) & (target != undoing)
    for column in (table.rater, table.item, table.axis):
        good &= column.codes[target] == column.codes[undoing]
    found[target[good]] = True
    return found


def _later_ones(table: VoteTable, study: Study, codes: Codes, keep: np.ndarray) -> np.ndarray:
    """Votes after the earliest of one rater on one item and axis."""
    found, rows = np.zeros(len(table), bool), np.flatnonzero(keep)
    cell = codes.item[rows].astype(np.int64) * len(study.axes) + codes.axis[rows]
    cell += table.rater.codes[rows].astype(np.int64) * (len(study.items) * len(study.axes))
    _, inverse, counts = np.unique(cell, return_inverse=True, return_counts=True)
    several = counts[inverse] > 1
    rows, cell = rows[several], cell[several]
    order = np.lexsort((table.id[rows], _times(table)[rows], cell))
    found[rows[order[1:]]] = cell[order[1:]] == cell[order[:-1]]
    return found


def _times(table: VoteTable) -> np.ndarray:
    """Microseconds; votes whose time is not known come last. int64 [N]."""
    return np.where(np.isnat(table.time), np.iinfo(np.int64).max, table.time.view(np.int64))
