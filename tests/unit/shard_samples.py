"""Small shards for the data tests, written by the webdataset package's own writer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import webdataset


def npy(array: np.ndarray) -> bytes:
    """The bytes of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def latent_sample(key: str, number: int, frames: int = 2) -> dict:
    """A cached sample whose latent, text features and caption all tell `number`."""
    return {
        "__key__": key,
        "latent.npy": npy(np.full((16, frames, 2, 2), number, np.float16)),
        "text.npy": npy(np.full((1 + number % 3, 4), number, np.float16)),
        "txt": f"clip {number}",
        "json": json.dumps({"key": key, "fps": 8.0}).encode(),
        "truth.json": b"never to be read",
    }


def write_tar(path: Path, samples: list[dict]) -> Path:
    """Write `samples` as one plain WebDataset tar."""
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def latent_folder(
    folder: Path, counts: tuple[int, ...] = (5, 6), split: str = "train", frames: int = 2
) -> Path:
    """Tars of `counts` cached samples each, keys `<split>-<frames>-000000` on."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for tar, count in enumerate(counts):
        numbers = range(first, first + count)
        samples = [latent_sample(f"{split}-{frames}-{number:06d}", number, frames) for number in numbers]
        write_tar(folder / f"{split}-toy{frames}-{tar:06d}.tar", samples)
        first += count
    return folder
