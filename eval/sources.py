"""The clips that codecs are judged on: toyworld of any length, real files and images, and how much moves in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.config import CodecEvalConfig
from moviegen_eval.metrics.motion import temporal_information

from moviegen.media import MediaError, atomic_path, read_image, stream_clip


@dataclass(frozen=True)
class SourceClip:
    """One clip on disk: uint8 [T, H, W, 3] in an npy file."""

    key: str
    path: Path
    frame_rate: float  # frames per second, 0 for an image
    num_frames: int
    groups: tuple[str, ...]  # the parts of the figures' names that it counts for
    motion: float  # levels of 255, see `temporal_information`


def write_sources(config: CodecEvalConfig, folder: Path) -> list[SourceClip]:
    """Write all clips of a config into a folder. Raises ValueError (MediaError) for a file that cannot be used."""
    found = [*_toyworld(config, folder), *_real(config, folder)]
    if not found:
        raise ValueError("codec: no clips; give images=, videos=, toyworld_images= or toyworld_clips=")
    return found


def _toyworld(config: CodecEvalConfig, folder: Path) -> list[SourceClip]:
    lengths = [("image", 1, config.toyworld_images)]
    for seconds in config.durations_seconds:
        frames = max(2, round(seconds * config.toyworld_frame_rate))
        lengths.append((f"video_{seconds:g}s", frames, config.toyworld_clips))
    clips = []
    for group, num_frames, count in lengths:
        settings: dict[str, Any] = {"level": config.toyworld_level, "size": config.toyworld_size}
        settings |= {"num_frames": num_frames, "frame_rate": config.toyworld_frame_rate}
        world = World(WorldConfig(combos="heldout", **settings))
        for index in range(count):
            clip = world.render(config.toyworld_seed, index)
            rate = clip.frame_rate if num_frames > 1 else 0.0
            clips.append(_write(config, folder, f"toyworld-{group}-{index}", clip.frames, rate, group))
    return clips


def _real(config: CodecEvalConfig, folder: Path) -> list[SourceClip]:
    clips = []
    for number, path in enumerate(config.images):
        image = crop(read_image(path, plain=True)[None], config, path)
        clips.append(_write(config, folder, f"image-{number}-{_plain(path)}", image, 0.0, "image"))
    for number, path in enumerate(config.videos):
        frames, frame_rate = _cropped(path, config)
        key = f"video-{number}-{_plain(path)}"
        clips.append(_write(config, folder, key, frames, frame_rate, "video_real"))
    return clips


def _cropped(path: str, config: CodecEvalConfig) -> tuple[np.ndarray, float]:
    """The middle of a video's frames, up to `max_frames` or its end, and its rate; says what reading changes."""
    parts, left = [], config.max_frames
    with stream_clip(path) as (info, chunks):
        for remark in info.remarks:
            print(f"{path}: {remark}")
        for chunk in chunks:  # cut one by one, so that large frames are never held together
            parts.append(crop(chunk[:left], config, path))
            left = None if left is None else left - len(parts[-1])
            if left == 0:
                break
    return np.concatenate(parts), info.frame_rate


def crop(frames: np.ndarray, config: CodecEvalConfig, path: str) -> np.ndarray:
    """The middle of frames [T, H, W, 3], its sides multiples of `size_multiple` and at most `max_size`."""
    sides, multiple = [], config.size_multiple
    for length in frames.shape[1:3]:
        side = min(length, config.max_size or length) // multiple * multiple
        if side == 0:
            raise MediaError(path, f"{frames.shape[2]}x{frames.shape[1]} has no room for {multiple} pixels")
        sides.append(slice((length - side) // 2, (length - side) // 2 + side))
    return np.ascontiguousarray(frames[:, sides[0], sides[1]])


def motion_bin(motion: float, config: CodecEvalConfig) -> str:
    """static, slow or fast."""
    return "static" if motion < config.motion_slow else "slow" if motion < config.motion_fast else "fast"


def _write(
    config: CodecEvalConfig, folder: Path, key: str, frames: np.ndarray, frame_rate: float, group: str
) -> SourceClip:
    motion, groups = temporal_information(frames), (group,)
    if len(frames) > 1:
        groups = ("video", group, f"video_{motion_bin(motion, config)}")
    path = folder / f"{key}.npy"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, frames, allow_pickle=False)
    return SourceClip(key, path, frame_rate, len(frames), groups, motion)


def _plain(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_+-]", "_", Path(path).stem) or "unnamed"
