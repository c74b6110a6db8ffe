"""From what a decoder gives to upright uint8 RGB: rotation, 10 bits, transparency; and the lines that say so.

Runs only inside the sandboxed child process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from moviegen.media.base import MediaError

PQ, HLG = 16, 18  # transfer functions of high dynamic range (ITU-T H.273, table 3)


def remarks(path: str, stream: Any, frame: Any) -> Iterator[str]:
    """One line for each thing that reading changes; MediaError for pictures that would come out wrong."""
    if frame.color_trc == PQ:
        reason = "its pictures are of high dynamic range (PQ), which is not read: make a copy in SDR first"
        raise MediaError(path, reason, "not media")
    if frame.color_trc == HLG:
        yield "its high dynamic range (HLG) is read as SDR, without tone mapping"
    if turns := quarter_turns(path, frame):
        yield f"turned by {turns * 90} degrees counterclockwise, as its metadata says"
    if has_alpha(frame):
        yield "its transparency, if any, is laid over black"
    elif str(stream.metadata.get("alpha_mode", "0")) == "1":
        yield "its transparency is left out"
    depth = max((component.bits for component in frame.format.components), default=8)
    if depth > 8:
        yield f"its {depth}-bit pictures are read with 8 bits"
    if frame.interlaced_frame:
        yield "it is interlaced: its two fields are read as one picture"
    if (ratio := stream.sample_aspect_ratio) not in (None, 0, 1):
        yield f"its pixels are {ratio.numerator}:{ratio.denominator} wide, and are read as squares"


def quarter_turns(path: str, frame: Any) -> int:
    """How often a picture is to be turned by 90 degrees counterclockwise, 0 to 3; MediaError for other angles."""
    if frame.rotation % 90:
        reason = f"its metadata turns the picture by {frame.rotation} degrees; only quarter turns are read"
        raise MediaError(path, reason, "not media")
    return frame.rotation // 90 % 4


def has_alpha(frame: Any) -> bool:
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def upright_rgb(path: str, frame: Any) -> np.ndarray:
    """A decoded picture as uint8 [H, W, 3], as it is to be shown."""
    if has_alpha(frame):
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        rgb = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    else:
        rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns(path, frame)))
