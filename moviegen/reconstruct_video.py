"""`moviegen reconstruct video=...`: a file of any length through the codec, streamed, with its own sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from moviegen import media
from moviegen.codec.base import VideoCodec
from moviegen.codec.streaming import pad_to_multiple, reconstruct_stream
from moviegen.codec.tiling import Tiling

OUT, SIDE_BY_SIDE = "out.mp4", "side_by_side.mp4"

PLAIN_SOUND = ("no sound", "sound copied")  # what `add_sound` says where nothing was changed
LONGER_SECONDS = 0.05  # more than the last packet of a track is long


def reconstruct_video(
    video: str | Path,
    run_dir: Path,
    codec: VideoCodec,
    tiling: Tiling,
    crf: float = 18,
    bfloat16: bool = False,
) -> None:
    """Write run_dir/out.mp4 and, the source on the left, run_dir/side_by_side.mp4: both, or neither if one fails.

    Raises:
        MediaError: a file that cannot be read, at all or right, or that cannot be written.
    """
    with (
        media.stream_clip(video) as (info, chunks),
        media.atomic_path(run_dir / OUT) as out,
        media.atomic_path(run_dir / SIDE_BY_SIDE) as pair,
        _named({str(out): run_dir / OUT, str(pair): run_dir / SIDE_BY_SIDE}),
    ):
        for remark in (*info.remarks, *_odd_size(info)):
            print(f"{video}: {remark}")
        with (
            media.VideoWriter(out, info.frame_rate, crf) as alone,
            media.VideoWriter(pair, info.frame_rate, crf) as beside,
            torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
        ):
            mse = _write(codec, chunks, info, tiling, alone, beside)
        sound = add_sound(video, info, (out, pair))
    psnr = f"PSNR {10 * np.log10(255**2 / mse):.2f} dB" if mse else "exact"
    print(f"{run_dir / OUT}: {alone.num_frames} frames of {info.width}x{info.height}, {psnr}, {sound}")


@contextmanager
def _named(names: dict[str, Path]) -> Iterator[None]:
    """Name files in errors as they will be called, not as they are until they are whole."""
    try:
        yield
    except media.MediaError as error:
        raise media.MediaError(names.get(error.name, error.name), error.reason, error.rule) from error


def _write(
    codec: VideoCodec,
    chunks: Iterable[np.ndarray],
    info: media.MediaInfo,
    tiling: Tiling,
    alone: media.VideoWriter,
    beside: media.VideoWriter,
) -> float:
    """Write each frame to both files as it comes; the mean squared error in levels of 0 to 255."""
    total = 0.0
    pairs = reconstruct_stream(codec, chunks, info.frame_rate, tiling)
    for source, frame in tqdm(pairs, desc="reconstruct", unit="frame", total=info.num_frames):
        total += float(np.square(source.astype(np.float32) - frame).mean())
        even_source, even_frame = pad_to_multiple(np.stack([source, frame]), 2)
        alone.write(even_frame)
        beside.write(np.concatenate([even_source, even_frame], axis=1))
    return total / max(1, alone.num_frames)


def _odd_size(info: media.MediaInfo) -> list[str]:
    width, height = info.width + info.width % 2, info.height + info.height % 2
    if (width, height) == (info.width, info.height):
        return []
    size = f"{info.width}x{info.height} is written as {width}x{height}"
    return [f"{size}, the last row or column repeated: H.264 in yuv420p has even sizes"]


def add_sound(video: str | Path, info: media.MediaInfo, files: Iterable[Path]) -> str:
    """Give each of the mute `files` the sound of `video`, in place; what was done, in words."""
    if not info.has_audio:
        return PLAIN_SOUND[0]
    seconds = media.Limits().seconds + info.duration_seconds  # a long file takes longer
    limits = media.Limits(seconds=seconds)
    encode = False
    for file in files:
        try:
            media.copy_audio(video, file, file, info.start_seconds, encode, limits)
        except media.MediaError as error:
            if encode or error.rule != media.UNCOPYABLE:
                raise
            encode = True
            media.copy_audio(video, file, file, info.start_seconds, encode, limits)
    done = "sound encoded anew as AAC, for its kind fits no mp4" if encode else PLAIN_SOUND[1]
    more = info.duration_seconds - info.picture_seconds  # of the longest track
    if more > LONGER_SECONDS:
        done += f", without its last {more:.2f} s, for which there is no picture"
    return done
