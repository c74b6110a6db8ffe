"""The files of a sample as tar entries, and the parts of its record that all samples share."""

from __future__ import annotations

import json
from typing import Any


def span_of(start: int, stop: int, frame_rate: float) -> dict[str, float]:
    """Frames [start, stop) of the source and the same in seconds (0 for photographs)."""
    seconds = 1 / frame_rate if frame_rate else 0.0
    return {
        "start_frame": start,
        "stop_frame": stop,
        "start_seconds": start * seconds,
        "stop_seconds": stop * seconds,
    }


def entries(record: dict[str, Any], media: bytes, caption: str | None, suffix: str = "mp4") -> dict[str, Any]:
    entries: dict[str, Any] = {"__key__": record["key"], suffix: media, "json": json_bytes(record)}
    return entries | ({"txt": caption.encode()} if caption else {})


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
