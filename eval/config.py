"""The keys of the `moviegen eval` commands, and the check that a config has no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from moviegen_eval.records import parse_record
from omegaconf import DictConfig, OmegaConf

Config = TypeVar("Config")


@dataclass(frozen=True)
class JudgeConfig:
    """What to judge. Each input may be null: its figures are then left out, and the output says so."""

    out: str  # folder for numbers.json, verdicts.jsonl, bars.json, pca-*.npz
    generations: str | list[str] | None = None  # folders with a manifest.jsonl
    reconstructions: str | None = None  # folder with a reconstructions.jsonl
    train_shards: str | None = None  # folder of <split>-<source>-<number>.tar for the PCA fit
    train_split: str = "train"
    pca_max_clips: int = 400  # clips a fit, for toyworld and for real video
    prefix: str = "t2v"  # first part of the generator's figure names
    level: int | None = None  # toyworld difficulty level, named with every toyworld figure
    bars: dict[str, float | str] = field(default_factory=dict)  # figure -> number, or another figure's name
    runs: dict[str, str] = field(default_factory=dict)  # name -> run folder, for the csv figures
    csv_figures: list[dict[str, Any]] = field(default_factory=list)  # {column, take, unit, higher_is_better}
    bootstrap_count: int = 2000
    shuffles: int = 200  # for the floors
    seed: int = 0
    crf: int = 18  # H.264 quality of the ceiling's clips: what generate writes with

    def __post_init__(self) -> None:
        for name, least in (("pca_max_clips", 1), ("bootstrap_count", 100), ("shuffles", 1), ("crf", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"judge: {name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class ReportConfig:
    """What the page shows: a judged run, a comparison of arms, or both. A missing optional input becomes a note."""

    judged: str | None = None  # folder that judge wrote
    out: str | None = None  # the html file; None: report.html in the judged folder, or beside the study
    title: str = "moviegen report"
    summary: str = ""  # a sentence or two under the title
    reconstructions: str | None = None  # folder with a reconstructions.jsonl
    runs: dict[str, str] = field(
        default_factory=dict
    )  # name -> run folder (metrics.csv, run.json, config.yaml)
    config: str | None = None  # a resolved configuration (yaml) of the whole job
    max_clips: int = 64  # generated clips on the page
    max_pairs: int = 6  # toyworld, and as many real, clips beside their reconstructions
    max_megabytes: float = 24.0  # of video on the page; further clips are left out and counted
    notes: list[str] = field(default_factory=list)  # what is small, what was never run at scale
    study: str | None = None  # study file
    votes: str | None = None  # votes.jsonl of it
    scores: str | list[str] | None = None  # folders that `eval score` and `eval external` wrote
    arms: dict[str, str] = field(default_factory=dict)  # name -> folder with the arm's settings card
    published: str | None = None  # json of figures that a paper printed
    protocol: dict[str, str] = field(default_factory=dict)  # raters, recruitment, pay, training, ...
    resamples: int = 2000  # of prompts, for intervals
    grid_items: int = 12  # pairs of videos on the page
    grid_seed: int = 0
    grid_height: int = 240  # pixels
    grid_seconds: float = 10.0
    check: bool = False  # compute again and compare with what is there; write nothing
    wandb: dict[str, str] | None = None  # {project, mode, name, dir}: mirror figures, tables and page

    def __post_init__(self) -> None:
        for name in ("max_clips", "max_pairs", "max_megabytes", "grid_items", "grid_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"report: {name} must be 0 or more, got {getattr(self, name)}")
        for name, least in (("resamples", 100), ("grid_height", 16), ("grid_seconds", 0.1)):
            if getattr(self, name) < least:
                raise ValueError(f"report: {name} must be at least {least}, got {getattr(self, name)}")
        if not (self.judged or self.study or self.scores):
            raise ValueError("report: nothing to report; give judged=, study= with votes=, or scores=")
        if bool(self.votes) > bool(self.study):
            raise ValueError("report: votes without a study; give study= too")
        unknown = sorted(set(self.wandb or {}) - {"project", "mode", "name", "dir"})
        if unknown:
            raise ValueError(f"report: unknown key wandb.{unknown[0]}; known: project, mode, name, dir")


@dataclass(frozen=True)
class CodecEvalConfig:
    """The keys of conf/codec_eval.yaml, which says what they are and where the numbers come from."""

    out: str
    codecs: dict[str, Any]
    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    max_frames: int | None = None
    toyworld_images: int = 0
    toyworld_clips: int = 0
    durations_seconds: list[float] = field(default_factory=list)
    toyworld_level: int = 4
    toyworld_size: int = 128
    toyworld_frame_rate: float = 8.0
    max_size: int | None = None
    size_multiple: int = 32
    motion_slow: float = 3.0
    motion_fast: float = 6.0
    weights: dict[str, str] = field(default_factory=dict)
    vmaf: bool = True
    fid_frames: int = 16
    bootstrap_count: int = 2000
    frechet_bootstrap: int = 50
    tiling: dict[str, int | None] = field(default_factory=dict)
    seam_clips: int = 2
    max_whole_frames: int = 256
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    num_threads: int | None = None
    seed: int = 0
    keep: bool = False

    def __post_init__(self) -> None:
        least = {
            "toyworld_images": 0,
            "toyworld_clips": 0,
            "size_multiple": 2,
            "fid_frames": 1,
            "seam_clips": 0,
        }
        least |= {"bootstrap_count": 100, "frechet_bootstrap": 0, "max_whole_frames": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"codec: {name} must be at least {bound}, got {getattr(self, name)}")
        if not self.codecs:
            raise ValueError("codec: no codecs; give codecs.<name>=path/to/model or a codec's settings")
        wrong = [
            name for name in self.codecs if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name) or name == "source"
        ]
        if wrong:
            raise ValueError(
                f"codec: {wrong[0]!r} cannot name a codec: letters, digits and _.+- only, not 'source'"
            )
        if not 0 <= self.motion_slow <= self.motion_fast:
            raise ValueError(
                f"codec: motion_slow {self.motion_slow} must not be above motion_fast {self.motion_fast}"
            )


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
    overrides: list[str] = field(default_factory=list)
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
        wrong = [line for line in self.overrides if "=" not in line or line.startswith("-")]
        if wrong:
            raise ValueError(f"generate: override {wrong[0]!r} is not key=value")
        set_here = [
            line
            for line in self.overrides
            if line.split("=")[0] in ("prompts", "run_dir", "model", "sampler.seed")
        ]
        if set_here:
            raise ValueError(f"generate: {set_here[0].split('=')[0]} is set by this command's own keys")


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
    max_items: int | None = None
    rule: Literal["manifest", "id", "row", "prompt"] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        _check_arms("study draft", self.arms)
        if self.same_gold < 0 or self.seed < 0 or (self.max_items is not None and self.max_items < 1):
            raise ValueError("study draft: same_gold and seed must be 0 or more, max_items 1 or more")


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


def parse_config(cls: type[Config], cfg: DictConfig | Mapping[str, Any], command: str) -> Config:
    """Resolve a composed config into the dataclass; unknown and mistyped keys raise ValueError.

    A root `_target_` (which types the yaml file) is passed over.
    """
    values = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    assert isinstance(values, dict)
    return parse_record(cls, {str(key): value for key, value in values.items() if key != "_target_"}, command)
