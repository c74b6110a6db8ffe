"""Does a metric prefer what people prefer? Pairwise accuracy of each metric against the votes, axis by axis.

`accuracy` is over items that the raters decided: the metric's better side is theirs (equal scores count a half; chance
is 0.5). `with_ties` is over all items: a difference below a threshold is the metric's tie, and the threshold is fitted
on the other half of the prompts, so that it cannot flatter itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from moviegen_eval.scores import SampleRow
from moviegen_eval.stats import Interval, bootstrap_mean

if TYPE_CHECKING:
    from moviegen_eval.study.analysis import Analysis
    from moviegen_eval.study.study import Study

MIN_ITEMS = 10  # below it no agreement is printed


@dataclass(frozen=True)
class Agreement:
    """One metric on one axis; n are items."""

    output: str
    axis: str
    accuracy: float
    interval: Interval | None  # over prompts
    n_decided: int
    with_ties: float
    n: int


def agreements(
    study: Study,
    analysis: Analysis,
    samples: Sequence[SampleRow],
    texts: Mapping[str, str],
    directions: Mapping[str, bool],
    count: int = 2000,
    seed: int = 0,
) -> list[Agreement]:
    """Every output on every axis that shares at least MIN_ITEMS items with the votes.

    Args:
        texts: prompt id -> text, of the suite that was scored.
        directions: output -> whether more is better.
    """
    values = {(row.arm, row.prompt): row.scores for row in reversed(samples) if row.number == 0}
    prompts = match_items(study, texts)
    items = [(position, item) for position, item in enumerate(study.items) if item.gold is None]
    found = []
    for number, axis in enumerate(analysis.axes):
        for output, higher in directions.items():
            rows = []
            for position, item in items:
                sides = [values.get((arm, prompts.get(item.id, "")), {}) for arm in (item.arm_a, item.arm_b)]
                votes = analysis.item_counts[position, number]
                if votes.sum() and output in sides[0] and output in sides[1]:
                    ahead = (sides[0][output] - sides[1][output]) * (1 if higher else -1)
                    rows.append((item.cluster, ahead, _answer(votes)))
            if len(rows) >= MIN_ITEMS:
                found.append(_agreement(output, axis, rows, count, seed))
    return found


def match_items(study: Study, texts: Mapping[str, str]) -> dict[str, str]:
    """Item id -> prompt id of the suite: by the id's beginning where the text agrees, else by the text."""
    by_text: dict[str, str] = {}
    for prompt, text in texts.items():
        by_text.setdefault(" ".join(text.split()), prompt)
    matched = {}
    for item in study.items:
        words = " ".join(item.prompt.split())
        for key in (item.id, item.id.rpartition(".")[0]):
            if key in texts and " ".join(texts[key].split()) == words:
                matched[item.id] = key
                break
        else:
            if words in by_text:
                matched[item.id] = by_text[words]
    return matched


def _answer(votes: np.ndarray) -> int:
    """The majority's answer: +1 arm a, -1 arm b, 0 a tie or no leading answer."""
    leaders = np.flatnonzero(votes == votes.max())
    return 0 if len(leaders) > 1 else int(1 - leaders[0])


def _agreement(
    output: str, axis: str, rows: Sequence[tuple[str, float, int]], count: int, seed: int
) -> Agreement:
    clusters, ahead = [row[0] for row in rows], np.array([row[1] for row in rows])
    answers = np.array([row[2] for row in rows])
    decided = answers != 0
    right = np.where(ahead == 0, 0.5, (np.sign(ahead) == answers).astype(float))
    means = _by_cluster([c for c, d in zip(clusters, decided, strict=True) if d], right[decided])
    accuracy = float(right[decided].mean()) if decided.any() else float("nan")
    interval = bootstrap_mean(means, count, seed) if len(means) > 1 else None
    if interval is not None:
        interval = Interval(min(interval.low, accuracy), max(interval.high, accuracy))
    ties = _with_ties(clusters, ahead, answers, seed)
    return Agreement(output, axis, accuracy, interval, int(decided.sum()), ties, len(rows))


def _by_cluster(clusters: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Means of the values of each prompt."""
    rows: dict[str, list[float]] = {}
    for cluster, value in zip(clusters, values, strict=True):
        rows.setdefault(cluster, []).append(float(value))
    return np.array([np.mean(own) for own in rows.values()])


def _with_ties(clusters: Sequence[str], ahead: np.ndarray, answers: np.ndarray, seed: int) -> float:
    """Share of items with the right one of three answers, the threshold fitted on the other half of the prompts."""
    names = sorted(set(clusters))
    rng = np.random.default_rng(seed)
    half = dict(zip(rng.permutation(names).tolist(), [n % 2 for n in range(len(names))], strict=True))
    side = np.array([half[cluster] for cluster in clusters])
    right = 0
    for own in (0, 1):
        here, other = side == own, side != own
        threshold = _best_threshold(ahead[other], answers[other]) if other.any() else 0.0
        right += int((_three(ahead[here], threshold) == answers[here]).sum())
    return right / len(answers)


def _three(ahead: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(np.abs(ahead) <= threshold, 0, np.sign(ahead))


def _best_threshold(ahead: np.ndarray, answers: np.ndarray) -> float:
    """The threshold with the most right answers; the smallest of equal ones."""
    candidates = np.unique(np.concatenate([[0.0], np.quantile(np.abs(ahead), np.linspace(0, 1, 51))]))
    hits = [(_three(ahead, threshold) == answers).sum() for threshold in candidates]
    return float(candidates[int(np.argmax(hits))])
