"""Reading of untrusted files: runs only inside the sandboxed child process (see sandbox.py).

All goes through PyAV with a fixed list of demuxers and the `file` protocol alone, so a playlist cannot name other
files or addresses; decord, which reads our own shards, cannot be told either. Probing, sound and still images are here;
frames are in pictures.py.
"""

from __future__ import annotations

import math
import warnings
from array import array
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from moviegen.media import pixelformats
from moviegen.media.base import Limits, MediaError, MediaInfo
from moviegen.media.timeline import Timeline, even_timeline, read_timeline

FORMATS = "mov,mp4,m4a,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,ivf,wav,flac,mp3,aac"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
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


@dataclass(frozen=True)
class Scan:
    """What one pass over the packets of a file told."""

    info: MediaInfo
    timeline: Timeline | None  # None where there is no picture


def probe_file(path: str, limits: Limits) -> Scan:
    """Read the headers and all packets, hold them against what the container promises, look at the first picture."""
    with open_container(path) as container:
        video = picture_stream(container)
        audio = next(iter(container.streams.audio), None)
        if video is None and audio is None:
            raise MediaError(path, "holds neither picture nor sound", "not media")
        packets = _read_packets(container, video, audio)
        timeline = _timeline(container, video, packets) if video is not None else None
        info = _describe(path, container, audio, packets, video, timeline)
        promised = video.frames if video is not None else 0
    if video is not None:
        _check_picture(info, promised, packets, limits)
        info = _look(info, timeline)
    if packets.end_seconds < 0.98 * info.duration_seconds - SLACK_SECONDS:
        ends = (
            f"the container promises {info.duration_seconds:.2f} s, it ends after {packets.end_seconds:.2f} s"
        )
        raise MediaError(path, f"truncated: {ends}", "truncated")
    return Scan(info, timeline)


def picture_stream(container: Any) -> Any:
    """The first video stream that is no cover picture; None where there is none."""
    return next((s for s in container.streams.video if not _is_cover(s)), None)


@dataclass
class _Packets:
    """Counts and time stamps over the packets of a file."""

    pictures: int = 0
    stamps: array[int] = field(default_factory=lambda: array("q"))  # of the pictures that are shown
    without_stamp: int = 0
    last_stamp: int = -(1 << 63)
    last_duration: int = 0  # of the picture that is shown last; pictures may be stored in another order
    end_seconds: float = 0.0  # of the last packet of all, from the start of the file


def _read_packets(container: Any, video: Any, audio: Any) -> _Packets:
    found = _Packets()
    start_seconds = (container.start_time or 0) / av.time_base
    for packet in container.demux([stream for stream in (video, audio) if stream is not None]):
        if packet.size and packet.stream is video:
            found.pictures += 1
            stamp = packet.dts if _stamps_decoding(container) else packet.pts
            if stamp is None:
                found.without_stamp += 1
            elif not packet.is_discard:
                found.stamps.append(stamp)
                if stamp >= found.last_stamp:
                    found.last_stamp, found.last_duration = stamp, packet.duration or 0
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            found.end_seconds = max(found.end_seconds, end - start_seconds)
    return found


def _timeline(container: Any, video: Any, packets: _Packets) -> Timeline:
    stated = [float(rate or 0) for rate in (video.average_rate, video.guessed_rate)]
    if packets.without_stamp or not packets.stamps:
        return even_timeline(packets.pictures, stated[0] or stated[1])
    stamps = np.array(packets.stamps, np.int64)
    timeline = read_timeline(stamps, _last_duration(video, packets), float(video.time_base), stated)
    return replace(timeline, stamps=None) if _stamps_decoding(container) else timeline


def _last_duration(video: Any, packets: _Packets) -> int:
    """How long the last picture is shown, in units of the stream: up to the end of the track where that is stated.

    In an mp4 the durations of packets are distances in decoding, which is another order than that of showing.
    """
    end = (video.start_time or 0) + (video.duration or 0)
    return end - packets.last_stamp if end > packets.last_stamp else packets.last_duration


def _stamps_decoding(container: Any) -> bool:
    """Whether a container tells when a picture is decoded, and not, where pictures refer to later ones, when shown."""
    return container.format.name in ("avi", "asf")


def _describe(
    path: str, container: Any, audio: Any, packets: _Packets, video: Any, timeline: Timeline | None
) -> MediaInfo:
    seconds = container.duration / av.time_base if container.duration else 0.0
    rate, tracks = timeline.frame_rate if timeline else 0.0, len(container.streams.audio)
    return MediaInfo(
        path=path,
        container=container.format.name,
        duration_seconds=seconds or (packets.pictures / rate if rate else 0.0),
        width=video.width if video is not None else 0,
        height=video.height if video is not None else 0,
        frame_rate=rate,
        num_frames=timeline.num_frames if timeline else 0,
        has_audio=audio is not None,
        sample_rate_hz=audio.rate if audio is not None else None,
        num_channels=audio.channels if audio is not None else None,
        video_codec=video.codec.name if video is not None else None,
        start_seconds=timeline.start_seconds if timeline else 0.0,
        remarks=(f"the first of its {tracks} sound tracks is used",) if tracks > 1 else (),
        picture_seconds=timeline.seconds if timeline else 0.0,
        channel_layout=audio.layout.name if audio is not None else None,
    )


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _check_picture(info: MediaInfo, promised: int, packets: _Packets, limits: Limits) -> None:
    if packets.pictures == 0:
        raise MediaError(info.path, "zero-length: its video stream holds no frames", "empty")
    if packets.pictures < promised:
        counts = f"the container promises {promised} frames, {packets.pictures} are there"
        raise MediaError(info.path, f"truncated: {counts}", "truncated")
    if info.width < 1 or info.height < 1 or not math.isfinite(info.frame_rate) or info.frame_rate <= 0:
        shape = f"{info.width}x{info.height} at {info.frame_rate} frames/s"
        raise MediaError(info.path, f"states no usable size and rate ({shape})", "damaged")
    check_pixels(info.path, info.width, info.height, limits)


def _look(info: MediaInfo, timeline: Timeline | None) -> MediaInfo:
    """Decode the first picture: the size as shown, and what reading changes. One that fails is left to the reader."""
    with open_container(info.path) as container:
        stream = picture_stream(container)
        try:
            frame = next(container.decode(stream), None)
        except FFmpegError:
            return info
        if frame is None:
            return info
        remarks = tuple(pixelformats.remarks(info.path, stream, frame))
        turned = pixelformats.quarter_turns(info.path, frame) % 2
    if timeline is not None and not timeline.is_constant:
        retimed = (
            f"its frame rate varies: read at {info.frame_rate:.4g} frames/s, frames repeated or left out"
        )
        remarks = (retimed, *remarks)
    width, height = (info.height, info.width) if turned else (info.width, info.height)
    return replace(info, width=width, height=height, remarks=(*info.remarks, *remarks))


def check_pixels(path: str, width: int, height: int, limits: Limits) -> None:
    """MediaError if one frame holds more pixels than the limit."""
    if width * height > limits.max_pixels:
        size = f"{width}x{height} is {width * height} pixels a frame, the limit is {limits.max_pixels}"
        raise MediaError(path, size, "too large")


def frame_indices(info: MediaInfo, request: dict[str, Any], limits: Limits) -> np.ndarray:
    """Which frames to decode: a strided span, or the frames nearest to the times of another frame rate."""
    start, stride, rate = request["start_frame"], request["stride"], request["frame_rate"]
    step = info.frame_rate / rate if rate else float(stride)
    available = max(
        0, math.ceil((info.num_frames - start - 0.5) / step - 1e-6)
    )  # places are rounded, see below
    num = available if request["num_frames"] is None else request["num_frames"]
    if start < 0 or num < 1 or step <= 0:
        raise MediaError(info.path, f"no span of {num} frames from frame {start} with step {step:g}", "span")
    most = limits.max_stream_frames if request.get("stream") else limits.max_frames
    if num > most:
        raise MediaError(info.path, f"{num} frames asked for, the limit is {most}", "too large")
    indices = start + np.floor(np.arange(num) * step + 0.5).astype(np.int64)
    if indices[-1] >= info.num_frames:
        asked = f"frame {indices[-1]} asked for, it has {info.num_frames}"
        raise MediaError(info.path, asked, "span")
    return indices


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


def read_picture(path: str, limits: Limits, plain: bool = False) -> np.ndarray:
    """Decode a still image to uint8 [H, W, 3]; its header is held against the pixel limit first.

    With `plain`, MediaError for one that is see-through or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path, formats=PICTURES) as image:
            check_pixels(path, image.width, image.height, limits)
            if plain:
                _check_plain(path, image)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise MediaError(
            path, f"cannot be identified as an image ({', '.join(PICTURES)})", "not media"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(path, f"the image cannot be decoded: {error}", "damaged") from error


def _check_plain(path: str, image: Any) -> None:
    if image.mode.startswith("I") or image.mode == "F" or _bits(path, image) > 8:
        raise MediaError(path, "has 16 bits a channel; save it with 8", "16 bit")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema()[0] < 255:
        raise MediaError(path, "is transparent in places; save it on an opaque background", "transparent")


def _bits(path: str, image: Any) -> int:
    """Bits of a channel as the file has them; Pillow makes 8 of a colored PNG's 16 without a word."""
    if image.format == "PNG":
        with Path(path).open("rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))
    return 8


def as_reply(info: MediaInfo) -> dict[str, Any]:
    """MediaInfo as plain values for the pipe."""
    return asdict(info)
