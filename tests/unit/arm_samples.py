"""Small arms on disk: a suite file and folders of tiny videos, named as real ones are."""

from pathlib import Path

import numpy as np

from moviegen.media import write_video

NUM_PROMPTS = 12


def write_suite(path: Path, num: int = NUM_PROMPTS) -> Path:
    """A suite of short prompts with tags."""
    lines = ["id,prompt,concept,motion_level"]
    for n in range(num):
        concept = '"animal,scene"' if n % 3 == 0 else "animal"
        lines.append(f"p-{n:02d},a thing number {n},{concept},{('low', 'high')[n % 2]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def frames_of(row: int, noise: float = 0.0, num: int = 8, size: int = 32) -> np.ndarray:
    """A square that moves over a smooth ground: uint8 [num, size, size, 3]."""
    grid = np.linspace(0, 160, size)
    clip = np.broadcast_to(grid[:, None, None] * 0.5 + grid[None, :, None] * 0.5, (num, size, size, 3)).copy()
    for t in range(num):
        left = (2 * t + row) % (size - 8)
        clip[t, 8:16, left : left + 8] = (220, 40 * (row % 5), 30)
    clip += np.random.default_rng(row).normal(0, noise, clip.shape) if noise else 0
    return np.clip(clip, 0, 255).astype(np.uint8)


def write_arm(
    folder: Path,
    noise: float = 0.0,
    num: int = NUM_PROMPTS,
    rate: float = 8.0,
    size: int = 32,
    length: int = 8,
) -> Path:
    """An arm of one video a prompt, named by the prompts' ids."""
    for row in range(num):
        write_video(folder / f"p-{row:02d}.mp4", frames_of(row, noise, length, size), rate)
    return folder
