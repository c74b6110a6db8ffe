"""From a config to units of work: which files are usable, in which split, which spans and crops of them.

A plan depends on the config and the content of the files alone; crops are drawn from the content's hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from moviegen_data.buckets import LOWEST_RATE, Form, choose, middle, refuse_empty
from moviegen_data.config import (
    BuildConfig,
    ClipSpec,
    FileSource,
    PairSource,
    PhotoSource,
    ToyEditSource,
    ToySeries,
    ToySource,
    VideoSource,
)
from moviegen_data.edit_plan import plan_edits
from moviegen_data.files import SourceFile, file_sha256, list_files
from moviegen_data.outcomes import FileOutcome
from moviegen_data.samples import (
    BucketUnit,
    Crop,
    FileUnit,
    SoundUnit,
    ToyUnit,
    Unit,
    is_retimed,
    last_offset,
)
from moviegen_data.splits import one_split
from tqdm import tqdm

from moviegen.media import MediaError, check_readable, probe, read_image


@dataclass
class Plan:
    """Units in order, and what became of each source so far, by outcome id."""

    units: list[Unit] = field(default_factory=list)
    outcomes: dict[str, FileOutcome] = field(default_factory=dict)

    def merge(self, other: Plan) -> None:
        """Append another plan."""
        self.units += other.units
        self.outcomes |= other.outcomes


@dataclass(frozen=True)
class Usable:
    """A file that was probed: its content's hash, size in pixels, frames and rate (0 for a photograph).

    One that holds sound alone has no size, and a length in seconds instead.
    """

    file: SourceFile
    sha256: str
    width: int
    height: int
    num_frames: int
    frame_rate: float
    sound_seconds: float = 0.0
    form: Form | None = None  # of its bucket, where the build has buckets

    def clip(self, config: BuildConfig) -> ClipSpec:
        """The form of its samples."""
        return self.form.clip if self.form else config.clip


def outcome_id(node: str, shown: str) -> str:
    """The key of an outcome: the source's key in the config and the file as the source names it."""
    return f"{node}|{shown}"


def list_sources(config: BuildConfig) -> dict[str, list[SourceFile]]:
    """The files of each real source; ValueError for an empty folder or a pattern that fits nothing."""
    real = {node: source for node, source in config.sources.items() if isinstance(source, FileSource)}
    return {node: list_files(source) for node, source in real.items()}


def make_plan(
    config: BuildConfig, listed: Mapping[str, list[SourceFile]], progress: Iterable[str] | None = None
) -> Plan:
    """Probe all files and lay out spans and crops.

    Raises:
        ValueError: a file (also a copy of it) in two splits, overlapping toyworld series, a source of which
            nothing is usable, too few files to hold some out, two sources that make the same keys.
    """
    plan, splits = Plan(), {}
    for node in progress or config.sources:
        source = config.sources[node]
        if isinstance(source, ToySource):
            plan.merge(_plan_toy(node, source))
        elif isinstance(source, ToyEditSource | PairSource):
            plan.merge(Plan(*plan_edits(node, source, config.clip, splits)))
        else:
            plan.merge(_plan_files(node, source, listed[node], config, splits))
    _check_series(config)
    if config.buckets is not None:
        kinds = {type(source) for source in config.sources.values()}
        refuse_empty(config.buckets, plan.units, VideoSource in kinds, PhotoSource in kinds)
    keys: dict[str, str] = {}
    for unit in plan.units:
        for key in unit.keys:
            if key in keys:
                raise ValueError(f"two sources make the sample {key}; give one of them another name or seed")
            keys[key] = unit.split
    return plan


def _plan_toy(node: str, source: ToySource) -> Plan:
    if not source.count:
        return Plan()
    indices = range(source.first_index, source.first_index + source.count)
    stem = f"{source.name}-l{source.world.level}-s{source.seed}"
    title = f"toyworld level {source.world.level} seed {source.seed} [{indices.start}, {indices.stop})"
    outcome = FileOutcome(node, title, source.split, has_caption=True, is_series=True)
    units: list[Unit] = [
        ToyUnit(
            outcome_id(node, title),
            f"{stem}-{index:06d}",
            source.name,
            source.split,
            source.world,
            source.seed,
            index,
        )
        for index in indices
    ]
    return Plan(units, {outcome_id(node, title): outcome})


def _check_series(config: BuildConfig) -> None:
    """The same toyworld clip must not be asked for in two splits."""
    toys = [(node, s) for node, s in config.sources.items() if isinstance(s, ToySeries)]
    for number, (node, one) in enumerate(toys):
        for other_node, other in toys[:number]:
            same = asdict(one.world) == asdict(other.world) and one.seed == other.seed
            same &= type(one) is type(other)  # edits have a stream of their own
            first = max(one.first_index, other.first_index)
            last = min(one.first_index + one.count, other.first_index + other.count)
            if same and first < last and one.split != other.split:
                reason = f"clips [{first}, {last}) of seed {one.seed} asked for in two splits"
                raise ValueError(f"sources {other_node} and {node}: {reason}; give one another seed")


def _plan_files(
    node: str,
    source: FileSource,
    files: list[SourceFile],
    config: BuildConfig,
    splits: dict[str, tuple[str, str]],
) -> Plan:
    plan, usable, contents = Plan(), [], {}
    for file in files:
        outcome = FileOutcome(node, file.shown, source.split, has_caption=file.caption is not None)
        plan.outcomes[outcome_id(node, str(file.path))] = outcome
        try:
            found = _inspect(file, source, config)
            first = contents.setdefault(found.sha256, file)
            if first is not file:
                raise MediaError(file.path, f"has the same content as {first.path.name}", "duplicate")
            usable.append(found)
        except MediaError as error:
            outcome.drop(error.rule, error.reason)
    held = _held_out(node, source, usable, plan)
    _check_captions(node, source, [found.file for found in usable if found.file not in held])
    for found in usable:
        split = source.holdout_split if found.file in held else source.split
        one_split(found.sha256, split, node, found.file.shown, splits)
        outcome = plan.outcomes[outcome_id(node, str(found.file.path))]
        outcome.split = split
        if found.sound_seconds:
            outcome.sound_only = True
            plan.units += _sound_units(node, found, source, split, config)
            continue
        units = _units(node, found, source, split, config)
        outcome.retimed = found.frame_rate > 0 and is_retimed(found.clip(config), found.frame_rate)
        whole = Crop(0, 0, found.width, found.height)
        outcome.cropped = any(crop != whole for unit in units for crop in unit.crops)
        plan.units += units
    return plan


def _check_captions(node: str, source: FileSource, trained: list[SourceFile]) -> None:
    if source.captions_needed and not any(file.caption for file in trained):
        wanted = f"a line for it in {source.captions}" if source.captions else "CLIP.txt beside CLIP.mp4"
        raise ValueError(
            f"source {node}: none of the {len(trained)} files to train on has a caption; give one at least: {wanted}"
        )


def _held_out(node: str, source: FileSource, usable: list[Usable], plan: Plan) -> list[SourceFile]:
    """The last files in order of their names; ValueError where nothing would be left to train on.

    Where there are pictures, they are what must suffice; sounds are held out beside them if there are enough.
    """
    sounds = [found for found in usable if found.sound_seconds]
    pictures = [found for found in usable if not found.sound_seconds]
    if sounds and pictures:
        more = _held_out(node, source, sounds, plan) if len(sounds) > source.holdout else []
        return _held_out(node, source, pictures, plan) + more
    if not usable or len(usable) <= source.holdout:
        dropped = [f"{o.file}: {o.detail} ({o.rule})" for o in plan.outcomes.values() if o.rule]
        for line in dropped:  # each by name; the error names the first alone
            tqdm.write(f"dropped: {line}")
        more = f" and {len(dropped) - 3} more, see above" if len(dropped) > 3 else ""
        because = f"; dropped: {'; '.join(dropped[:3])}{more}" if dropped else ""
        needed = (
            f"at least {source.holdout + 1} usable files, of which the last {source.holdout} are held out"
        )
        wanted = needed if source.holdout else "at least one usable file"
        raise ValueError(f"source {node}: needs {wanted}, has {len(usable)} of {len(plan.outcomes)}{because}")
    return [found.file for found in usable[len(usable) - source.holdout :]] if source.holdout else []


def _inspect(file: SourceFile, source: FileSource, config: BuildConfig) -> Usable:
    """Probe one file against all rules; MediaError names the rule it breaks."""
    if file.problem:
        raise MediaError(file.path, file.problem, "caption")
    path = check_readable(file.path)
    if not file.rights.licence:
        raise MediaError(
            path, "no licence is stated, so it enters no shard; SPDX or custom:...", "no licence"
        )
    if isinstance(source, PhotoSource):
        height, width = read_image(path, config.limits).shape[:2]
        num_frames, frame_rate = 1, 0.0
    else:
        info = probe(path, config.limits)
        width, height, num_frames, frame_rate = info.width, info.height, info.num_frames, info.frame_rate
        if width == 0:
            return _sounding(file, path, info.duration_seconds, config.clip)
    found = Usable(file, "", width, height, num_frames, frame_rate)
    if config.buckets is not None:
        seconds = num_frames / frame_rate if frame_rate else 0.0
        form = choose(path, (width, height), seconds, frame_rate, config.buckets, config.clip)
        found = replace(found, form=form)
    _check_form(path, found, found.clip(config))
    return replace(found, sha256=file_sha256(path))


def _check_form(path: Path, found: Usable, spec: ClipSpec) -> None:
    """MediaError where a file is too small, too short or too slow for the form of its clips."""
    frame_rate, num_frames = found.frame_rate, found.num_frames
    if frame_rate:
        if frame_rate < LOWEST_RATE * spec.frame_rate:
            rates = f"{frame_rate:g} frames/s, the clips have {spec.frame_rate:g}"
            raise MediaError(path, f"its frame rate is too low: {rates}", "low rate")
        if num_frames <= last_offset(spec, frame_rate):
            have = (
                f"{num_frames} frames at {frame_rate:g}/s, a clip needs {last_offset(spec, frame_rate) + 1}"
            )
            raise MediaError(path, f"is too short: {have}", "too short")
    if found.width < spec.width or found.height < spec.height:
        sizes = f"{found.width}x{found.height} pixels, the clips have {spec.width}x{spec.height}"
        raise MediaError(path, f"is too small: {sizes}", "too small")


def _sounding(file: SourceFile, path: Path, seconds: float, spec: ClipSpec) -> Usable:
    if seconds < spec.duration_seconds:
        have = f"{seconds:g} s of sound, a clip needs {spec.duration_seconds:g}"
        raise MediaError(path, f"is too short: {have}", "too short")
    return Usable(file, file_sha256(path), 0, 0, 0, 0.0, seconds)


def _stem(found: Usable, source: FileSource) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", found.file.path.stem.lower()).strip("_")[:40] or "file"
    return f"{source.name}-{slug}-{found.sha256[:8]}"


def _sound_units(
    node: str, found: Usable, source: FileSource, split: str, config: BuildConfig
) -> list[SoundUnit]:
    """Spans as long as a clip; their keys count milliseconds."""
    assert isinstance(source, VideoSource)
    length = config.clip.duration_seconds
    step = source.span_step_seconds or length
    count = int((found.sound_seconds - length) / step + 1e-9) + 1
    starts = [number * step for number in _chosen(range(count), source.max_spans)]
    origin, stem = outcome_id(node, str(found.file.path)), _stem(found, source)
    keys = [f"{stem}-{round(1000 * start):06d}-000" for start in starts]
    return [
        SoundUnit(origin, key, source.name, split, found.file, found.sha256, start)
        for key, start in zip(keys, starts, strict=True)
    ]


def _chosen(items: Sequence[int], limit: int | None) -> list[int]:
    """At most `limit` of the items, evenly."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[int(number)] for number in np.linspace(0, len(items) - 1, limit).round()]


def _units(node: str, found: Usable, source: FileSource, split: str, config: BuildConfig) -> list[FileUnit]:
    stem = _stem(found, source)
    units = []
    for start in _starts(found, source, found.clip(config)):
        crops = _crops(found, source, config, start)
        keys = tuple(f"{stem}-{start or 0:06d}-{number:03d}" for number in range(len(crops)))
        size = (found.width, found.height)
        unit = FileUnit(
            origin=outcome_id(node, str(found.file.path)),
            keys=keys,
            group=source.name,
            split=split,
            file=found.file,
            sha256=found.sha256,
            crops=crops,
            frame_size=size,
            start_frame=start,
            frame_rate=found.frame_rate,
        )
        units.append(BucketUnit(**vars(unit), **vars(found.form)) if found.form else unit)
    return units


def _starts(found: Usable, source: FileSource, spec: ClipSpec) -> list[int | None]:
    """First frames of the spans; [None] for a photograph."""
    if not isinstance(source, VideoSource):
        return [None]
    if found.form:
        return [middle(found.num_frames, last_offset(spec, found.frame_rate))]
    step = (source.span_step_seconds or spec.duration_seconds) * found.frame_rate
    room = found.num_frames - last_offset(spec, found.frame_rate) - 1
    starts = sorted({round(number * step) for number in range(int(room / step) + 1)})
    return list(_chosen([start for start in starts if start <= room], source.max_spans))


def _crops(found: Usable, source: FileSource, config: BuildConfig, start: int | None) -> tuple[Crop, ...]:
    """The centre crop first if its scale is 1, then random places; never smaller than the clip's size."""
    spec = found.clip(config)
    text = f"{config.seed}|{source.name}|{found.sha256}|{start}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
    largest = min(found.width / spec.width, found.height / spec.height)
    crops = []
    for number in range(source.crops):
        zoom = max(1.0, largest * source.scales[number % len(source.scales)])
        width, height = (
            min(found.width, round(spec.width * zoom)),
            min(found.height, round(spec.height * zoom)),
        )
        across, down = (0.5, 0.5) if number == 0 else rng.random(2)
        left, top = round(across * (found.width - width)), round(down * (found.height - height))
        crops.append(Crop(left, top, width, height))
    return tuple(dict.fromkeys(crops))
