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
    image_prefix: str = "t2i"  # the same of its stills
    given_prefix: str = "i2v"  # the same of clips that were given their first frame
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
class SoundEvalConfig:
    """The keys of conf/sound_eval.yaml, which says what they are."""

    sounds: str
    shards: str
    out: str
    split: str = "val"
    prefix: str = "sound"
    bootstrap_count: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bootstrap_count < 100:
            raise ValueError(f"eval sound: bootstrap_count must be at least 100, got {self.bootstrap_count}")


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
    sound: str | None = None  # folder that `eval sound` wrote
    sounds: str | None = None  # folder with the sounds themselves, some of which go on the page
    max_clips: int = 64  # generated clips on the page
    max_pairs: int = 6  # toyworld, and as many real, clips beside their reconstructions
    max_megabytes: float = 24.0  # of video on the page; further clips are left out and counted
    notes: list[str] = field(default_factory=list)  # what is small, what was never run at scale
    people: str | None = None  # folder that `eval identity` wrote
    edited: str | None = None  # folder that `eval edits` wrote
    upscaled: str | None = None  # folder that `eval upscale` wrote
    study: str | None = None  # study file
    votes: str | None = None  # votes.jsonl of it
    built: str | None = None  # folder of `eval study build`: what was done to the videos that raters saw
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
        if not (self.judged_folders() or self.study or self.scores):
            raise ValueError(
                "report: nothing to report; give judged=, people=, edited=, upscaled=, study= with votes=, or scores="
            )
        if bool(self.votes) > bool(self.study):
            raise ValueError("report: votes without a study; give study= too")
        if bool(self.built) > bool(self.study):
            raise ValueError("report: built without a study; give study= too")
        unknown = sorted(set(self.wandb or {}) - {"project", "mode", "name", "dir"})
        if unknown:
            raise ValueError(f"report: unknown key wandb.{unknown[0]}; known: project, mode, name, dir")

    def judged_folders(self) -> list[str]:
        """What judges of this project's own models wrote, in the order of the page."""
        return [folder for folder in (self.judged, self.people, self.edited, self.upscaled) if folder]


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
    toyworld_seed: int = 400
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
            "toyworld_seed": 0,
            "size_multiple": 2,
            "fid_frames": 1,
            "seam_clips": 0,
        }
        least |= {"bootstrap_count": 100, "frechet_bootstrap": 0, "max_whole_frames": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"codec: {name} must be at least {bound}, got {getattr(self, name)}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"codec: max_frames must be at least 1 or null, got {self.max_frames}")
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


def parse_config(cls: type[Config], cfg: DictConfig | Mapping[str, Any], command: str) -> Config:
    """Resolve a composed config into the dataclass; unknown and mistyped keys raise ValueError.

    A root `_target_` (which types the yaml file) is passed over.
    """
    values = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    assert isinstance(values, dict)
    return parse_record(cls, {str(key): value for key, value in values.items() if key != "_target_"}, command)
