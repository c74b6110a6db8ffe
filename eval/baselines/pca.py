"""The best linear autoencoder of the temporal autoencoder's rate: PCA of 8x8x8 RGB blocks to 16 numbers.

A clip is cut into blocks of 8 frames x 8 x 8 pixels x 3 colors = 1536 values; each becomes 16 numbers, as
each latent position of the autoencoder does. Among linear maps on such blocks PCA has the least squared error
on the clips it is fitted to. Clips whose sides 8 does not divide are padded by repeating their edges.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from moviegen_eval.files import write_atomically
from scipy.linalg import eigh

BLOCK = 8
NUM_VALUES = BLOCK**3 * 3
SHIFT = 127.5  # subtracted before summing, so that float32 products keep their precision
CHUNK = 4096  # blocks a matrix product


def to_blocks(clip: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> float32 [N, 1536], edges repeated up to multiples of 8, values minus 127.5."""
    pads = [(0, -size % BLOCK) for size in clip.shape[:3]]
    padded = np.pad(clip, [*pads, (0, 0)], mode="edge")
    t, h, w = (size // BLOCK for size in padded.shape[:3])
    blocks = padded.reshape(t, BLOCK, h, BLOCK, w, BLOCK, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return blocks.reshape(t * h * w, NUM_VALUES).astype(np.float32) - np.float32(SHIFT)


def from_blocks(blocks: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """float32 [N, 1536] -> uint8 [T, H, W, 3] of `shape` (T, H, W), rounded, clipped and cropped."""
    t, h, w = (-(-size // BLOCK) for size in shape)
    grid = blocks.reshape(t, h, w, BLOCK, BLOCK, BLOCK, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    clip = grid.reshape(t * BLOCK, h * BLOCK, w * BLOCK, 3)[: shape[0], : shape[1], : shape[2]]
    return np.clip(np.rint(clip + np.float32(SHIFT)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class BlockPca:
    """A fitted projection; `num_clips` and `num_blocks` say on how much."""

    mean: np.ndarray  # float32 [1536]
    components: np.ndarray  # float32 [C, 1536], orthonormal rows, largest variance first
    num_clips: int
    num_blocks: int

    def reconstruct(self, clip: np.ndarray) -> np.ndarray:
        """Encode and decode one clip of any size: uint8 [T, H, W, 3] -> the same shape."""
        blocks = to_blocks(clip)
        for start in range(0, len(blocks), CHUNK):
            part = blocks[start : start + CHUNK] - self.mean
            blocks[start : start + CHUNK] = (part @ self.components.T) @ self.components + self.mean
        t, h, w = clip.shape[:3]
        return from_blocks(blocks, (t, h, w))

    def save(self, path: Path | str) -> None:
        """Write the arrays as npz, atomically."""
        buffer = io.BytesIO()
        counts = np.array([self.num_clips, self.num_blocks])
        np.savez(buffer, mean=self.mean, components=self.components, counts=counts)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> BlockPca:
        """Read what `save` wrote; a ValueError names the file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                num_clips, num_blocks = (int(count) for count in arrays["counts"])
                return cls(arrays["mean"], arrays["components"], num_clips, num_blocks)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: is not a fitted PCA ({str(error).splitlines()[0]})") from None


def fit_block_pca(
    clips: Iterable[np.ndarray], num_components: int = 16, max_blocks_per_clip: int = 256, seed: int = 0
) -> BlockPca:
    """Fit by the exact eigenvectors of the 1536 x 1536 covariance, summed clip by clip.

    Args:
        clips: uint8 [T, H, W, 3], any sizes; held in memory one at a time.
        max_blocks_per_clip: a random sample of at most so many blocks a clip enters the covariance, so that a
            large clip weighs no more than many small ones (a 64x64x16 clip has 128 blocks).
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(NUM_VALUES)
    products = np.zeros((NUM_VALUES, NUM_VALUES))
    waiting: list[np.ndarray] = []
    num_clips = num_blocks = num_waiting = 0

    def add() -> None:
        stacked = np.concatenate(waiting)
        total[:] += stacked.sum(axis=0, dtype=np.float64)
        products[:] += stacked.T @ stacked
        waiting.clear()

    for clip in clips:
        blocks = to_blocks(clip)
        if len(blocks) > max_blocks_per_clip:
            blocks = blocks[rng.choice(len(blocks), max_blocks_per_clip, replace=False)]
        waiting.append(blocks)
        num_clips, num_blocks = num_clips + 1, num_blocks + len(blocks)
        num_waiting += len(blocks)
        if num_waiting >= CHUNK:
            add()
            num_waiting = 0
    if not num_blocks:
        raise ValueError("PCA needs at least one training clip, got none")
    if waiting:
        add()
    mean = total / num_blocks
    covariance = products / num_blocks - np.outer(mean, mean)
    _, vectors = eigh(covariance, subset_by_index=[NUM_VALUES - num_components, NUM_VALUES - 1])
    components = np.ascontiguousarray(vectors[:, ::-1].T)
    return BlockPca(mean.astype(np.float32), components.astype(np.float32), num_clips, num_blocks)
