"""Reading: untrusted files through the sandbox, files of our own shards in this process."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from moviegen.media.base import DecodedClip, Limits, MediaError, MediaInfo, check_readable
from moviegen.media.mixing import mix
from moviegen.media.sandbox import Sandbox, ask

Source = bytes | str | os.PathLike[str]


def probe(path: str | os.PathLike[str], limits: Limits | None = None) -> MediaInfo:
    """Describe an untrusted video or sound file; MediaError if it is missing, empty or truncated.

    The number of packets is held against what the container promises.
    """
    replies, _ = _ask(path, {"op": "probe"}, limits)
    return _info(path, replies[0])


def read_clip(
    path: str | os.PathLike[str],
    start_frame: int = 0,
    num_frames: int | None = None,
    stride: int = 1,
    with_audio: bool = False,
    limits: Limits | None = None,
    frame_rate: float | None = None,
) -> DecodedClip:
    """Decode a span of an untrusted video in the sandbox.

    Args:
        path: a local file.
        start_frame: first frame, counted in the file.
        num_frames: frames to return; None for all up to the end.
        stride: every how many frames of the file.
        with_audio: also return the sound of exactly this span, at the file's own rate.
        limits: what the read may cost.
        frame_rate: instead of a stride, take the frames nearest to the times of this rate.

    Raises:
        MediaError: for any bad file, a span outside the file, a crash of the decoder, or a limit.
    """
    request = {
        "op": "clip",
        "start_frame": start_frame,
        "num_frames": num_frames,
        "stride": stride,
        "frame_rate": frame_rate,
        "with_audio": with_audio,
    }
    replies, blobs = _ask(path, request, limits)
    frames = _shaped(path, blobs[0], replies[0]["shape"], np.uint8)
    if len(replies) == 1:
        return DecodedClip(frames, replies[0]["frame_rate"])
    audio = _shaped(path, blobs[1], replies[1]["shape"], np.float32)
    return DecodedClip(frames, replies[0]["frame_rate"], audio, replies[1]["sample_rate_hz"])


@contextmanager
def stream_clip(
    path: str | os.PathLike[str], limits: Limits | None = None
) -> Iterator[tuple[MediaInfo, Iterator[np.ndarray]]]:
    """Decode an untrusted video of any length in a sandbox of its own: its description, and its frames in chunks.

    Chunks are uint8 [n, H, W, 3] of at most 16 frames and 64 MiB (one frame where that is larger), at the constant
    rate `frame_rate` of the description. One chunk is held at a time, and the child waits until the next is asked for.

    Raises:
        MediaError: for any bad file, when it is opened or where the damage is met.
    """
    limits = limits or Limits()
    found = str(check_readable(path))
    request = {"op": "clip", "stream": True, "path": found, "start_frame": 0, "num_frames": None, "stride": 1}
    sandbox = Sandbox(limits.memory_bytes)
    try:
        with _named(path, found):
            replies = sandbox.stream(request | {"frame_rate": None, "with_audio": False}, limits)
            first = next(replies)
            assert isinstance(first, dict)
            yield _info(path, first), _chunks(path, first["shape"], replies)
    finally:
        sandbox.close()


def _chunks(path: str | os.PathLike[str], shape: list[int], replies: Iterator[Any]) -> Iterator[np.ndarray]:
    for blob in replies:
        num_frames = blob.nbytes // max(1, math.prod(shape[1:]))
        yield _shaped(path, blob, [num_frames, *shape[1:]], np.uint8)


def read_image(path: str | os.PathLike[str], limits: Limits | None = None, plain: bool = False) -> np.ndarray:
    """Decode an untrusted still image to uint8 [H, W, 3] in the sandbox; MediaError over the pixel limit.

    With `plain` also where it is see-through or has more than 8 bits a channel, of which something would be lost.
    """
    replies, blobs = _ask(path, {"op": "image", "plain": plain}, limits)
    return _shaped(path, blobs[0], replies[0]["shape"], np.uint8)


def read_sound(
    path: str | os.PathLike[str], start_seconds: float, stop_seconds: float, limits: Limits | None = None
) -> tuple[np.ndarray, int]:
    """Decode the sound between two times of an untrusted file in the sandbox: (float32 [C, N], its own rate)."""
    request = {"op": "sound", "start_seconds": start_seconds, "stop_seconds": stop_seconds}
    replies, blobs = _ask(path, request, limits)
    return _shaped(path, blobs[0], replies[0]["shape"], np.float32), replies[0]["sample_rate_hz"]


def _ask(path: str | os.PathLike[str], message: dict[str, Any], limits: Limits | None) -> tuple[list, list]:
    """Check the path, ask the sandbox, and name the file in errors as the caller named it."""
    found = str(check_readable(path))
    with _named(path, found):
        return ask(message | {"path": found}, limits or Limits())


@contextmanager
def _named(path: str | os.PathLike[str], found: str) -> Iterator[None]:
    """Name the file `found` in errors as the caller named it."""
    try:
        yield
    except MediaError as error:
        if error.name != found:
            raise
        raise MediaError(path, error.reason, error.rule) from None


def _info(path: str | os.PathLike[str], reply: dict[str, Any]) -> MediaInfo:
    told = reply["info"]
    return MediaInfo(**(told | {"path": os.fspath(path), "remarks": tuple(told["remarks"])}))


def _shaped(path: str | os.PathLike[str], blob: np.ndarray, shape: list[int], dtype: type) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if blob.nbytes != expected:
        raise MediaError(path, f"{blob.nbytes} bytes decoded, {expected} announced", "truncated")
    return blob.view(dtype).reshape(shape)


def decode_video(
    data: Source, max_frames: int = 4096, max_pixels: int = 8192 * 4320
) -> tuple[np.ndarray, float]:
    """Decode a video of our own shards in this process: (uint8 [T, H, W, 3], frames per second).

    Args:
        data: the bytes of the file, or its path.
        max_frames: MediaError if it holds more.
        max_pixels: MediaError if one frame holds more.
    """
    import decord

    name = "<bytes>" if isinstance(data, bytes) else os.fspath(data)
    source = io.BytesIO(data) if isinstance(data, bytes) else str(check_readable(data))
    try:
        reader = decord.VideoReader(source, num_threads=1)
        num, rate = len(reader), float(reader.get_avg_fps())
        if num > max_frames:
            raise MediaError(name, f"holds {num} frames, the limit is {max_frames}", "too large")
        height, width = reader[0].shape[:2]
        if height * width > max_pixels:
            size = f"{width}x{height} is {width * height} pixels a frame, the limit is {max_pixels}"
            raise MediaError(name, size, "too large")
        return reader.get_batch(range(num)).asnumpy(), rate
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        if "size must exactly match" in str(error):  # rows that FFmpeg pads, which decord copies as they are
            reason = "has a width that decord cannot read (16, 24, 48 and 72 pixels are such); make clips of another"
            raise MediaError(name, reason, "unreadable width") from error
        raise MediaError(name, "cannot be decoded as a video", "damaged") from error


def decode_audio(data: Source) -> tuple[np.ndarray, int]:
    """Decode the sound of a file of our own shards in this process: (float32 [C, N], samples per second)."""
    name = "<bytes>" if isinstance(data, bytes) else os.fspath(data)
    source = io.BytesIO(data) if isinstance(data, bytes) else str(check_readable(data))
    try:
        with av.open(source, "r") as container:
            if not container.streams.audio:
                raise MediaError(name, "holds no sound", "not media")
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            parts = [f.to_ndarray() for frame in container.decode(stream) for f in resampler.resample(frame)]
            seconds = (
                float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
            )
            length = None if seconds is None else round(seconds * stream.rate)
            rate, channels = stream.rate, stream.channels
    except FFmpegError as error:
        raise MediaError(name, f"its sound cannot be decoded: {error.strerror}", "damaged") from error
    sound = np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0), np.float32)
    return np.ascontiguousarray(sound[:, :length]), rate


def resample_audio(
    audio: np.ndarray, sample_rate_hz: int, new_rate_hz: int, num_channels: int, layout: str | None = None
) -> np.ndarray:
    """Change rate and number of channels (to 1 or 2) of float32 [C, N] sound; float32 [channels, M].

    More than two channels are mixed as `mixing.mix` says, by their `layout` where it is known.
    """
    mixed = mix(audio, num_channels, layout)
    length = round(audio.shape[1] * new_rate_hz / sample_rate_hz)
    if sample_rate_hz == new_rate_hz or length == 0:
        return mixed[:, :length]
    layout = "mono" if num_channels == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(mixed, format="fltp", layout=layout)
    frame.sample_rate = sample_rate_hz
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=new_rate_hz)
    pieces = [f.to_ndarray() for f in (*resampler.resample(frame), *resampler.resample(None))]
    sound = np.concatenate(pieces, axis=1)[:, :length]
    return np.pad(sound, ((0, 0), (0, length - sound.shape[1])))
