"""A contact sheet of clips, to look at: one row a clip, frames from left to right."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moviegen.media import atomic_path, to_png_bytes


def write_sheet(path: Path, clips: list[NDArray[np.uint8]], stride: int = 2, scale: int = 2) -> None:
    """Write clips [T, H, W, 3] as a PNG, every `stride`-th frame enlarged `scale` times."""
    gap = 2
    rows = [
        np.concatenate([np.pad(f, ((gap, 0), (gap, 0), (0, 0))) for f in clip[::stride]], axis=1)
        for clip in clips
    ]
    sheet = np.kron(np.concatenate(rows), np.ones((scale, scale, 1), dtype=np.uint8))
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_png_bytes(sheet))
