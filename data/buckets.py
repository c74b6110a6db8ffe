"""Buckets of a build: the aspect ratio and the duration that a file's clip takes, and shards of one bucket each.

After the paper's 3.2.2: a duration has a number of frames and a range of frame rates, and a clip that lies in it is
covered as a whole, at the rate that makes it so many frames; a longer one gives its middle.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moviegen_data.config import BucketSpec, ClipSpec, DurationSpec
from moviegen_data.samples import BucketUnit, Unit

from moviegen.media import MediaError

IMAGE = "image"  # the duration of photographs
LOWEST_RATE = 0.9  # of the clip's frame rate; below it frames would be repeated


@dataclass(frozen=True)
class Form:
    """What becomes of one file: the form of its clip and the name of its duration."""

    clip: ClipSpec
    duration: str


def choose(
    path: Path, size: tuple[int, int], seconds: float, rate: float, spec: BucketSpec, base: ClipSpec
) -> Form:
    """The bucket of a file of (width, height) pixels and so many seconds (0: a photograph).

    Raises MediaError, which names the rule: too small, aspect, too short, low rate, duration.
    """
    height, width = _aspect(path, size, spec)
    if seconds == 0:
        return Form(ClipSpec(1, height, width, base.frame_rate, base.sample_rate_hz), IMAGE)
    duration, frame_rate = _duration(path, seconds, rate, spec)
    clip = ClipSpec(duration.num_frames, height, width, frame_rate, base.sample_rate_hz)
    return Form(clip, duration.name)


def _aspect(path: Path, size: tuple[int, int], spec: BucketSpec) -> tuple[int, int]:
    """(height, width) of the bucket that keeps most of the frame."""
    width, height = size
    fitting = [(h, w) for h, w in spec.sizes if w <= width and h <= height]
    if not fitting:
        raise MediaError(path, f"is too small for every bucket: {width}x{height} pixels", "too small")
    kept = {(h, w): min(width * h / (height * w), height * w / (width * h)) for h, w in fitting}
    best = max(fitting, key=lambda bucket: kept[bucket])
    if kept[best] < 1 - spec.max_crop:
        loss = f"{1 - kept[best]:.0%} of {width}x{height} pixels in the bucket {best[1]}x{best[0]}"
        raise MediaError(path, f"would lose {loss}, more than {spec.max_crop:.0%}", "aspect")
    return best


def _duration(path: Path, seconds: float, rate: float, spec: BucketSpec) -> tuple[DurationSpec, float]:
    """The duration and the frame rate; of several that fit, one by the hash of the file's name."""
    within = [one for one in spec.durations if one.min_seconds <= seconds + 1e-6 and one.holds(seconds)]
    if not within:
        shortest = min(one.min_seconds for one in spec.durations)
        rule = "too short" if seconds < shortest else "duration"
        raise MediaError(path, f"lasts {seconds:.2f} s, which is in no bucket (from {shortest:g} s)", rule)
    rates = {one: one.rate(seconds) for one in within}
    reached = [one for one in within if rate >= LOWEST_RATE * rates[one]]
    if not reached:
        lowest = min(rates.values())
        raise MediaError(path, f"has {rate:g} frames/s, its bucket wants {lowest:g}", "low rate")
    chosen = reached[hashlib.sha256(path.name.encode()).digest()[0] % len(reached)]
    return chosen, min(rates[chosen], rate)


def middle(num_frames: int, last: int) -> int:
    """First frame of the span of `last` + 1 frames in the middle of a file."""
    return max(0, (num_frames - last - 1) // 2)


def counts(units: Iterable[Unit]) -> Counter[str]:
    """Samples of each bucket."""
    found: Counter[str] = Counter()
    for unit in units:
        if isinstance(unit, BucketUnit):
            found[_name(unit.duration, unit.clip.height, unit.clip.width)] += len(unit.keys)
    return found


def refuse_empty(spec: BucketSpec, units: Iterable[Unit], videos: bool, photos: bool) -> None:
    """Raise ValueError for a bucket without a training sample; durations want videos, images want photographs."""
    durations = [one.name for one in spec.durations] if videos else []
    wanted = [_name(name, *size) for name in durations + [IMAGE] * photos for size in spec.sizes]
    found = counts(unit for unit in units if unit.split == "train")
    empty = [name for name in wanted if not found[name]]
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        table = "; ".join(f"{name}: {count}" for name, count in found.items()) or "none"
        raise ValueError(
            f"{len(empty)} of {len(wanted)} buckets have no samples: {shown}; give more files, or fewer buckets "
            f"(filled: {table})"
        )


def table(units: Iterable[Unit]) -> list[str]:
    """A line for each bucket: how many samples it was planned with."""
    return [f"bucket {name}: {count} samples" for name, count in sorted(counts(units).items())]


def _name(duration: str, height: int, width: int) -> str:
    return f"{height}x{width} {duration}"
