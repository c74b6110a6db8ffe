"""The keys of the `moviegen eval study` commands on votes; conf/study_*.yaml says what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Format = Literal["csv", "jsonl", "mturk", "prolific"]


@dataclass(frozen=True)
class StudyAnalyseConfig:
    """The keys of conf/study_analyse.yaml."""

    study: str
    votes: str
    out: str
    seed: int | None = None
    resamples: int = 2000

    def __post_init__(self) -> None:
        if self.resamples < 100:
            raise ValueError(f"study analyse: resamples must be at least 100, got {self.resamples}")


@dataclass(frozen=True)
class StudyPowerConfig:
    """The keys of conf/study_power.yaml."""

    net: float | None = None
    ties: list[float] = field(default_factory=lambda: [0.1, 0.25, 0.4])
    prompts: list[int] = field(default_factory=lambda: [100, 128, 250, 381, 500, 1003])
    power: float = 0.8
    num_tests: int = 1
    out: str | None = None


@dataclass(frozen=True)
class StudyImportConfig:
    """The keys of conf/study_import.yaml."""

    file: str
    votes: str
    study: str
    format: Literal["csv", "jsonl", "mturk", "prolific", "videogen_rewardbench"] = "csv"
    encoding: str = "utf-8"
    submissions: str | None = None


@dataclass(frozen=True)
class StudyExportConfig:
    """The keys of conf/study_export.yaml."""

    study: str
    out: str
    format: Format = "csv"
    votes: str | None = None
    valid_only: bool = False
    built: str | None = None
    url: str | None = None
    set_size: int = 20

    def __post_init__(self) -> None:
        if self.set_size < 1:
            raise ValueError(f"study export: set_size must be at least 1, got {self.set_size}")
        needs = "votes" if self.format in ("csv", "jsonl") else "url"
        if getattr(self, needs) is None:
            raise ValueError(f"study export: format={self.format} needs {needs}=...")


@dataclass(frozen=True)
class StudySimulateConfig:
    """The keys of conf/study_simulate.yaml."""

    study: str
    votes: str
    strengths: dict[str, float] = field(default_factory=dict)
    prompt_sd: float = 1.0
    ties: float = 1.0
    raters: int = 24
    careless: int = 0
    sided: int = 0
    side: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class StudyCheckConfig:
    """The keys of conf/study_check.yaml."""

    study: str
    out: str | None = None
