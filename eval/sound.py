"""`moviegen eval sound`: impacts, timbre and seams of generated sound against toyworld's truth, with its bounds.

Reads the folder that `moviegen sound shards` wrote and the shards that it was made for; writes numbers.json and
scores.jsonl. The floor holds each sound against the events of another clip, as if its video had been shuffled; the
ceiling is the clips' own sound after the codec, where `sound shards ceiling=true` wrote it; chance are as many events
at random times of the sound's own clip. Jumps at seams are held against those elsewhere, both clear of the cuts between
joined clips, where the true sound itself breaks off; the ceiling says what true sounds leap by at the same times.
Where a row names stretches that were kept (infilling), only what is clear of them is judged: impacts are matched over
the whole sound and counted where it is new; silence, and what seams are held against, are of what is new alone.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.config import SoundEvalConfig, parse_config
from moviegen_eval.files import inside, read_json_lines, write_json_lines
from moviegen_eval.metrics.sound import (
    TOLERANCE_SECONDS,
    Impact,
    ImpactScore,
    impacts_heard,
    match_impacts,
    seam_jumps,
    within,
)
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.stats import Z_95, Interval
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import decode_audio
from moviegen.media.loudness import silence_share

MANIFEST = "sounds.jsonl"
CLEAR_SECONDS = 0.2  # from a seam or a cut; ours: five times the 40 ms that are compared


@dataclass(frozen=True)
class Sound:
    """A generated sound, and what is known of the pictures it was made for."""

    key: str
    new: tuple[tuple[float, float], ...]  # stretches in seconds that were made: all, or what was not kept
    heard: tuple[Impact, ...]  # in all of the sound, as the events are
    events: tuple[Impact, ...]
    silence: float  # of what was made
    at_seams: np.ndarray  # [n, 2] jumps of level and spectrum
    elsewhere: np.ndarray

    @property
    def seconds(self) -> float:
        """Of what was made."""
        return sum(stop - start for start, stop in self.new)

    def score(self, events: Sequence[Impact]) -> ImpactScore:
        """What was made against events of the whole sound: each impact is matched first, then counted where it lies."""
        return match_impacts(events, self.heard, self.seconds, new=self.new)

    def at(self, place: float) -> float:
        """The time at which so many seconds of what was made are over."""
        for start, stop in self.new:
            if place < stop - start:
                return start + place
            place -= stop - start
        return self.new[-1][1]


def sound(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Score a folder of generated sounds; print and write the figures.

    Raises ValueError of one line for a file that is missing or damaged; then no figures are written.
    """
    config = parse_config(SoundEvalConfig, cfg, "eval sound")
    folder = Path(config.sounds)
    events, levels = read_events(Path(config.shards), config.split)
    rows = list(read_json_lines(folder / MANIFEST))
    sounds = [_read(folder, where, row, events) for where, row in tqdm(rows, desc="judge", unit="sound")]
    if not sounds:
        raise ValueError(f"{folder / MANIFEST}: names no sound")
    tops = [(where, row | {"file": row["ceiling"]}) for where, row in rows if "ceiling" in row]
    bar = tqdm(tops, desc="judge: ceiling", unit="sound", disable=not tops)
    ceiling = [_read(folder, where, row, events) for where, row in bar]
    rng = np.random.default_rng(config.seed)
    figures = impact_figures(config.prefix, sounds, rng, config.bootstrap_count, ceiling)
    for end, heard in (
        ("", sounds),
        ("/ceiling", ceiling),
    ):  # true sounds have no seams: what they leap by anyway
        figures += seam_figures(config.prefix, heard, rng, config.bootstrap_count, end)
    about = f", toyworld level {' and '.join(map(str, levels))}" if levels else ""
    figures = [replace(one, unit=f"{one.unit}{about}") for one in figures]
    out = Path(config.out)
    write_json_lines(out / "scores.jsonl", [_row(one) for one in sounds])
    write_numbers(out / NUMBERS, figures)
    for figure in figures:
        bounds = "" if figure.low is None else f" ({figure.low:.3f} to {figure.high:.3f})"
        print(f"{figure.name:<40} {figure.value:8.3f}{bounds}  n = {figure.n}  {figure.unit}")
    return figures


def read_events(shards: Path, split: str) -> tuple[dict[str, tuple[Impact, ...]], list[int]]:
    """The impacts of every toyworld clip of a split, by key, and the levels of the clips."""
    found: dict[str, tuple[Impact, ...]] = {}
    levels: set[int] = set()
    for path in sorted(shards.glob(f"{split}-*.tar")):
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.name.endswith(".truth.json") and (file := tar.extractfile(member)):
                        truth = json.load(file)
                        listed = truth["events"]
                        key = member.name.removesuffix(".truth.json")
                        found[key] = tuple(Impact(one["seconds"], one["shape"]) for one in listed)
                        levels |= {truth["level"]} if "level" in truth else set()
        except (tarfile.TarError, OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: is not a readable shard of toyworld ({error})") from None
    if not found:
        raise ValueError(f"{shards}: no toyworld clip of split {split!r}; their shards hold .truth.json")
    return found, sorted(levels)


def _read(
    folder: Path, where: str, row: Mapping[str, Any], events: Mapping[str, tuple[Impact, ...]]
) -> Sound:
    for key, kind in (("key", str), ("file", str), ("clips", list), ("clip_seconds", float)):
        if not isinstance(row.get(key), kind):
            raise ValueError(f"{where}: {key} is {row.get(key)!r}; expected {kind.__name__}")
    unknown = [clip for clip in row["clips"] if clip not in events]
    if unknown:
        raise ValueError(f"{where}: clip {unknown[0]} is not among the shards")
    audio, rate = decode_audio(inside(folder, row["file"], where))
    due = tuple(
        Impact(number * row["clip_seconds"] + event.seconds, event.shape)
        for number, clip in enumerate(row["clips"])
        for event in events[clip]
    )
    seconds = audio.shape[1] / rate
    new = _made(row, where, seconds)
    cuts = [number * row["clip_seconds"] for number in range(1, len(row["clips"]))]
    whole = [(0.0, seconds)]
    beside = [(start - TOLERANCE_SECONDS - 1e-6, stop + TOLERANCE_SECONDS + 1e-6) for start, stop in new]
    seams = [float(time) for time in row.get("seams", []) if _clear(time, cuts) and within(beside, time)]
    made = np.concatenate([audio[:, round(a * rate) : round(b * rate)] for a, b in new], axis=1)
    others = _elsewhere(seams, cuts, row["clip_seconds"], new, seconds)
    return Sound(
        row["key"],
        new,
        _inside(whole, impacts_heard(audio, rate)),
        _inside(whole, due),
        silence_share(made, rate),
        seam_jumps(audio, rate, seams),
        seam_jumps(audio, rate, others),
    )


def _made(row: Mapping[str, Any], where: str, seconds: float) -> tuple[tuple[float, float], ...]:
    """What a row's sound holds beside kept stretches, clear of them by as much as an impact may be off."""
    kept = row.get("kept_seconds", [])
    spans: list[tuple[float, float]] = []
    edge = 0.0
    try:
        for start, stop in sorted(kept):
            if not start < stop:
                raise ValueError
            spans.append((edge, min(float(start) - TOLERANCE_SECONDS, seconds)))
            edge = max(edge, float(stop) + TOLERANCE_SECONDS)  # stretches may lie in each other
    except (TypeError, ValueError):
        raise ValueError(f"{where}: kept_seconds is {kept!r}; expected pairs of seconds") from None
    new = tuple((a, b) for a, b in (*spans, (edge, seconds)) if a < b)
    if not new:
        raise ValueError(f"{where}: kept_seconds {kept} leave nothing of {seconds:.2f} s to judge")
    return new


def _inside(spans: Sequence[tuple[float, float]], impacts: Sequence[Impact]) -> tuple[Impact, ...]:
    return tuple(one for one in impacts if within(spans, one.seconds))


def _clear(time: float, places: Sequence[float]) -> bool:
    """Whether a time is at least `CLEAR_SECONDS` from all of some others."""
    return all(abs(time - place) >= CLEAR_SECONDS for place in places)


def _elsewhere(
    seams: Sequence[float],
    cuts: Sequence[float],
    clip_seconds: float,
    new: Sequence[tuple[float, float]],
    seconds: float,
) -> list[float]:
    """The times of all clips at which one of them has a seam, but in what was made, clear of every seam, cut and edge.

    Clips are not as loud at their beginning as in their middle: like is compared with like.
    """
    phases = sorted({round(seam % clip_seconds, 3) for seam in seams})
    times = [start + phase for start in (0.0, *cuts) for phase in phases]
    if not cuts and seams:
        times = [float(time) for time in np.arange(0.1, seconds - 0.1, 0.1)]
    edges = [edge for span in new for edge in span if 0 < edge < seconds]
    return [time for time in times if within(new, time) and _clear(time, [*seams, *cuts, *edges])]


def _row(one: Sound) -> dict[str, Any]:
    score, heard = one.score(one.events), len(_inside(one.new, one.heard))
    return {"key": one.key, "silence": one.silence, "heard": heard, **asdict(score)}


def impact_figures(
    prefix: str,
    sounds: Sequence[Sound],
    rng: np.random.Generator,
    count: int,
    ceiling: Sequence[Sound] = (),
) -> list[Figure]:
    """Synchrony, false impacts, timbre and silence, each with its bounds; intervals resample whole clips.

    Args:
        ceiling: the clips' own sounds, as far as they are known.
    """
    order = _derangement(len(sounds), rng)
    others = [_with_events(one, sounds[i].events) for one, i in zip(sounds, order, strict=True)]
    others = others if len(sounds) > 1 else []  # a single sound has no other
    permuted = [_with_events(one, _at_random(one, rng)) for one in sounds]
    own = [one.events for one in sounds]
    figures = []
    for end, heard, due in (
        ("", sounds, own),
        ("/floor", sounds if others else (), others),
        ("/ceiling", ceiling, [one.events for one in ceiling]),
        ("/chance", sounds, permuted),
    ):
        pairs = zip(heard, due, strict=True)
        scores = [one.score(events) for one, events in pairs]
        counted = _Counted(scores, rng, count)
        figures += [
            counted.ratio(f"{prefix}/sync{end}", lambda s: (s.hits, s.events), "share of events"),
            counted.ratio(f"{prefix}/timbre{end}", lambda s: (s.right_timbre, s.hits), "share of hits"),
            counted.ratio(f"{prefix}/false_impacts{end}", lambda s: (s.false, s.seconds), "1/s", False),
        ]
        if heard and end in ("", "/ceiling"):  # the others are the same sounds
            silent = float(np.mean([one.silence for one in heard]))
            figures.append(Figure(f"{prefix}/silence{end}", silent, None, None, len(heard), "share", False))
    return [figure for figure in figures if figure.n]


def _with_events(one: Sound, events: Sequence[Impact]) -> tuple[Impact, ...]:
    """Other events where a sound was made, its own where it was kept: what is heard there stays theirs."""
    kept = (event for event in one.events if not within(one.new, event.seconds))
    return (*_inside(one.new, events), *kept)


def _at_random(one: Sound, rng: np.random.Generator) -> list[Impact]:
    """The events where a sound was made, at random times of that."""
    events = _inside(one.new, one.events)
    return [Impact(one.at(rng.uniform(0, one.seconds)), event.shape) for event in events]


def _derangement(count: int, rng: np.random.Generator) -> list[int]:
    """Another sound for each: a random cycle through all."""
    cycle = rng.permutation(count)
    following = np.roll(cycle, -1)
    return [int(following[np.flatnonzero(cycle == index)[0]]) for index in range(count)]


@dataclass(frozen=True)
class _Counted:
    """Scores of all sounds, and how intervals are drawn."""

    scores: Sequence[ImpactScore]
    rng: np.random.Generator
    count: int

    def ratio(
        self, name: str, counts: Callable[[ImpactScore], tuple[float, float]], unit: str, higher: bool = True
    ) -> Figure:
        """A ratio of sums over clips, with a bootstrap over clips; n is the number of clips that count."""
        pairs = np.array([counts(score) for score in self.scores], dtype=np.float64).reshape(-1, 2)
        pairs = pairs[pairs[:, 1] > 0]
        if not len(pairs):
            return Figure(name, 0.0, None, None, 0, unit, higher)
        value = float(pairs[:, 0].sum() / pairs[:, 1].sum())
        drawn = pairs[self.rng.integers(0, len(pairs), (self.count, len(pairs)))].sum(axis=1)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
        return Figure(name, value, min(float(low), value), max(float(high), value), len(pairs), unit, higher)


def seam_figures(
    prefix: str, sounds: Sequence[Sound], rng: np.random.Generator, count: int, end: str = ""
) -> list[Figure]:
    """How much larger jumps of level and spectrum are at seams than elsewhere, as a share of those elsewhere."""
    whole = [one for one in sounds if len(one.at_seams) and len(one.elsewhere)]
    figures = []
    for column, name in enumerate(("level", "spectrum")):
        if not whole:
            break
        pairs = np.array([[one.at_seams[:, column].mean(), one.elsewhere[:, column].mean()] for one in whole])
        excess = pairs.mean(axis=0)
        value = float(excess[0] / excess[1] - 1)
        interval = _excess_interval(pairs, value, rng, count)
        figures.append(
            Figure(f"{prefix}/seam_{name}_excess{end}", value, *interval, len(whole), "share", False)
        )
    return figures


def _excess_interval(pairs: np.ndarray, value: float, rng: np.random.Generator, count: int) -> Interval:
    drawn = pairs[rng.integers(0, len(pairs), (count, len(pairs)))].mean(axis=1)
    half = Z_95 * float(np.std(drawn[:, 0] / drawn[:, 1], ddof=1))
    return Interval(value - half, value + half)
