"""Make the two videos of an item equal in everything but content: size, frame rate, length, loudness, encoding.

Nothing is invented: the smaller size, the lower rate and the shorter length of the two are what both get. Both are
encoded anew, with the same settings, also where nothing else had to change; names, titles and dates are lost.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moviegen_eval.files import write_atomically
from moviegen_eval.study.loudness import equal_gains
from PIL import Image

from moviegen.media import (
    MediaError,
    MediaInfo,
    probe,
    read_image,
    read_sound,
    resample_audio,
    stream_clip,
    to_png_bytes,
    write_video,
)

SAMPLE_RATE_HZ = 48_000
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}  # of references; all else is read as a video
SAME_ASPECT = 0.02  # relative difference up to which a picture is stretched rather than given bars


@dataclass(frozen=True)
class EqualizeRules:
    """What may be done. Pairs that are more unlike than this are refused: the comparison would not be fair."""

    max_side: int = 1280  # pixels of the longer side that raters see
    max_length_ratio: float = 4.0
    max_rate_ratio: float = 4.0
    max_size_ratio: float = 4.0  # of the heights
    loudness_lufs: float = -23.0
    crf: float = 16.0


@dataclass(frozen=True)
class Form:
    """What both videos of a pair become, and what had to be done for it."""

    width: int
    height: int
    frame_rate: float
    num_frames: int
    notes: tuple[str, ...]

    @property
    def duration_seconds(self) -> float:
        return self.num_frames / self.frame_rate


def common_form(first: MediaInfo, second: MediaInfo, rules: EqualizeRules, sound: bool) -> Form:
    """The form of a pair. Raises ValueError of one line where the two are too unlike, or sound is missing."""
    both = (first, second)
    for info in both:
        if not info.width or not info.num_frames:
            raise MediaError(info.path, "holds no pictures", "not media")
        if sound and not info.has_audio:
            raise MediaError(
                info.path, "holds no sound, and an axis of the study is judged with it", "not media"
            )
    _check_ratio(
        "lengths", [info.num_frames / info.frame_rate for info in both], rules.max_length_ratio, both
    )
    _check_ratio("frame rates", [info.frame_rate for info in both], rules.max_rate_ratio, both)
    _check_ratio("heights", [info.height for info in both], rules.max_size_ratio, both)
    rate = min(info.frame_rate for info in both)
    seconds = min(info.num_frames / info.frame_rate for info in both)
    num_frames = max(1, math.floor(seconds * rate + 1e-6))
    width, height = _box(both, rules.max_side)
    return Form(width, height, rate, num_frames, tuple(_notes(both, width, height, rate, num_frames, sound)))


def write_pair(
    sources: tuple[Path, Path], targets: tuple[Path, Path], rules: EqualizeRules, sound: bool
) -> tuple[Form, float | None]:
    """Write both videos of an item in their common form; the form and the loudness of both (LUFS)."""
    infos = probe(sources[0]), probe(sources[1])
    form = common_form(*infos, rules, sound)
    sounds: list[np.ndarray | None] = [None, None]
    loudness = None
    if sound:
        heard = [_sound(path, form.duration_seconds) for path in sources]
        first, second, loudness = equal_gains(
            (heard[0], SAMPLE_RATE_HZ), (heard[1], SAMPLE_RATE_HZ), rules.loudness_lufs
        )
        sounds = [heard[0] * first, heard[1] * second]
    for source, target, audio in zip(sources, targets, sounds, strict=True):
        rate = None if audio is None else SAMPLE_RATE_HZ
        write_video(target, frames_as(source, form), form.frame_rate, audio, rate, rules.crf)
        os.utime(target, (0, 0))  # the time of writing is served with a file, and says nothing now
    return form, loudness


def write_reference(source: Path, target: Path, rules: EqualizeRules) -> Path:
    """Write what a pair is held against to `target` with a suffix: a picture as png, a video as mp4 without sound."""
    if source.suffix.lower() in PICTURES:
        picture = Image.fromarray(read_image(source))
        picture.thumbnail((rules.max_side, rules.max_side), Image.Resampling.LANCZOS)
        written = target.with_suffix(".png")
        write_atomically(written, to_png_bytes(np.asarray(picture)))
    else:
        info = probe(source)
        if not info.width or not info.num_frames:
            raise MediaError(source, "holds no pictures", "not media")
        form = Form(*_box((info, info), rules.max_side), info.frame_rate, info.num_frames, ())
        written = target.with_suffix(".mp4")
        write_video(written, frames_as(source, form), form.frame_rate, crf=rules.crf)
    os.utime(written, (0, 0))
    return written


def frames_as(path: Path, form: Form) -> Iterator[np.ndarray]:
    """The frames of a video in another form: those nearest in time, scaled, with bars where the aspect differs."""
    with stream_clip(path) as (info, chunks):
        step = info.frame_rate / form.frame_rate
        written, position = 0, 0
        last = None
        for chunk in chunks:
            for frame in chunk:
                last = frame
                while written < form.num_frames and math.floor(written * step + 0.5) == position:
                    yield _fitted(frame, form)
                    written += 1
                position += 1
            if written == form.num_frames:
                return
        if last is None or form.num_frames - written > 1:
            raise MediaError(path, f"ends after {position} of {info.num_frames} frames", "truncated")
        yield from (_fitted(last, form) for _ in range(form.num_frames - written))  # rounding at the end


def _fitted(frame: np.ndarray, form: Form) -> np.ndarray:
    height, width = frame.shape[:2]
    if (width, height) == (form.width, form.height):
        return frame
    scale = min(form.width / width, form.height / height)
    size = round(width * scale), round(height * scale)
    stretched = abs(width * form.height / (height * form.width) - 1) <= SAME_ASPECT
    if stretched:
        size = form.width, form.height
    picture = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
    if stretched:
        return picture
    canvas = np.zeros((form.height, form.width, 3), np.uint8)
    top, left = (form.height - size[1]) // 2, (form.width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = picture
    return canvas


def _box(both: tuple[MediaInfo, MediaInfo], max_side: int) -> tuple[int, int]:
    """Width and height: both scaled to the smaller height; the wider aspect gives the width."""
    height = float(min(info.height for info in both))
    width = height * max(info.width / info.height for info in both)
    shrink = min(1.0, max_side / max(width, height))
    return _even(width * shrink), _even(height * shrink)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _sound(path: Path, seconds: float) -> np.ndarray:
    """The first seconds of a video's sound: float32 [2, N] at 48 kHz, with silence where it ends early."""
    audio, rate = read_sound(path, 0.0, seconds)
    audio = resample_audio(audio, rate, SAMPLE_RATE_HZ, 2)
    length = round(seconds * SAMPLE_RATE_HZ)
    return np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1]))))


def _check_ratio(what: str, values: list[float], limit: float, both: tuple[MediaInfo, MediaInfo]) -> None:
    ratio = max(values) / min(values)
    if ratio > limit:
        raise ValueError(
            f"{both[0].path} and {both[1].path}: {what} {values[0]:g} and {values[1]:g} differ by a factor of "
            f"{ratio:.2f}, the limit is {limit:g}: no fair comparison"
        )


def _notes(
    both: tuple[MediaInfo, MediaInfo], width: int, height: int, rate: float, num_frames: int, sound: bool
) -> Iterator[str]:
    sizes = [f"{info.width}x{info.height}" for info in both]
    if sizes != [f"{width}x{height}"] * 2:
        yield f"size: {sizes[0]} and {sizes[1]} became {width}x{height}"
    aspects = [info.width / info.height for info in both]
    unlike = [
        size for size, own in zip(sizes, aspects, strict=True) if abs(own * height / width - 1) > SAME_ASPECT
    ]
    if unlike:
        yield f"black bars: around {' and '.join(unlike)}, of another aspect than {width}x{height}"
    if any(info.frame_rate != rate for info in both):
        yield f"frame rate: {both[0].frame_rate:g} and {both[1].frame_rate:g} became {rate:g}"
    seconds = [info.num_frames / info.frame_rate for info in both]
    if any(abs(length - num_frames / rate) > 0.5 / rate for length in seconds):
        yield f"length: {seconds[0]:.2f} s and {seconds[1]:.2f} s became {num_frames / rate:.2f} s"
    if not sound and any(info.has_audio for info in both):
        yield "sound: left out, for no axis is judged with it"
