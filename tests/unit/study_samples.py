"""Small studies and votes for tests."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from moviegen_eval.study.axes import Axis
from moviegen_eval.study.study import Arm, ExclusionRules, Item, Study, save_study
from moviegen_eval.study.votes import Vote, VoteLog


def small_study(
    prompts: int = 12, arms: tuple[str, ...] = ("ours", "other"), gold: int = 0, **values: Any
) -> Study:
    """All pairs of arms on every prompt, tagged by motion and concept; one axis unless `axes` are given."""
    items = [
        Item(
            f"p{n}-{x}-{y}",
            f"prompt {n}",
            x,
            y,
            f"{x}/{n}.mp4",
            f"{y}/{n}.mp4",
            {"motion": ("low", "high")[n % 2], "concept": ("animal", "scene", "animal,scene")[n % 3]},
        )
        for n in range(prompts)
        for x, y in combinations(arms, 2)
    ]
    items += [
        Item(f"gold-{n}", "", arms[0], arms[0], "g.mp4", "h.mp4", gold=("a", "tie", "b")[n % 3])
        for n in range(gold)
    ]
    keys = values.pop("axes", (Axis("overall", "Which is better?"),))
    return Study("small", "A small study", keys, tuple(map(Arm, arms)), tuple(items), **values)


def vote(
    study: Study, item: str = "p0-ours-other", answer: str = "a", rater: str = "r1", **values: Any
) -> Vote:
    """A sound vote on the first axis."""
    given = {"axis": study.axes[0].key, "shown_left": "a", "watch_seconds": (4.0, 4.0)} | values
    return Vote(study=study.digest, item=item, answer=answer, rater=rater, **given)


def write_log(path: Path, votes: list[Vote]) -> Path:
    """A log with these votes."""
    with VoteLog(path, durable=False) as log:
        log.append(votes)
    return path


def write_study(folder: Path, study: Study) -> Path:
    """The study as a file."""
    save_study(study, folder / "study.yaml")
    return folder / "study.yaml"


def with_rules(study: Study, **rules: Any) -> Study:
    """The study with other exclusion rules, and so another digest."""
    return replace(study, exclusion=ExclusionRules(**rules))
