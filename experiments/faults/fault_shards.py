"""Shards for the sweep: cached latents of 22 samples, which no batch size divides into whole epochs."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np


def write_shards(folder: Path, counts: tuple[int, ...] = (12, 10)) -> Path:
    """Tars of so many samples each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, first = np.random.default_rng(0), 0
    for number, count in enumerate(counts):
        with tarfile.open(folder / f"train-faults-{number:06d}.tar", "w") as tar:
            for sample in range(first, first + count):
                _add(tar, f"{sample:06d}.latent.npy", _npy(rng.normal(size=(16, 2, 2, 2)).astype(np.float16)))
                _add(tar, f"{sample:06d}.json", json.dumps({"fps": 8.0}).encode())
        first += count
    return folder


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
