"""Writing: H.264 video with AAC sound, FLAC, PNG, JPEG, stream copy of sound; never a half-written file."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from moviegen.media.base import CONTAINERS, Limits, MediaError, atomic_path, check_readable, write_error
from moviegen.media.sandbox import ask

AUDIO_CHUNK = 1024
SMALL_PIXELS = 256 * 256
# YCbCr of BT.601, said in the file, so that every player and decoder turns it back into the same RGB.
COLOR = {"color_range": "tv"} | dict.fromkeys(("colorspace", "color_primaries", "color_trc"), "smpte170m")


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray] | np.ndarray,
    frame_rate: float,
    audio: np.ndarray | None = None,
    sample_rate_hz: int | None = None,
    crf: float = 18,
) -> None:
    """Write an mp4 that plays in a browser: H.264 yuv420p, index in front, AAC sound.

    Frames are encoded as they come, so memory stays flat.

    Args:
        path: where; appears only when complete.
        frames: uint8 [H, W, 3] each, of one even size; any iterable, or an array [T, H, W, 3].
        frame_rate: frames per second.
        audio: float32 [C, N] in [-1, 1], C 1 or 2; needs `sample_rate_hz`.
        crf: quality, 0 (lossless) to 51.

    Raises:
        MediaError: for frames or sound of the wrong form, or where the file cannot be written (a full disk).
    """
    sound = _checked_sound(path, audio, sample_rate_hz)
    if frame_rate <= 0:
        raise MediaError(path, f"frame rate must be above 0, not {frame_rate}", "write")
    with atomic_path(path) as temporary:
        options = {"movflags": "+faststart"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            _encode(container, _checked_frames(path, frames), frame_rate, crf, sound, sample_rate_hz)


def write_clip(stem: str | os.PathLike[str], frames: np.ndarray, frame_rate: float, crf: float = 18) -> Path:
    """Write uint8 frames [T, H, W, 3] to `<stem>.mp4`, or a single one, losslessly, to `<stem>.png`; returns the path.

    Raises MediaError as `write_video` does.
    """
    path = Path(f"{os.fspath(stem)}{clip_suffix(len(frames))}")
    if len(frames) > 1:
        write_video(path, frames, frame_rate, crf=crf)
        return path
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_png_bytes(frames[0]))
    return path


def clip_suffix(num_frames: int) -> str:
    """What the name of a clip of so many frames ends in."""
    return ".mp4" if num_frames > 1 else ".png"


def encode_video(
    frames: Iterable[np.ndarray] | np.ndarray,
    frame_rate: float,
    audio: np.ndarray | None = None,
    sample_rate_hz: int | None = None,
    crf: float = 18,
) -> bytes:
    """The bytes of what `write_video` would write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, frame_rate, audio, sample_rate_hz, crf)
        return path.read_bytes()


def write_flac(path: str | os.PathLike[str], audio: np.ndarray, sample_rate_hz: int) -> None:
    """Write float32 [C, N] sound in [-1, 1] as 24-bit FLAC, losslessly within that depth."""
    sound = _checked_sound(path, audio, sample_rate_hz)
    assert sound is not None
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate_hz, layout=_layout(sound), format="s32")
        stream.codec_context.options = {"strict": "experimental"}
        for packet in _sound_packets(stream, sound, sample_rate_hz, "s32", 4096):
            container.mux(packet)


def encode_flac(audio: np.ndarray, sample_rate_hz: int) -> bytes:
    """The bytes of what `write_flac` would write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.flac"
        write_flac(path, audio, sample_rate_hz)
        return path.read_bytes()


class VideoWriter:
    """A mute mp4 that takes its frames one by one, as `write_video` would write it; a context manager.

    The file appears only when the context ends without an error; `write` and the end raise MediaError.
    """

    def __init__(self, path: str | os.PathLike[str], frame_rate: float, crf: float = 18) -> None:
        self.path, self.frame_rate, self.crf = path, frame_rate, crf
        self.num_frames = 0
        self._rate = _rate(frame_rate)

    def __enter__(self) -> VideoWriter:
        self._size: tuple[int, ...] | None = None
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_path(self.path))
        options = {"movflags": "+faststart"}
        try:
            opened = av.open(str(temporary), "w", format="mp4", options=options)
            self._container = self._stack.enter_context(opened)
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Encode one frame, uint8 [H, W, 3] of one even size."""
        check_frame(self.path, frame, self._size)
        try:
            if self._size is None:
                self._picture = _add_picture(self._container, frame, self.frame_rate, self.crf)
            self._container.mux(self._picture.encode(_to_yuv(frame, self.num_frames, self._rate)))
        except OSError as error:
            raise write_error(self.path, error) from error
        self._size = frame.shape
        self.num_frames += 1

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            try:
                if self._size is None:
                    raise MediaError(self.path, "no frames to write", "write")
                self._container.mux(self._picture.encode(None))
            except BaseException:
                self._stack.__exit__(*sys.exc_info())
                raise
        self._stack.__exit__(*error)


def copy_audio(
    source: str | os.PathLike[str],
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    start_seconds: float = 0.0,
    encode: bool = False,
    limits: Limits | None = None,
    seconds: float | None = None,
) -> None:
    """Write the pictures of `video` with the sound of `source` to `out`, packets copied, in the sandbox.

    Sound beyond the end of the pictures is left out. MediaError where there is none, or it fits no mp4; for pictures
    see `check_pictures`.

    Args:
        start_seconds: when, on the clock of `source`, the pictures begin; sound before it is left out.
        encode: write the sound as AAC instead of copying it, for a kind that fits no mp4 (rule "uncopyable").
        limits: what the copy may cost.
        seconds: on the clock of the result, when sound ends; where the container says that pictures do, unless given.
    """
    sound, pictures = check_readable(source), check_readable(video)
    with atomic_path(out) as temporary:
        message: dict[str, Any] = {
            "op": "remux",
            "path": str(sound),
            "video": str(pictures),
            "out": str(temporary),
            "start_seconds": start_seconds,
            "encode": encode,
            "seconds": seconds,
        }
        message["format"] = _format(out)
        try:
            ask(message, limits or Limits())
        except MediaError as error:
            named = {str(sound): source, str(pictures): video, str(temporary): out}
            raise MediaError(named.get(error.name, error.name), error.reason, error.rule) from None


def check_pictures(video: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Raise MediaError where the pictures of an untrusted `video` cannot be copied into a file of the name `out`."""
    found = check_readable(video)
    try:
        ask({"op": "check_pictures", "path": str(found), "format": _format(out)}, Limits())
    except MediaError as error:
        raise MediaError(video, error.reason, error.rule) from None


def _format(out: str | os.PathLike[str]) -> str:
    return CONTAINERS.get(Path(out).suffix.lower(), "mp4")


def to_png_bytes(image: np.ndarray) -> bytes:
    """Encode uint8 [H, W, 3] as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Pixels uint8 [H, W, 3] as they come back from JPEG of a quality (1 to 95)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer, formats=["JPEG"]))


def _checked_sound(
    path: str | os.PathLike[str], audio: np.ndarray | None, sample_rate_hz: int | None
) -> np.ndarray | None:
    if audio is None:
        return None
    if audio.ndim != 2 or audio.shape[0] not in (1, 2) or not sample_rate_hz:
        stated = f"shape {audio.shape}, rate {sample_rate_hz}"
        raise MediaError(path, f"sound must be [1 or 2, N] with a sample rate, not {stated}", "write")
    if not np.isfinite(audio).all():
        raise MediaError(path, "sound holds values that are not finite", "write")
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def _checked_frames(path: str | os.PathLike[str], frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    size: tuple[int, ...] | None = None
    for frame in frames:
        check_frame(path, frame, size)
        size = frame.shape
        yield frame
    if size is None:
        raise MediaError(path, "no frames to write", "write")


def check_frame(path: str | os.PathLike[str], frame: np.ndarray, size: tuple[int, ...] | None) -> None:
    """MediaError for a frame that is not uint8 [H, W, 3], of odd size, or not of the `size` of those before it."""
    size = size or frame.shape
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != size:
        stated = f"{frame.dtype} {frame.shape} after {size}"
        raise MediaError(path, f"frames must be uint8 [H, W, 3] of one size, not {stated}", "write")
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        stated = f"{frame.shape[1]}x{frame.shape[0]}"
        raise MediaError(path, f"frames must have even sizes for yuv420p, not {stated}", "write")


def _add_picture(container: Any, first: np.ndarray, frame_rate: float, crf: float) -> Any:
    """The H.264 stream for frames like `first`."""
    picture = container.add_stream("libx264", rate=_rate(frame_rate))
    picture.height, picture.width = first.shape[:2]
    picture.pix_fmt = "yuv420p"
    options = {"crf": str(crf), "preset": "medium"} | COLOR
    if first.shape[0] * first.shape[1] <= SMALL_PIXELS:
        # One thread, and no lookahead: on pictures this small its estimates differ from run to run (seen at
        # 32x32), and without them the same frames give the same bytes.
        options |= {"threads": "1", "x264-params": "rc-lookahead=0:mbtree=0"}
    picture.options = options
    return picture


def _rate(frame_rate: float) -> Fraction:
    return Fraction(frame_rate).limit_denominator(100_000)


def _to_yuv(array: np.ndarray, number: int, rate: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
    frame.pts, frame.time_base = number, 1 / rate
    return frame


def _encode(
    container: Any,
    frames: Iterator[np.ndarray],
    frame_rate: float,
    crf: float,
    audio: np.ndarray | None,
    sample_rate_hz: int | None,
) -> None:
    """Encode pictures and sound side by side, so that the muxer never has to hold one of them back."""
    first = next(frames)
    picture = _add_picture(container, first, frame_rate, crf)
    rate = _rate(frame_rate)
    sounds: Iterator[Any] = iter(())
    if audio is not None:
        assert sample_rate_hz is not None
        track = container.add_stream("aac", rate=sample_rate_hz, layout=_layout(audio), format="fltp")
        track.bit_rate = 128_000 * len(audio)
        # The default search (twoloop) starves the first two frames of a short sound: errors of 0.4 of full
        # scale over the first 20 ms of a steady tone, against 0.01 with this one.
        track.options = {"aac_coder": "fast"}
        sounds = _sound_packets(track, audio, sample_rate_hz, "fltp", AUDIO_CHUNK)
    written = 0.0  # seconds of sound muxed so far
    for number, array in enumerate(chain([first], frames)):
        while written < number / frame_rate and (packet := next(sounds, None)) is not None:
            written = float((packet.pts or 0) * packet.time_base)
            container.mux(packet)
        container.mux(picture.encode(_to_yuv(array, number, rate)))
    container.mux(picture.encode(None))
    for packet in sounds:
        container.mux(packet)


def _sound_packets(
    stream: Any, audio: np.ndarray, sample_rate_hz: int, sample_format: str, chunk: int
) -> Iterator[Any]:
    """Encoded packets of float32 [C, N] sound, a chunk at a time."""
    for begin in range(0, audio.shape[1], chunk):
        yield from stream.encode(
            sound_frame(audio[:, begin : begin + chunk], begin, sample_rate_hz, sample_format)
        )
    yield from stream.encode(None)


def sound_frame(audio: np.ndarray, position: int, sample_rate_hz: int, sample_format: str) -> av.AudioFrame:
    """Float [C, N] sound as a frame for an encoder of fltp, or of s32 with 24 bits, from sample `position` on."""
    part = np.ascontiguousarray(audio, np.float32)
    if sample_format == "s32":
        levels = np.clip(np.round(part.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
        part = np.ascontiguousarray((levels.astype(np.int32) << 8).T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(part, format=sample_format, layout=_layout(audio))
    frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, position, Fraction(1, sample_rate_hz)
    return frame


def _layout(audio: np.ndarray) -> str:
    return "mono" if len(audio) == 1 else "stereo"
