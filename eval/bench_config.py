"""The keys of the `moviegen eval` commands about arms: generate, score, external, study draft."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NAME = re.compile(r"[A-Za-z0-9_.+-]{1,100}")  # of arms: they name figures and files


@dataclass(frozen=True)
class ScoreConfig:
    """The keys of conf/score.yaml, which says what they are."""

    out: str
    arms: dict[str, str]
    suite: str
    metrics: list[str] = field(default_factory=lambda: ["free"])
    weights: dict[str, str] = field(default_factory=dict)
    other_weights: bool = False
    reference: str | None = None
    sources: str | None = None
    faces: str | None = None
    by: list[str] | None = None
    unlike: Literal["normalize", "refuse", "as_they_are"] = "normalize"
    rule: Literal["manifest", "id", "row", "prompt"] | None = None
    cache: str | None = None
    part: int = 0
    num_parts: int = 1
    bootstrap_count: int = 2000
    set_bootstrap: int = 50
    num_threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_arms("score", self.arms)
        _check_parts("score", self.part, self.num_parts)
        if self.bootstrap_count < 100 or self.set_bootstrap < 0 or self.seed < 0:
            raise ValueError(
                f"score: bootstrap_count {self.bootstrap_count}, set_bootstrap {self.set_bootstrap}, seed "
                f"{self.seed}: at least 100, 0 and 0"
            )


@dataclass(frozen=True)
class SuiteGenerateConfig:
    """The keys of conf/suite_generate.yaml, which says what they are."""

    out: str
    suite: str
    model: str
    name: str = "moviegen"
    seeds: list[int] = field(default_factory=lambda: [0])
    settings: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    max_prompts: int | None = None
    part: int = 0
    num_parts: int = 1

    def __post_init__(self) -> None:
        _check_parts("generate", self.part, self.num_parts)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"generate: seeds are {self.seeds}; expected different numbers, one at least")
        if self.max_prompts is not None and self.max_prompts < 1:
            raise ValueError(f"generate: max_prompts must be at least 1, got {self.max_prompts}")
        taken = [key for key in flat(self.settings) if key in ("prompts", "run_dir", "model", "sampler.seed")]
        if taken:
            raise ValueError(f"generate: settings.{taken[0]} is set by this command's own keys")


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


@dataclass(frozen=True)
class StudyDraftConfig:
    """The keys of conf/study_draft.yaml, which says what they are."""

    out: str
    suite: str
    arms: dict[str, str]
    axes: list[Any]
    id: str | None = None
    title: str = "Which video is better?"
    seed: int = 0
    instructions: str = ""
    consent: str = ""
    exclusion: dict[str, Any] = field(default_factory=dict)
    same_gold: int = 0
    degraded_gold: int = 0
    faces: str | None = None
    sources: str | None = None
    max_items: int | None = None
    rule: Literal["manifest", "id", "row", "prompt"] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        _check_arms("study draft", self.arms)
        for name, least in (("same_gold", 0), ("degraded_gold", 0), ("seed", 0), ("max_items", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"study draft: {name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class ExternalConfig:
    """The keys of conf/external.yaml, which says what they are."""

    out: str
    benchmark: str
    suite: str
    arms: dict[str, str]
    external: dict[str, Any]
    stage: Literal["prepare", "run", "read", "all"] = "prepare"
    rule: Literal["manifest", "id", "row", "prompt"] | None = None
    bootstrap_count: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        _check_arms("external", self.arms)
        if self.bootstrap_count < 100:
            raise ValueError(f"external: bootstrap_count must be at least 100, got {self.bootstrap_count}")


def _check_arms(command: str, arms: dict[str, str]) -> None:
    if not arms:
        raise ValueError(f"{command}: no arms; give arms.<name>=folder")
    wrong = [name for name in arms if not NAME.fullmatch(name)]
    if wrong:
        raise ValueError(f"{command}: {wrong[0]!r} cannot name an arm: letters, digits and _.+- only")


def _check_parts(command: str, part: int, num_parts: int) -> None:
    if num_parts < 1 or not 0 <= part < num_parts:
        raise ValueError(f"{command}: part {part} of {num_parts}: part runs from 0 to num_parts - 1")
