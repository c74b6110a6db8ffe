"""What `moviegen data build` is asked for: typed, frozen, read from conf/data_build.yaml and conf/source/.

The signatures are what the configuration is checked against; values out of range raise ValueError.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from moviegen_data.sound_rules import SoundRules
from moviegen_data.toyworld import WorldConfig
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from moviegen.conditioning.edit_tasks import OF_EDITS
from moviegen.media import Limits

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")

EDIT_FORMS = ("video", "frame", "animate", "segment")  # what becomes of a pair: edit_pairs


@dataclass(frozen=True)
class ClipSpec:
    """The form of every real clip in the shards; height and width even, sound mono."""

    num_frames: int = 16
    height: int = 64
    width: int = 64
    frame_rate: float = 8.0  # frames per second
    sample_rate_hz: int = 48_000

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 2 or self.height % 2 or self.width % 2:
            raise ValueError(f"clip size must be even and at least 2, not {self.width}x{self.height}")
        if self.num_frames < 1 or self.frame_rate <= 0 or self.sample_rate_hz < 8000:
            stated = f"{self.num_frames} frames, {self.frame_rate} frames/s, {self.sample_rate_hz} Hz"
            raise ValueError(f"clip needs frames, a frame rate above 0 and at least 8000 Hz, not {stated}")

    @property
    def duration_seconds(self) -> float:
        return self.num_frames / self.frame_rate


@dataclass(frozen=True)
class ToySeries:
    """Numbers `first_index` ... `first_index + count - 1` of what one toyworld renders with one seed."""

    name: str
    split: str
    count: int
    seed: int
    world: WorldConfig = field(default_factory=WorldConfig)
    first_index: int = 0

    def __post_init__(self) -> None:
        check_names(self.name, self.split)
        if min(self.count, self.seed, self.first_index) < 0:
            stated = f"count {self.count}, seed {self.seed}, first_index {self.first_index}"
            raise ValueError(f"source {self.name}: these must be at least 0, not {stated}")


@dataclass(frozen=True)
class ToySource(ToySeries):
    """Clips of one series."""


@dataclass(frozen=True)
class FileSource:
    """What real files share: where they are, which split they belong to, and by what right they are used.

    `paths` are files, folders, globs, or `package:PACKAGE/path/in/it`. `captions` is a csv with the columns
    `file` and `caption` and, if wanted, `licence`, `licence_url` and `consent` of single files; without it,
    captions come from `.txt` files beside the media. Of the usable files in order of their names the last
    `holdout` go to the split `holdout_split`.
    """

    name: str
    split: str
    paths: tuple[str, ...]
    licence: str | None = None  # SPDX, or "custom:..."; without one no file enters
    licence_url: str | None = None
    consent: str = "unrecorded"  # none-needed, or the id of a record
    captions: str | None = None
    captions_needed: bool = False  # refuse a source none of whose training files has one
    holdout: int = 0
    holdout_split: str = "val"
    crops: int = 1  # of each span; the first is the whole height or width
    scales: tuple[float, ...] = (1.0,)  # sides of the crops, in shares of the largest one that fits

    def __post_init__(self) -> None:
        check_names(self.name, self.split, self.holdout_split)
        if isinstance(self.paths, str) or not self.paths:
            raise ValueError(
                f"source {self.name}: paths must be a list of at least one path, not {self.paths!r}"
            )
        if self.holdout < 0 or self.crops < 1:
            stated = f"holdout {self.holdout}, crops {self.crops}"
            raise ValueError(
                f"source {self.name}: holdout must be at least 0, crops at least 1, not {stated}"
            )
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"source {self.name}: scales must lie in (0, 1], not {list(self.scales)}")
        check_licence(self.licence, f"source {self.name}")


@dataclass(frozen=True)
class VideoSource(FileSource):
    """Spans of videos, `span_step_seconds` apart (null: one after another), at most `max_spans` of a file."""

    max_spans: int | None = None
    span_step_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.max_spans is not None and self.max_spans < 1) or (self.span_step_seconds or 1.0) <= 0:
            stated = f"max_spans {self.max_spans}, span_step_seconds {self.span_step_seconds}"
            raise ValueError(f"source {self.name}: both must be above 0 or null, not {stated}")


@dataclass(frozen=True)
class PhotoSource(FileSource):
    """Crops of still images, each a sample of one frame."""


@dataclass(frozen=True)
class ToyEditSource(ToySeries):
    """Edit pairs of one series: one sample a pair, in the forms in turn."""

    forms: tuple[str, ...] = ("video",)
    sound: bool = False  # whole videos have the sound of the scene before the edit

    def __post_init__(self) -> None:
        super().__post_init__()
        check_forms(self.forms, self.name)


@dataclass(frozen=True)
class PairSource:
    """Edit pairs that are files: a table (csv, json, jsonl) or a folder of InstructPix2Pix's form (see edit_lists).

    A pair that names no task, and whose words ask for none, is of `task`; without one it is dropped.

    With `forms=[segment]` the table names a video and a thing in it, which `detector` finds and `segmenter` (SAM 2)
    follows; both are local folders.

    Of the usable pairs in their order the last `holdout` go to the split `holdout_split`, and with them every pair that
    shares a file, or a copy of one, with one of them.
    """

    name: str
    split: str
    pairs: str
    licence: str | None = None  # SPDX, or "custom:..."; without one no pair enters
    licence_url: str | None = None
    consent: str = "unrecorded"
    forms: tuple[str, ...] = ("video",)
    holdout: int = 0
    holdout_split: str = "val"
    detector: str | None = None
    segmenter: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        check_names(self.name, self.split, self.holdout_split)
        check_forms(self.forms, self.name)
        check_licence(self.licence, f"source {self.name}")
        if not self.licence:
            raise ValueError(f"source {self.name}: needs a licence, SPDX or custom:...")
        if "segment" in self.forms and (self.forms != ("segment",) or not (self.detector and self.segmenter)):
            raise ValueError(
                f"source {self.name}: forms=[segment] stands alone and needs detector= and segmenter=, local folders"
            )
        if self.holdout < 0:
            raise ValueError(f"source {self.name}: holdout must be at least 0, not {self.holdout}")
        if self.task is not None and self.task not in OF_EDITS:
            raise ValueError(
                f"source {self.name}: task must be one of {', '.join(OF_EDITS)}, not {self.task!r}"
            )


Source = ToySource | VideoSource | PhotoSource | ToyEditSource | PairSource


@dataclass(frozen=True)
class DurationSpec:
    """One duration bucket: clips of `min_seconds` to below `max_seconds` as `num_frames` frames.

    A clip is covered as a whole, at the rate that takes; where that is outside the range of rates, its middle is
    taken at the nearest rate inside.
    """

    name: str
    num_frames: int
    min_seconds: float
    max_seconds: float | None  # null: no end
    min_rate: float  # frames per second
    max_rate: float

    def __post_init__(self) -> None:
        if self.num_frames < 2 or not 0 < self.min_rate <= self.max_rate or self.min_seconds <= 0:
            stated = f"{self.num_frames} frames, {self.min_rate} to {self.max_rate} frames/s"
            raise ValueError(f"duration {self.name}: needs 2 frames and rates in order, not {stated}")
        if self.max_seconds is not None and self.max_seconds <= self.min_seconds:
            raise ValueError(f"duration {self.name}: {self.min_seconds} to {self.max_seconds} s is empty")
        if self.num_frames / self.max_rate > self.min_seconds * 1.001:
            shortest = self.num_frames / self.max_rate
            raise ValueError(
                f"duration {self.name}: {self.num_frames} frames at {self.max_rate}/s last {shortest:g} s, "
                f"longer than its shortest clip of {self.min_seconds:g} s"
            )

    def holds(self, seconds: float) -> bool:
        """Whether a clip is not too long."""
        return self.max_seconds is None or seconds < self.max_seconds

    def rate(self, seconds: float) -> float:
        """Frames per second for a clip of `seconds`."""
        return min(max(self.num_frames / seconds, self.min_rate), self.max_rate)


@dataclass(frozen=True)
class BucketSpec:
    """Every size with every duration; photographs take the sizes alone, as the duration `image`.

    `max_crop` is the largest share of a frame that may be cut away to reach an aspect ratio.
    """

    sizes: tuple[tuple[int, int], ...]  # height, width in pixels
    durations: tuple[DurationSpec, ...]
    max_crop: float = 0.35

    def __post_init__(self) -> None:
        if not self.sizes or not 0 <= self.max_crop < 1:
            raise ValueError(f"buckets need a size, and max_crop in [0, 1), not {self.max_crop}")
        names = [one.name for one in self.durations]
        if len(set(names)) < len(names) or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"buckets name each size and duration once, got {names}")


@dataclass(frozen=True)
class BuildConfig:
    """The whole build."""

    out: str
    sources: Mapping[str, Any]
    clip: ClipSpec = field(default_factory=ClipSpec)
    limits: Limits = field(default_factory=Limits)
    shard_size: int = 256  # samples
    workers: int = 2  # processes; 0 works in this one
    crf: float = 14.0  # H.264 quality of the samples
    seed: int = 0  # of the crops
    overwrite: bool = False  # replace the shards of another configuration in `out`
    sound: SoundRules | None = None  # which clips are dropped for their sound; null: none
    buckets: BucketSpec | None = None  # sizes and durations of real clips, in place of `clip`'s

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(
                "no sources: choose some with source=[toyworld,real], or source=own for your own files"
            )
        if self.shard_size < 1 or self.workers < 0 or not 0 <= self.crf <= 51:
            stated = f"shard_size {self.shard_size}, workers {self.workers}, crf {self.crf}"
            raise ValueError(f"shard_size must be at least 1, workers at least 0, crf 0 to 51, not {stated}")
        for name, source in self.sources.items():
            if not isinstance(source, Source):
                raise ValueError(f"sources.{name}: must have a _target_, one of {', '.join(sorted(TARGETS))}")


TARGETS = {
    f"moviegen_data.config.{cls.__name__}": cls
    for cls in (BuildConfig, BucketSpec, DurationSpec, ClipSpec, *get_args(Source))
} | {
    "moviegen_data.sound_rules.SoundRules": SoundRules,
    "moviegen_data.toyworld.WorldConfig": WorldConfig,
    "moviegen_data.toyworld.config.WorldConfig": WorldConfig,
    "moviegen.media.Limits": Limits,
}


def check_names(*names: str) -> None:
    """Names become parts of file names and keys: small letters, digits and underscores."""
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"a name or split must be of small letters, digits and _, not {name!r}")


def check_forms(forms: tuple[str, ...], owner: str) -> None:
    """Forms of edit pairs, see edit_pairs."""
    if isinstance(forms, str) or not forms or set(forms) - set(EDIT_FORMS):
        raise ValueError(f"source {owner}: forms must be some of {', '.join(EDIT_FORMS)}, not {forms!r}")


def check_licence(licence: str | None, owner: str) -> None:
    """A licence that is stated must be an expression of SPDX's identifiers or start with `custom:`."""
    if not licence or re.fullmatch(r"custom:.*\S.*", licence):
        return
    try:
        canonicalize_license_expression(licence)
    except InvalidLicenseExpression as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{owner}: licence {licence!r} is neither an SPDX identifier nor custom:... ({reason})"
        ) from None


def parse(node: Any, where: str = "") -> Any:
    """Build the dataclasses that a plain (resolved) config describes; ValueError for anything unknown."""
    if isinstance(node, list | tuple):
        return tuple(parse(item, where) for item in node)
    if not isinstance(node, Mapping):
        return node
    inside = {key: parse(value, f"{where}.{key}" if where else str(key)) for key, value in node.items()}
    target = inside.pop("_target_", None)
    if target is None:
        return inside
    if target not in TARGETS:
        raise ValueError(f"{where or 'the root'}: _target_ {target} is none of {', '.join(sorted(TARGETS))}")
    cls = TARGETS[target]
    names = [item.name for item in fields(cls)]
    for key in inside:
        if key not in names:
            close = difflib.get_close_matches(key, names, 1) or [", ".join(names)]
            raise ValueError(f"unknown key {where + '.' if where else ''}{key}; valid: {close[0]}")
    try:
        return cls(**inside)
    except TypeError as error:
        raise ValueError(f"{where or 'the root'}: {error}") from None
