"""When the pictures of a file are shown, and how they are brought to one constant frame rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# A picture may stand this far, in frames, from its place at a constant rate; beyond it the rate is called variable.
TOLERANCE_FRAMES = 0.5


@dataclass(frozen=True)
class Timeline:
    """The pictures of one stream in the order they are shown, and the constant rate they are read at."""

    times: np.ndarray  # [N] seconds from the first picture
    stamps: np.ndarray | None  # [N] the container's time stamps; None where they do not tell pictures apart
    start_seconds: float  # of the first picture, on the container's clock
    frame_rate: float
    is_constant: bool
    num_frames: int  # at `frame_rate`
    end_seconds: float | None = (
        None  # of the last picture, from the first; None where the number of frames tells it
    )

    @property
    def seconds(self) -> float:
        """From the first picture to the end of the last."""
        return self.num_frames / (self.frame_rate or 1.0) if self.end_seconds is None else self.end_seconds

    def shown_at(self, places: np.ndarray) -> np.ndarray:
        """Which pictures of the file [n] stand at `places` [n] of the constant rate.

        At a variable rate each picture moves to the nearest place and stays until the next: never more than half
        a frame from its time, so the sound stays in step.
        """
        if self.is_constant:
            return places
        slots = np.floor(self.times * self.frame_rate + 0.5)
        return np.searchsorted(slots, places, side="right") - 1


def even_timeline(num_frames: int, frame_rate: float, start_seconds: float = 0.0) -> Timeline:
    """Pictures at a constant rate, counted because their container has no times worth the name."""
    times = np.arange(num_frames) / (frame_rate or 1.0)
    return Timeline(times, None, start_seconds, frame_rate, True, num_frames)


def read_timeline(
    stamps: np.ndarray, last_duration: int, time_base: float, stated_rates: Iterable[float]
) -> Timeline:
    """Bring time stamps to a rate: a stated one that they keep to, their mean, or the median of a variable one.

    Args:
        stamps: int64 [N], N at least 1, in any order.
        last_duration: of the picture that is shown last, in units of `time_base`; 0 where unknown.
        stated_rates: what the container says, most trusted first; 0 for nothing.
    """
    stamps = np.unique(stamps)
    times = (stamps - stamps[0]) * time_base
    start_seconds, num = float(stamps[0] * time_base), len(stamps)
    stated = [rate for rate in stated_rates if rate > 0]
    if num == 1:
        rate = stated[0] if stated else 0.0
        return Timeline(times, stamps, start_seconds, rate, True, 1)
    places = np.arange(num)
    for rate in (*stated, _plain((num - 1) / float(times[-1]))):
        if np.abs(times * rate - places).max() < TOLERANCE_FRAMES:
            return Timeline(times, stamps, start_seconds, rate, True, num)
    rate = _plain(1.0 / float(np.median(np.diff(times))))
    end = times[-1] + (last_duration * time_base or 1.0 / rate)
    count = max(1, round(float(end) * rate))
    return Timeline(times, stamps, start_seconds, rate, False, count, float(end))


def _plain(rate: float) -> float:
    """A measured rate as the simple fraction that it stands for, such as 25 or 30000/1001."""
    return float(Fraction(rate).limit_denominator(1001)) or rate
