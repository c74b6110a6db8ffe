"""Small clips, sounds and build configs for the media and shard tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.config import BuildConfig, ClipSpec, ToySource, VideoSource
from moviegen_data.toyworld import WorldConfig

from moviegen.media import write_video

RATE = 48_000


def moving(num_frames: int = 16, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth picture that shifts by two pixels a frame: uint8 [T, H, W, 3]."""
    y, x = np.mgrid[:height, :width] / 16.0
    shift = np.arange(num_frames)[:, None, None] / 8.0 + seed
    parts = [np.sin(x + shift), np.cos(y - shift), np.sin(x + y + shift)]
    return (127.5 + 100 * np.stack(parts, axis=-1)).astype(np.uint8)


def tone(seconds: float = 2.0, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine: float32 [C, N]."""
    times = np.arange(round(seconds * RATE)) / RATE
    return np.tile(0.5 * np.sin(2 * np.pi * hertz * times), (channels, 1)).astype(np.float32)


def video_file(path: Path, num_frames: int = 16, frame_rate: float = 8.0, seed: int = 0, **size: int) -> Path:
    """Write a small mp4 with sound."""
    frames = moving(num_frames, seed=seed, **size)
    write_video(path, frames, frame_rate, tone(num_frames / frame_rate), RATE)
    return path


def own(*paths: Path | str, **settings: Any) -> VideoSource:
    """A source of video files with a licence."""
    values: dict[str, Any] = {"name": "own", "split": "train", "licence": "CC0-1.0", "consent": "none-needed"}
    return VideoSource(paths=tuple(str(path) for path in paths), **(values | settings))


def toys(count: int = 5, split: str = "train", seed: int = 0, **settings: Any) -> ToySource:
    """A toyworld source of small clips."""
    world = WorldConfig(level=1, size=32, num_frames=8, **settings)
    return ToySource("toyworld", split, count, seed, world)


def config(out: Path, **sources: Any) -> BuildConfig:
    """A build in this process, 32x32 pixels, 8 frames, tars of three samples."""
    clip = ClipSpec(num_frames=8, height=32, width=32)
    return BuildConfig(str(out), sources, clip, shard_size=3, workers=0)


def read_tars(folder: Path, pattern: str = "*.tar") -> dict[str, dict[str, bytes]]:
    """All samples of a folder by key, each a dict from suffix to bytes."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob(pattern)):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[suffix] = file.read()
    return samples


def records(folder: Path, pattern: str = "*.tar") -> list[dict[str, Any]]:
    """The json of every sample."""
    return [json.loads(sample["json"]) for sample in read_tars(folder, pattern).values()]


def visible(folder: Path) -> list[str]:
    """Names in a folder, without the lock; a half-written file would show."""
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock") if folder.is_dir() else []
