"""Sources and edited files: frames in at the size that a model works at, out at their own, with their own sound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from moviegen import media
from moviegen.codec.base import VideoCodec
from moviegen.codec.streaming import pad_to_multiple
from moviegen.codec.tiling import Tiling, decoded, encoded
from moviegen.keep import Keep, Share, blended, shares
from moviegen.pixels import from_uint8, to_uint8
from moviegen.reconstruct_video import PLAIN_SOUND, add_sound
from moviegen.types import Latent

STEP = 40  # levels of 255: more than a codec does to a picture
SMALL_BYTES = 1 << 24  # of frames that are read at once
STRIP_FRAMES, STRIP_HEIGHT = 6, 160  # of the picture that shows an edit before and after


@dataclass(frozen=True)
class SourceClip:
    """A source as a model reads it, and what its edited file must be like."""

    path: Path
    latent: Tensor  # [1, C, T, H, W]
    num_frames: int
    height: int  # of the file
    width: int
    frame_rate: float  # 0 of a picture
    shown: tuple[np.ndarray, ...]  # some frames of the file, small
    info: media.MediaInfo | None  # None of a picture


def read_source(
    path: str | Path, codec: VideoCodec, size: tuple[int, int], tiling: Tiling, max_frames: int, still: bool
) -> SourceClip:
    """A video file of any length, or a picture, as latents at `size` (height, width); frames are not kept.

    Raises:
        MediaError: a file that cannot be read, at all or right, that holds no picture, or is longer than `max_frames`;
            a picture that is see-through or has more than 8 bits a channel, of which the edit would lose something.
    """
    if still:
        image = media.read_image(path, plain=True)
        latent = encoded(codec, [resized(image[None], size)[None]], torch.zeros(1), tiling).values
        height, width = image.shape[:2]
        return SourceClip(Path(path), latent, 1, height, width, 0.0, (_small(image),), None)
    with _opened(path) as (info, chunks):
        if info.num_frames > max_frames:
            length = f"has {info.num_frames} frames ({info.duration_seconds:.0f} s), at most {max_frames} are edited"
            raise media.MediaError(path, f"{length}; cut it, or raise max_frames", "too large")
        for remark in info.remarks:
            print(f"{path}: {remark}")
        watched = _Watched(chunks, max(1, info.num_frames))
        frames = (resized(chunk, size)[None] for chunk in watched)
        latent = encoded(codec, frames, torch.tensor([info.frame_rate]), tiling).values
    return SourceClip(
        Path(path),
        latent,
        watched.count,
        info.height,
        info.width,
        info.frame_rate,
        tuple(watched.shown),
        info,
    )


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[media.MediaInfo, Iterator[np.ndarray]]]:
    """As `media.stream_clip`; a small file is read at once, in the process that is there for many."""
    info = media.probe(path)
    if info.num_frames * info.height * info.width * 3 <= SMALL_BYTES:
        yield info, iter([media.read_clip(path).frames])
        return
    with media.stream_clip(path) as opened:
        yield opened


class _Watched:
    """Chunks that pass by, counted, of which a few frames are remembered."""

    def __init__(self, chunks: Iterable[np.ndarray], expected: int):
        self.chunks, self.count = chunks, 0
        self.shown: list[np.ndarray] = []
        self.wanted = set(np.linspace(0, expected - 1, STRIP_FRAMES).round().astype(int).tolist())

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in self.chunks:
            for number, frame in enumerate(chunk, self.count):
                if number in self.wanted:
                    self.shown.append(_small(frame))
            self.count += len(chunk)
            yield chunk


def resized(frames: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Frames uint8 [T, H, W, 3] as [3, T, h, w] in [-1, 1], scaled to a size; their shape follows it."""
    pixels = from_uint8(frames)
    if pixels.shape[2:] == size:
        return pixels
    scaled = F.interpolate(pixels.transpose(0, 1), size, mode="bilinear", antialias=True, align_corners=False)
    return scaled.transpose(0, 1).clamp(-1, 1)


def edited_frames(
    edited: Tensor, source: SourceClip, codec: VideoCodec, tiling: Tiling
) -> Iterator[np.ndarray]:
    """Frames uint8 [H, W, 3] of latents [1, C, T, H, W], as many and as large as the source's."""
    left, size = source.num_frames, (source.height, source.width)
    with torch.no_grad():
        for chunk in _decoded(codec, edited, source, tiling):
            yield from to_uint8(_back(chunk[:, :left], size))
            left -= min(left, chunk.shape[1])
            if not left:
                return


def kept_frames(
    edited: Tensor, source: SourceClip, codec: VideoCodec, tiling: Tiling, keep: Keep, parts: list[float]
) -> Iterator[np.ndarray]:
    """As `edited_frames`, with the file's own pixels where the edit changed nothing (`moviegen.keep`).

    The share of each frame that is the edit's is added to `parts`.

    Raises:
        MediaError: a source that cannot be read a second time.
    """
    size, count = (source.height, source.width), source.num_frames
    with torch.no_grad(), _frames_of(source) as own:
        edits, bases = (
            islice(_small_frames(codec, latent, source, tiling), count) for latent in (edited, source.latent)
        )
        for (frame, part), original in zip(shares(zip(edits, bases, strict=True), keep), own, strict=True):
            parts.append(float(part.mean()))
            (scaled,) = to_uint8(_back(from_uint8(frame[None]), size))
            yield blended(scaled, original, _scaled_part(part, size))


def _small_frames(
    codec: VideoCodec, latent: Tensor, source: SourceClip, tiling: Tiling
) -> Iterator[np.ndarray]:
    """Frames uint8 [h, w, 3] at the size that is edited at."""
    for chunk in _decoded(codec, latent, source, tiling):
        yield from to_uint8(chunk)


@contextmanager
def _frames_of(source: SourceClip) -> Iterator[Iterator[np.ndarray]]:
    """The frames of a file, uint8 [H, W, 3] each."""
    if source.info is None:
        yield iter([media.read_image(source.path, plain=True)])
        return
    with _opened(source.path) as (_, chunks):
        yield chain.from_iterable(chunks)


def _scaled_part(part: Share, size: tuple[int, int]) -> Share:
    """Shares [h, w] at the size of the file."""
    if part.shape == size:
        return part
    scaled = F.interpolate(torch.from_numpy(part)[None, None], size, mode="bilinear", align_corners=False)
    return scaled[0, 0].numpy()


def remembered(frames: Iterable[np.ndarray], count: int, shown: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of a clip of `count`, of which a few are added to `shown`, small, as they pass."""
    wanted = set(np.linspace(0, count - 1, STRIP_FRAMES).round().astype(int).tolist())
    for number, frame in enumerate(frames):
        if number in wanted:
            shown.append(_small(frame))
        yield frame


def write_like(source: SourceClip, crf: float) -> Callable[[Path, Iterable[np.ndarray] | None, object], None]:
    """How an edited video is encoded: at the source's rate and with its packets of sound.

    An odd side is written one pixel longer: H.264 in yuv420p has even sizes.
    """

    def write(path: Path, frames: Iterable[np.ndarray] | None, _: object) -> None:
        assert frames is not None and source.info is not None
        with media.VideoWriter(path, source.frame_rate, crf) as writer:
            for frame in frames:
                writer.write(pad_to_multiple(frame[None], 2)[0])
        said = add_sound(source.path, source.info, [path])
        if said not in PLAIN_SOUND:
            print(f"{source.path}: {said}")

    return write


def _decoded(codec: VideoCodec, latent: Tensor, source: SourceClip, tiling: Tiling) -> Iterator[Tensor]:
    """Frames [3, t, h, w] of latents, in chunks; the codec's surplus at the end is still there."""
    for part in decoded(codec, Latent(latent, torch.tensor([source.frame_rate])), tiling):
        yield part[0]


def _back(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames [3, t, h, w] at the size of the file."""
    if frames.shape[2:] == size:
        return frames
    larger = F.interpolate(frames.transpose(0, 1), size, mode="bicubic", antialias=True, align_corners=False)
    return larger.transpose(0, 1)


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame at the height of a strip."""
    width = max(1, round(frame.shape[1] * STRIP_HEIGHT / frame.shape[0]))
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, STRIP_HEIGHT), Image.Resampling.BICUBIC))


def changed_share(before: Iterable[np.ndarray], after: Iterable[np.ndarray]) -> float:
    """Share of pixels of the frames that are shown in which a channel changed by more than `STEP` levels."""
    pairs = zip(before, after, strict=False)
    shares = [(np.abs(one.astype(int) - other).max(axis=-1) > STEP).mean() for one, other in pairs]
    return float(np.mean(shares)) if shares else 0.0


def strip(before: Iterable[np.ndarray], after: Iterable[np.ndarray]) -> np.ndarray:
    """A picture [2 H, n W, 3] with frames of the source above those of the edit."""
    pairs = list(zip(before, after, strict=False))
    rows = [np.concatenate(row, axis=1) for row in zip(*pairs, strict=True)]
    return np.concatenate(rows, axis=0)
