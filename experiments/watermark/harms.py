"""What happens to videos and sound on their way, each with an encoding of its own as it would have."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from content import scaled
from numpy.typing import NDArray

from moviegen.media import encode_video

USUAL_CRF = 23  # of x264, with which a changed video is encoded anew

Frames = NDArray[np.uint8]


def coded(frames: Frames, rate: float, crf: float) -> Frames:
    """Through H.264 and back."""
    return decoded(encode_video(frames, rate, crf=crf))


def decoded(data: bytes) -> Frames:
    with av.open(io.BytesIO(data), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames).astype(np.uint8, copy=False)


def remuxed(data: bytes, container_format: str = "matroska") -> bytes:
    """The same packets in another container."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data), "r") as source, av.open(out, "w", format=container_format) as target:
        streams = {
            s.index: target.add_stream_from_template(s)
            for s in source.streams
            if s.type in ("video", "audio")
        }
        for packet in source.demux([source.streams[index] for index in streams]):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return out.getvalue()


@dataclass(frozen=True)
class Harm:
    """A crop anywhere, then another size, another frame rate, and an encoding; `crf` None for none of it."""

    crf: int | None = USUAL_CRF
    cut: float = 0.0  # part of each side that is cut off
    size: float = 1.0  # of each side
    rate: float = 1.0  # frames left out or repeated

    def __call__(self, frames: Frames, frame_rate: float, rng: np.random.Generator) -> Frames:
        """Harmed frames of uint8 [T, H, W, 3]."""
        if self.crf is None:
            return frames
        height, width = (2 * round((1 - self.cut) * extent / 2) for extent in frames.shape[1:3])
        top, left = (
            int(rng.integers(0, room + 1)) for room in np.subtract(frames.shape[1:3], (height, width))
        )
        frames = frames[:, top : top + height, left : left + width]
        frames = scaled(frames, 2 * round(self.size * height / 2), 2 * round(self.size * width / 2))
        places = np.arange(0, len(frames), 1 / self.rate).round().astype(int)
        return coded(frames[np.minimum(places, len(frames) - 1)], frame_rate * self.rate, self.crf)


HARMS = {
    "as exported (H.264 CRF 18)": Harm(crf=None),
    "CRF 23": Harm(),
    "CRF 30": Harm(crf=30),
    "CRF 36": Harm(crf=36),
    "CRF 40": Harm(crf=40),
    "half size": Harm(size=0.5),
    "half size, CRF 30": Harm(size=0.5, crf=30),
    "twice the size": Harm(size=2.0),
    "10 % of each side cut off": Harm(cut=0.1),
    "29 % of each side cut off (half of the area)": Harm(cut=1 - 0.5**0.5),
    "50 % of each side cut off (3/4 of the area)": Harm(cut=0.5),
    "half the frame rate": Harm(rate=0.5),
}


def aac(audio: NDArray[np.float32], rate: int, bits_per_second: int = 64_000) -> NDArray[np.float32]:
    """Sound [1, N] through AAC and back."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono", format="fltp")
        stream.bit_rate = bits_per_second
        for begin in range(0, audio.shape[1], 1024):
            part = np.ascontiguousarray(audio[:, begin : begin + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(io.BytesIO(out.getvalue()), "r") as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(parts, axis=1).astype(np.float32, copy=False)
