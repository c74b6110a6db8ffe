"""Reading of untrusted files: runs only inside the sandboxed child process (see sandbox.py).

Demuxing and sound go through PyAV with a fixed list of demuxers and the `file` protocol alone, so a playlist
cannot name other files or addresses; frames go through decord.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from moviegen.media.base import Limits, MediaError, MediaInfo

FORMATS = "mov,mp4,m4a,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,ivf,wav,flac,mp3,aac"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
CHUNK_FRAMES = 16
PICTURES = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # of all that Pillow knows: EPS would start ghostscript
SLACK_SECONDS = 0.5  # by which a container may overstate its duration


def open_container(path: str) -> Any:
    """Open an untrusted container for reading; MediaError if it is not one of the known formats."""
    try:
        return av.open(path, options=dict(OPTIONS))
    except FFmpegError as error:
        with Path(path).open("rb") as file:
            begins_as_mp4 = file.read(12)[4:8] == b"ftyp"
        if begins_as_mp4:
            raise MediaError(path, "truncated or damaged: an mp4 without its index", "truncated") from error
        reason = "cannot be opened as a video or sound file (damaged, or another kind of file)"
        raise MediaError(path, f"{reason}: {error.strerror}", "not media") from error


def probe_file(path: str, limits: Limits) -> MediaInfo:
    """Read the headers, and count the packets against what the container promises."""
    with open_container(path) as container:
        video = next((s for s in container.streams.video if not _is_cover(s)), None)
        audio = next(iter(container.streams.audio), None)
        if video is None and audio is None:
            raise MediaError(path, "holds neither picture nor sound", "not media")
        packets, end_seconds = _count_packets(container, video, audio)
        info = _describe(path, container, video, audio, packets)
    if video is not None:
        _check_picture(info, packets, limits)
    if end_seconds < 0.98 * info.duration_seconds - SLACK_SECONDS:
        ends = f"the container promises {info.duration_seconds:.2f} s, it ends after {end_seconds:.2f} s"
        raise MediaError(path, f"truncated: {ends}", "truncated")
    return info


def _count_packets(container: Any, video: Any, audio: Any) -> tuple[int, float]:
    """How many packets the picture has, and when the last packet of all ends, from the start of the file."""
    count, end_seconds = 0, 0.0
    start_seconds = (container.start_time or 0) / av.time_base
    for packet in container.demux([stream for stream in (video, audio) if stream is not None]):
        if packet.size and packet.stream is video:
            count += 1
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            end_seconds = max(end_seconds, end - start_seconds)
    return count, end_seconds


def _describe(path: str, container: Any, video: Any, audio: Any, packets: int) -> MediaInfo:
    seconds = container.duration / av.time_base if container.duration else 0.0
    rate = float(video.average_rate or video.guessed_rate or 0) if video is not None else 0.0
    return MediaInfo(
        path=path,
        container=container.format.name,
        duration_seconds=seconds or (packets / rate if rate else 0.0),
        width=video.width if video is not None else 0,
        height=video.height if video is not None else 0,
        frame_rate=rate,
        num_frames=(video.frames or packets) if video is not None else 0,
        has_audio=audio is not None,
        sample_rate_hz=audio.rate if audio is not None else None,
        num_channels=audio.channels if audio is not None else None,
        video_codec=video.codec.name if video is not None else None,
    )


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _check_picture(info: MediaInfo, packets: int, limits: Limits) -> None:
    if packets == 0:
        raise MediaError(info.path, "zero-length: its video stream holds no frames", "empty")
    if packets < info.num_frames:
        counts = f"the container promises {info.num_frames} frames, {packets} are there"
        raise MediaError(info.path, f"truncated: {counts}", "truncated")
    if info.width < 1 or info.height < 1 or not math.isfinite(info.frame_rate) or info.frame_rate <= 0:
        shape = f"{info.width}x{info.height} at {info.frame_rate} frames/s"
        raise MediaError(info.path, f"states no usable size and rate ({shape})", "damaged")
    check_pixels(info.path, info.width, info.height, limits)


def check_pixels(path: str, width: int, height: int, limits: Limits) -> None:
    """MediaError if one frame holds more pixels than the limit."""
    if width * height > limits.max_pixels:
        size = f"{width}x{height} is {width * height} pixels a frame, the limit is {limits.max_pixels}"
        raise MediaError(path, size, "too large")


def frame_indices(info: MediaInfo, request: dict[str, Any], limits: Limits) -> np.ndarray:
    """Which frames to decode: a strided span, or the frames nearest to the times of another frame rate."""
    start, stride, rate = request["start_frame"], request["stride"], request["frame_rate"]
    step = info.frame_rate / rate if rate else float(stride)
    available = max(0, math.ceil((info.num_frames - start) / step - 1e-6))
    num = available if request["num_frames"] is None else request["num_frames"]
    if start < 0 or num < 1 or step <= 0:
        raise MediaError(info.path, f"no span of {num} frames from frame {start} with step {step:g}", "span")
    if num > limits.max_frames:
        raise MediaError(info.path, f"{num} frames asked for, the limit is {limits.max_frames}", "too large")
    indices = start + np.floor(np.arange(num) * step + 0.5).astype(np.int64)
    if indices[-1] >= info.num_frames:
        asked = f"frame {indices[-1]} asked for, it has {info.num_frames}"
        raise MediaError(info.path, asked, "span")
    return indices


def read_frames(info: MediaInfo, indices: np.ndarray, limits: Limits) -> Iterator[np.ndarray]:
    """Yield uint8 [n, H, W, 3] chunks of exactly the frames asked for, decoded by decord."""
    import decord

    try:
        reader = decord.VideoReader(info.path, num_threads=1)
        if len(reader) < info.num_frames:
            counts = f"the container promises {info.num_frames} frames, the decoder finds {len(reader)}"
            raise MediaError(info.path, f"truncated: {counts}", "truncated")
        for begin in range(0, len(indices), CHUNK_FRAMES):
            part = indices[begin : begin + CHUNK_FRAMES]
            frames = reader.get_batch(part.tolist()).asnumpy()
            if len(frames) != len(part):
                counts = f"{len(frames)} of {len(part)} frames decoded from frame {part[0]} on"
                raise MediaError(info.path, f"truncated: {counts}", "truncated")
            check_pixels(info.path, frames.shape[2], frames.shape[1], limits)
            yield frames
    except (decord.DECORDError, RuntimeError) as error:
        raise MediaError(info.path, f"the decoder failed: {_last_line(error)}", "damaged") from error


def _last_line(error: Exception) -> str:
    found = re.search(r"(Check failed.*|Error.*)", str(error))
    return (found.group(0) if found else type(error).__name__)[:120]


def read_sound(path: str, start_seconds: float, stop_seconds: float) -> tuple[np.ndarray, int]:
    """Decode the sound between two times: float32 [C, N], its own rate, silent where the track is short."""
    parts: list[tuple[np.ndarray, int]] = []
    with open_container(path) as container:
        if not container.streams.audio:
            raise MediaError(path, "holds no sound", "not media")
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
        first, last = round(start_seconds * rate), round(stop_seconds * rate)
        sound = np.zeros((channels, max(0, last - first)), np.float32)
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        try:
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= stop_seconds:
                    break
                pieces = resampler.resample(frame)
                parts.extend((piece.to_ndarray(), round((piece.time or 0.0) * rate)) for piece in pieces)
                _place(sound, parts, first)
        except FFmpegError as error:
            raise MediaError(path, f"the sound cannot be decoded: {error.strerror}", "damaged") from error
    return sound, rate


def _place(sound: np.ndarray, parts: list, first: int) -> None:
    """Copy decoded pieces (samples, position) to where they belong in `sound`, and forget them."""
    for samples, position in parts:
        begin = max(position - first, 0)
        skip = max(first - position, 0)
        count = min(samples.shape[1] - skip, sound.shape[1] - begin)
        if count > 0:
            sound[:, begin : begin + count] = samples[:, skip : skip + count]
    parts.clear()


def read_picture(path: str, limits: Limits) -> np.ndarray:
    """Decode a still image to uint8 [H, W, 3]; its header is held against the pixel limit first."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=PICTURES) as image:
            check_pixels(path, image.width, image.height, limits)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise MediaError(
            path, f"cannot be identified as an image ({', '.join(PICTURES)})", "not media"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, f"the image cannot be decoded: {error}", "damaged") from error


def remux_sound(sound: str, video: str, out: str, container_format: str) -> None:
    """Write the pictures of `video` and the sound of `sound` to `out`, packets copied, nothing re-encoded."""
    with open_container(video) as pictures, open_container(sound) as sounds:
        if not pictures.streams.video:
            raise MediaError(video, "holds no picture to put sound to", "not media")
        if not sounds.streams.audio:
            raise MediaError(sound, "holds no sound to copy", "not media")
        picture, track = pictures.streams.video[0], sounds.streams.audio[0]
        length = (picture.duration or 0) * (picture.time_base or 0) or (pictures.duration or 0) / av.time_base
        try:
            with av.open(out, "w", format=container_format, options={"movflags": "+faststart"}) as target:
                pairs = [(pictures, picture), (sounds, track)]
                copies = [target.add_stream_from_template(stream) for _, stream in pairs]
                for packet, index in _in_time_order(pairs):
                    if index == 1 and packet.pts is not None and packet.pts * packet.time_base >= length:
                        continue
                    packet.stream = copies[index]
                    target.mux(packet)
        except (InvalidDataError, ValueError) as error:
            reason = f"its sound cannot be copied into {container_format}: {error}"
            raise MediaError(sound, reason, "write") from error


def _in_time_order(pairs: list[tuple[Any, Any]]) -> Iterator[tuple[Any, int]]:
    """Packets of several (container, stream) pairs in the order of their decoding times."""
    sources = [(p for p in container.demux(stream) if p.dts is not None) for container, stream in pairs]
    heads = [next(source, None) for source in sources]
    while any(head is not None for head in heads):
        times = [float(h.dts * h.time_base) if h is not None else math.inf for h in heads]
        index = times.index(min(times))
        yield heads[index], index
        heads[index] = next(sources[index], None)


def as_reply(info: MediaInfo) -> dict[str, Any]:
    """MediaInfo as plain values for the pipe."""
    return asdict(info)
