"""Puts the sound of an untrusted file to pictures: runs only inside the sandboxed child process.

Packets are copied as they are, or decoded and encoded as AAC where their kind fits no mp4. The clock of the sound is
moved so that the first picture of its own file stands at 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from itertools import chain
from typing import Any

import av
from av.error import FFmpegError, InvalidDataError

from moviegen.media.base import CONTAINERS, UNCOPYABLE, MediaError
from moviegen.media.untrusted import open_container, picture_stream

# Time stamps that jump ahead by more are a gap in the sound; by less, the rounding of a container.
GAP_SECONDS = 0.05
AAC_BITS_PER_SECOND = 128_000  # of one channel, as in writing.py


def remux_sound(sound: str, request: dict[str, Any]) -> None:
    """Write the pictures of request["video"] and the sound of `sound` to request["out"]."""
    video, out, container_format = request["video"], request["out"], request["format"]
    with open_container(video) as pictures, open_container(sound) as sounds:
        picture = _picture(video, pictures, container_format)
        if not sounds.streams.audio:
            raise MediaError(sound, "holds no sound to copy", "not media")
        track = sounds.streams.audio[0]
        stated = (picture.duration or 0) * (picture.time_base or 0) or (pictures.duration or 0) / av.time_base
        length = stated if request["seconds"] is None else request["seconds"]
        start = request["start_seconds"]
        # An edit list says where sound ends, in units of the movie: those of 1/1000 s, the usual ones, are no samples.
        scale = str(_encoded_rate(track) if request["encode"] else track.rate)
        options = (
            {"movflags": "+faststart", "movie_timescale": scale} if container_format != "matroska" else {}
        )
        try:
            with av.open(out, "w", format=container_format, options=options) as target:
                copy = target.add_stream_from_template(picture, opaque=True)
                if request["encode"]:
                    heard = _encoded(target, sounds, track, start)
                else:
                    heard = _copied(target, sounds, track, start)
                for packet in _in_time_order(_packets(pictures, picture, copy), heard):
                    if packet.stream is copy or packet.pts is None or packet.pts * packet.time_base < length:
                        target.mux(packet)
        except (InvalidDataError, ValueError) as error:
            reason = f"its sound cannot be copied into {container_format}: {error}"
            raise MediaError(sound, reason, UNCOPYABLE) from error


def check_pictures(video: str, container_format: str) -> None:
    """MediaError where the pictures of a file cannot be copied into a container; nothing is written."""
    with open_container(video) as pictures:
        _picture(video, pictures, container_format)


def _picture(video: str, pictures: Any, container_format: str) -> Any:
    """The stream of pictures, which the container takes; MediaError where there is none, or it does not."""
    picture = picture_stream(pictures)
    if picture is None:
        raise MediaError(video, "holds no picture to put sound to", "not media")
    if not _takes(container_format, picture):
        suffixes = {kind: suffix for suffix, kind in reversed(CONTAINERS.items())}  # the first of each kind
        others = [suffixes[kind] for kind in dict.fromkeys(CONTAINERS.values()) if _takes(kind, picture)]
        advice = f"give a name that ends in {' or '.join(others)}" if others else "convert it to H.264 first"
        kind = picture.codec_context.codec.canonical_name
        reason = f"its pictures ({kind}) cannot be copied into {container_format}; {advice}"
        raise MediaError(video, reason, "uncopyable pictures")
    return picture


def _takes(container_format: str, picture: Any) -> bool:
    """Whether a container takes pictures of a kind, as the head of a file without packets shows."""
    try:
        with av.open(BytesIO(), "w", format=container_format) as nowhere:
            # opaque: packets are copied, so that no encoder of their kind is needed (AV1's decoder has none)
            nowhere.add_stream_from_template(picture, opaque=True)
            nowhere.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def _packets(container: Any, stream: Any, copy: Any) -> Iterator[Any]:
    """The packets of a stream, for another. The first ones of a matroska file may lack a decoding time.

    Such get one each before the first that is known, as far apart as pictures are.
    """
    waiting: list[Any] = []
    for packet in container.demux(stream):
        if packet.dts is None:
            waiting += [packet] if packet.size else []
            continue
        step = packet.duration or 1
        for number, early in enumerate(waiting):
            early.dts = packet.dts - (len(waiting) - number) * step
        for each in (*waiting, packet):
            each.stream = copy
            yield each
        waiting = []


def _copied(target: Any, container: Any, track: Any, start_seconds: float) -> Iterator[Any]:
    """The packets of a track with `start_seconds` at 0; one that ends there stays, for decoders need it to begin."""
    copy = target.add_stream_from_template(track)
    shift = round(start_seconds / track.time_base)
    for packet in _packets(container, track, copy):
        if packet.pts is not None:
            packet.pts -= shift
        packet.dts -= shift
        if shift == 0 or (packet.pts or packet.dts) + (packet.duration or 0) >= 0:
            yield packet


def _encoded(target: Any, container: Any, track: Any, start_seconds: float) -> Iterator[Any]:
    """The sound of a track as AAC packets, `start_seconds` at 0, a frame at a time."""
    layout = "mono" if track.channels == 1 else "stereo"
    rate = _encoded_rate(track)
    encoder = target.add_stream("aac", rate=rate, layout=layout, format="fltp")
    encoder.bit_rate = AAC_BITS_PER_SECOND * (1 if layout == "mono" else 2)
    encoder.options = {"aac_coder": "fast"}
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    return _run_encoder(encoder, resampler, container.decode(track), round(start_seconds * rate))


def _encoded_rate(track: Any) -> int:
    return track.rate if track.rate in (32_000, 44_100, 48_000) else 48_000  # that every player takes


def _run_encoder(encoder: Any, resampler: Any, frames: Iterator[Any], shift: int) -> Iterator[Any]:
    rate: int = encoder.rate
    position: int | None = None  # of the next sample
    for frame in chain(frames, [None]):
        for piece in resampler.resample(frame):
            if piece.pts is not None:
                stated = round(piece.pts * piece.time_base * rate) - shift
                if position is None or stated > position + GAP_SECONDS * rate:
                    position = stated
            piece.pts, piece.time_base = position or 0, Fraction(1, rate)
            position = piece.pts + piece.samples
            if piece.pts >= 0:
                yield from encoder.encode(piece)
    yield from encoder.encode(None)


def _in_time_order(*sources: Iterator[Any]) -> Iterator[Any]:
    """Packets of several streams in the order of their decoding times."""
    heads = [next(source, None) for source in sources]
    while any(head is not None for head in heads):
        times = [float(h.dts * h.time_base) if h is not None else math.inf for h in heads]
        index = times.index(min(times))
        yield heads[index]
        heads[index] = next(sources[index], None)
