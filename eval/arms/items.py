"""Pairs of videos for a study: the first arm against each of the others on every prompt that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moviegen_eval.arms.folder import Arm, Problem
from moviegen_eval.suites import Suite


@dataclass(frozen=True)
class Pair:
    """One item of a study: the first try of both arms for a prompt."""

    id: str
    key: str  # of the prompt
    prompt: str
    arm_a: str
    arm_b: str
    video_a: Path
    video_b: Path
    tags: dict[str, str] = field(default_factory=dict)


def pairs_of_arms(suite: Suite, arms: Sequence[Arm]) -> tuple[list[Pair], list[Problem]]:
    """Pairs in the suite's order, by opponent, and the prompts that have no pair; the first arm is always arm a.

    Raises ValueError where there are fewer than two arms, or not one prompt is in the first and in another.
    """
    if len(arms) < 2:
        raise ValueError(f"a comparison needs two arms or more, got {[arm.name for arm in arms]}")
    first, pairs, alone = arms[0], [], []
    for other in arms[1:]:
        for prompt in suite.prompts:
            sides = [arm.videos.get(prompt.id) for arm in (first, other)]
            if sides[0] and sides[1]:
                key = prompt.id if len(arms) == 2 else f"{prompt.id}.{other.name}"
                paths = sides[0][0].path, sides[1][0].path
                pairs.append(
                    Pair(key, prompt.id, prompt.text, first.name, other.name, *paths, prompt.study_tags())
                )
            elif sides[0] or sides[1]:
                lacking = other.name if sides[0] else first.name
                alone.append(Problem(lacking, "unpaired", prompt.id, "the other arm has a video of it"))
    if not pairs:
        raise ValueError(f"no prompt of suite {suite.name} has a video in {first.name} and in another arm")
    return pairs, alone
