"""Small shards of several buckets: cached latents as `moviegen encode` leaves them, with an index.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from shard_samples import npy, write_tar

CHANNELS, WIDTH = 4, 384  # of the tiny codec's latents, and of MiniLM's features


def sample(key: str, frames: int, height: int, width: int) -> dict:
    """A cached latent of a clip in pixels; a cell is 4 frames of 8 x 8 pixels."""
    rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()[:8]))
    latent = rng.standard_normal((CHANNELS, -(-frames // 4), height // 8, width // 8))
    return {
        "__key__": key,
        "latent.npy": npy(latent.astype(np.float16)),
        "text.npy": npy(rng.standard_normal((int(rng.integers(2, 6)), WIDTH)).astype(np.float16)),
        "txt": key,
        "json": json.dumps({"key": key, "fps": 8.0 if frames > 1 else 0.0}).encode(),
    }


def bucket_folder(
    folder: Path,
    buckets: dict[tuple[int, int, int], int],
    source: str = "toy",
    split: str = "train",
    **names: str,
) -> Path:
    """A tar for each (frames, height, width) with so many samples; `names` go into every record."""
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    shards = json.loads(index.read_text())["shards"] if index.is_file() else []
    for (frames, height, width), count in buckets.items():
        stem = f"{split}-{source}-{frames}x{height}x{width}"
        keys = [f"{stem}_{number}" for number in range(count)]
        tar = write_tar(folder / f"{stem}.tar", [sample(key, frames, height, width) for key in keys])
        size = {"frames": frames, "height": height, "width": width}
        shards.append({"name": tar.name, "split": split, "num_samples": count, **size, **names})
    index.write_text(json.dumps({"shards": shards}))
    return folder
