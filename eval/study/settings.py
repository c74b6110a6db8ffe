"""The keys of the `moviegen eval study` commands; conf/study_*.yaml says what they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Format = Literal["csv", "jsonl", "mturk", "prolific", "videogen_rewardbench"]


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
    format: Format = "csv"
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
        needs = "url" if self.format in ("mturk", "prolific") else "votes"
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
    overwrite: bool = False


@dataclass(frozen=True)
class StudyCheckConfig:
    """The keys of conf/study_check.yaml."""

    study: str
    out: str | None = None


@dataclass(frozen=True)
class StudyBuildConfig:
    """The keys of conf/study_build.yaml."""

    study: str
    out: str
    arms: dict[str, str] = field(default_factory=dict)
    prompts: str | None = None
    references: str | None = None
    title: str = "Which video is better?"
    axes: list[str] = field(default_factory=lambda: ["overall"])
    gold_share: float = 0.08
    seed: int = 0
    max_side: int = 1280
    max_length_ratio: float = 4.0
    max_rate_ratio: float = 4.0
    max_size_ratio: float = 4.0
    loudness_lufs: float = -23.0
    crf: float = 16.0

    def __post_init__(self) -> None:
        for name in ("max_length_ratio", "max_rate_ratio", "max_size_ratio"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"study build: {name} must be at least 1, got {getattr(self, name)}")
        for name, low, high in (("gold_share", 0, 1), ("max_side", 16, 8192), ("crf", 0, 51)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"study build: {name} must be {low} to {high}, got {getattr(self, name)}")
        if not -60 <= self.loudness_lufs <= -5:
            raise ValueError(f"study build: loudness_lufs must be -60 to -5, got {self.loudness_lufs}")


@dataclass(frozen=True)
class StudyServeConfig:
    """The keys of conf/study_serve.yaml."""

    study: str
    built: str
    out: str
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    url: str | None = None
    raters: int = 0
    anyone: bool = False
    external: str | None = None
    completion: str | None = None
    max_raters: int = 10_000
    tasks_per_rater: int | None = None
    gold_every: int = 10
    pairs_once: bool = True
    lease_minutes: float = 30.0
    certificate: str | None = None
    private_key: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("raters", 0, 100_000),
            ("gold_every", 0, 1_000_000),
            ("max_raters", 1, 1_000_000),
            ("tasks_per_rater", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"study serve: {name} must be {low} to {high}, got {value}")
        if not self.lease_minutes > 0:
            raise ValueError(f"study serve: lease_minutes must be above 0, got {self.lease_minutes}")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("study serve: certificate and private_key belong together; give both or none")
