"""The last steps of `moviegen sound`: one loudness, and what is kept put back as it was. Samples may lie on disk.

All is done in place and in windows, so that memory does not grow with the sound. Sound is float32 [1, N].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from moviegen.media.loudness import LoudnessMeter

WINDOW_SECONDS = 10
Spans = tuple[tuple[int, int], ...]  # samples [first, last)


@dataclass(frozen=True)
class Finish:
    """What a sound is brought to: keys of conf/sound.yaml, which says what they are."""

    loudness_lufs: float
    max_gain_db: float
    crossfade_seconds: float


@dataclass(frozen=True)
class Kept:
    """A video's own sound, and where it is kept."""

    audio: np.ndarray  # float32 [1, N], as long as what is made
    spans: Spans  # in order, apart from each other


def spans_of(stretches: Iterable[tuple[float, float]], rate_hz: int, num_samples: int) -> Spans:
    """Stretches in seconds, in any order, as samples; those that touch become one."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        first, last = round(start * rate_hz), min(round(stop * rate_hz), num_samples)
        if spans and first <= spans[-1][1]:
            first, last = spans[-1][0], max(last, spans.pop()[1])
        if first < last:
            spans.append((first, last))
    return tuple(spans)


def finish(samples: np.ndarray, rate_hz: int, to: Finish, kept: Kept | None = None) -> list[str]:
    """Bring sound to a loudness in place, that of what is kept where something is; then put that back as it was.

    Returns what somebody should know of it.
    """
    target, said = to.loudness_lufs, []
    new = _between(kept.spans if kept else (), samples.shape[1])
    if kept is not None:
        own = measure(kept.audio, rate_hz, kept.spans).lufs()
        target = target if own is None else own
        fades = f"faded over {1000 * to.crossfade_seconds:g} ms beside it"
        level = "is silent" if own is None else f"has {own:.1f} LUFS, which what is new is brought to"
        said.append(f"{_listed(kept.spans, rate_hz)} is put back as it was, {fades}; it {level}")
    meter = measure(samples, rate_hz, new)
    gain, level = meter.gain(target, to.max_gain_db), meter.lufs()
    if level is not None and gain < meter.gain(target):
        most = f"max_gain_db={to.max_gain_db:g} allows no more"
        said.append(f"quiet: raised to {level + to.max_gain_db:.1f} LUFS instead of {target:.1f}; {most}")
    for piece in _pieces(samples, rate_hz, new):
        piece *= np.float32(gain)
    if kept is not None:
        _put_back(samples, kept, round(to.crossfade_seconds * rate_hz))
    return said


def measure(audio: np.ndarray, rate_hz: int, spans: Spans | None = None) -> LoudnessMeter:
    """The loudness of sound [1, N], or of spans of it one after another."""
    meter = LoudnessMeter(rate_hz)
    for piece in _pieces(audio, rate_hz, ((0, audio.shape[1]),) if spans is None else spans):
        meter.add(piece)
    return meter


def _pieces(audio: np.ndarray, rate_hz: int, spans: Spans) -> Iterator[np.ndarray]:
    size = WINDOW_SECONDS * rate_hz
    for first, last in spans:
        for begin in range(first, last, size):
            yield audio[:, begin : min(begin + size, last)]


def _between(spans: Spans, num_samples: int) -> Spans:
    """What lies before, between and after spans."""
    edges = [0, *(edge for span in spans for edge in span), num_samples]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def _put_back(samples: np.ndarray, kept: Kept, width: int) -> None:
    """Copy what is kept; beside it, over `width` samples at most, what is made fades into it."""
    for first, last in _between(kept.spans, samples.shape[1]):
        near = min(width, last - first)
        share = (1 - (np.arange(near) + 0.5) / max(1, width)).astype(np.float32)
        if first > 0:
            _blend(samples[:, first : first + near], kept.audio[:, first : first + near], share)
        if last < samples.shape[1]:
            _blend(samples[:, last - near : last], kept.audio[:, last - near : last], share[::-1])
    for first, last in kept.spans:
        samples[:, first:last] = kept.audio[:, first:last]


def _blend(made: np.ndarray, own: np.ndarray, share: np.ndarray) -> None:
    """Fade a piece of what is made, in place, into the video's own sound by its share [n]."""
    made += share * (own - made)


def _listed(spans: Spans, rate_hz: int) -> str:
    return ", ".join(f"{first / rate_hz:.2f} to {last / rate_hz:.2f} s" for first, last in spans)
