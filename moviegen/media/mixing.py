"""Mixing the channels of a sound to one or two, as ITU-R BS.775 mixes the five of 5.1 to two."""

from __future__ import annotations

import av
import numpy as np

HALF_POWER = 0.7071  # BS.775-3, annex 4, table 2
# What goes to the left and to the right. The channel of low effects (LFE) is left out, as the table does; it has no 6.1
# and 7.1, whose sides and backs are taken as its surrounds, and a single back as its single surround.
WEIGHTS = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (HALF_POWER, HALF_POWER),
    "SL": (HALF_POWER, 0.0),
    "SR": (0.0, HALF_POWER),
    "BL": (HALF_POWER, 0.0),
    "BR": (0.0, HALF_POWER),
    "BC": (0.5, 0.5),
    "LFE": (0.0, 0.0),
}


def mix(audio: np.ndarray, num_channels: int, layout: str | None = None) -> np.ndarray:
    """Sound [C, N] with 1 or 2 channels, float32 [num_channels, N].

    One channel is the mean of the left and the right, of stereo as of what surround becomes. Surround whose sum is
    above full scale is brought down to it.

    Args:
        layout: as PyAV names it, such as 5.1(side); the usual one of so many channels where None. Channels of one that
            BS.775 does not know, or that has another number of them, are averaged.
    """
    count = len(audio)
    if count == num_channels:
        return np.ascontiguousarray(audio, np.float32)
    if count <= 2:
        mean = audio.mean(axis=0, keepdims=True, dtype=np.float32)
        return np.ascontiguousarray(np.repeat(mean, num_channels, axis=0))
    sides = _weights(count, layout)
    matrix = sides if num_channels == 2 else sides.mean(axis=0, keepdims=True)
    mixed = matrix.astype(np.float32) @ np.asarray(audio, np.float32)
    return mixed / max(1.0, float(np.abs(mixed).max(initial=0)))


def _weights(count: int, layout: str | None) -> np.ndarray:
    """What each channel gives to the left and to the right, [2, C]."""
    try:
        names = [channel.name for channel in av.AudioLayout(layout or f"{count}c").channels]
    except ValueError:
        names = []
    if len(names) != count or not set(names) <= set(WEIGHTS):
        return np.full((2, count), 1 / count)
    return np.array([WEIGHTS[name] for name in names]).T
