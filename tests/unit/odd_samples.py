"""Files as they come from phones, screens and editors: rotated, of a variable rate, 10- and 16-bit, transparent."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from media_samples import RATE

MATRICES = {  # of a track header, by degrees clockwise: 16.16 fixed point, the last of each row 2.30
    90: (0, 1, 0, -1, 0, 0),
    180: (-1, 0, 0, 0, -1, 0),
    270: (0, -1, 0, 1, 0, 0),
    45: (0.7071, 0.7071, 0, -0.7071, 0.7071, 0),
}


def gray(levels: Sequence[int], height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """Plain frames of the given levels: uint8 [T, H, W, channels]."""
    return np.tile(np.array(levels, np.uint8)[:, None, None, None], (1, height, width, channels))


def make_video(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    rate: Fraction | int = 8,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    **options: str,
) -> Path:
    """Write frames [T, H, W, 3 or 4] and mono sound [1, N] with any codec, each frame at its own time if given."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        base = Fraction(1, 1000) if times_ms is not None else 1 / Fraction(rate)
        stream.codec_context.time_base = base
        track: Any = None
        if sound is not None:
            track = container.add_stream(sound_codec, rate=RATE, layout="mono")
            track.bit_rate = 128_000
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24" if array.shape[2] == 3 else "rgba")
            frame.pts, frame.time_base = number if times_ms is None else times_ms[number], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            resampler = av.AudioResampler(format=track.format, layout="mono", rate=RATE)
            for begin in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, begin : begin + 1024])
                heard = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                heard.sample_rate, heard.pts, heard.time_base = RATE, begin, Fraction(1, RATE)
                container.mux([p for part in resampler.resample(heard) for p in track.encode(part)])
            container.mux(track.encode(None))
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Give an mp4 a display matrix, as a phone that is held upright does."""
    data = bytearray(path.read_bytes())
    begin = data.find(b"tkhd") + 44  # past the name, version, times, id, duration, layer and volume
    a, b, _, c, d, _ = (round(value * 65536) for value in MATRICES[degrees])
    data[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def click(seconds: float, at: float) -> np.ndarray:
    """Silence with a short impact: float32 [1, N]."""
    sound = np.zeros((1, round(seconds * RATE)), np.float32)
    sound[0, round(at * RATE) : round(at * RATE) + 480] = 0.8
    return sound


def click_at(sound: np.ndarray) -> float:
    """When the impact is heard, in seconds."""
    return float(np.flatnonzero(np.abs(sound[0]) > 0.4)[0]) / RATE


def sixteen_bits(height: int = 1, width: int = 1) -> bytes:
    """A black PNG with 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + 6 * width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
