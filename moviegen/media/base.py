"""Values, limits and the one error of the media layer; numpy only, no torch.

Frames are uint8 [T, H, W, 3] in RGB; sound is float32 [C, N] in [-1, 1].
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNCOPYABLE = "uncopyable"
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}  # of results, by suffix


class MediaError(ValueError):
    """A file could not be read or written: one line, naming the file and the reason.

    `rule` is a short word for summaries: missing, empty, not media, truncated, damaged, too large, timeout,
    memory, crash, span, disk full, write, uncopyable (sound of a kind that fits no mp4), uncopyable pictures.
    """

    def __init__(self, name: str | os.PathLike[str], reason: str, rule: str = "damaged") -> None:
        self.name = os.fspath(name)
        self.reason = " ".join(reason.split())
        self.rule = rule
        super().__init__(f"{self.name}: {self.reason}")

    def __reduce__(self) -> tuple:
        """Errors cross process borders whole."""
        return type(self), (self.name, self.reason, self.rule)


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about its first video stream and its first sound stream."""

    path: str
    container: str
    duration_seconds: float
    width: int  # as shown, after any rotation; 0 where there is no picture
    height: int
    frame_rate: float
    num_frames: int  # at `frame_rate`; of a variable rate, after it has been made constant
    has_audio: bool
    sample_rate_hz: int | None
    num_channels: int | None
    video_codec: str | None
    start_seconds: float = 0.0  # when the first picture is shown, on the clock that the sound has too
    picture_seconds: float = (
        0.0  # from the first picture to the end of the last; of a constant rate, that of its frames
    )
    channel_layout: str | None = None  # of the sound, as PyAV names it
    remarks: tuple[
        str, ...
    ] = ()  # what reading changes: variable rate, rotation, 10 bits, alpha; tracks left out


@dataclass(frozen=True)
class Limits:
    """What one read of an untrusted file may cost the child process that does it."""

    seconds: float = 60.0  # wall clock and processor time; of a stream, each chunk
    memory_bytes: int = 2 << 30  # address space of the child
    max_pixels: int = 8192 * 4320  # of one frame
    max_frames: int = 20_000  # in one read
    max_bytes: int = 4 << 30  # that one read may hand over; of a stream, one chunk
    max_stream_frames: int = 2_000_000  # in one stream: 18 hours at 30 frames/s


@dataclass(frozen=True)
class DecodedClip:
    """Frames of one span and, if asked for, its sound."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    frame_rate: float  # frames per second of `frames`
    audio: np.ndarray | None = None  # float32 [C, N]
    sample_rate_hz: int | None = None


def check_readable(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a non-empty regular file; raise MediaError otherwise, also for any url."""
    text = os.fspath(path)
    if "://" in text or text.startswith("pipe:"):
        raise MediaError(text, "is a url; only local files are read", "not media")
    found = Path(text)
    if not found.exists():
        raise MediaError(text, "no such file", "missing")
    if not found.is_file():
        raise MediaError(text, "is not a regular file", "not media")
    if found.stat().st_size == 0:
        raise MediaError(text, "is empty (0 bytes)", "empty")
    return found.resolve()


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`; rename it to `path` on success, remove it on any error.

    Errors of the operating system (a full disk) become a MediaError that names `path`.
    """
    final = Path(path)
    temporary: Path | None = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.name}.", suffix=".tmp")
        temporary = Path(name)
        os.close(handle)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(final)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, MediaError):
            raise write_error(final, error) from error
        raise


def write_error(path: str | os.PathLike[str], error: OSError) -> MediaError:
    """The one-line form of an operating system error met while writing `path`."""
    if error.errno == errno.ENOSPC:
        return MediaError(path, "cannot be written: the disk is full", "disk full")
    return MediaError(path, f"cannot be written: {error.strerror or error}", "write")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
