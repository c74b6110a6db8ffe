"""Reading the training clips back from shards, for baselines that must be fitted on the same clips.

Shards are `<split>-<source>-<number>.tar` files of `<key>.mp4` and other members (data/README.md); only the
clips are read here, in the files' order, with the decoder for files that this project wrote.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moviegen.media import decode_video

SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-(?P<source>.+)-(?P<number>\d+)\.tar")


def find_shards(folder: Path | str, split: str, toyworld: bool) -> list[Path]:
    """The split's shards of toyworld, or of every other source; sorted, possibly none.

    Raises ValueError when the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder of shards")
    found = []
    for path in sorted(folder.glob("**/*.tar")):
        match = SHARD_NAME.fullmatch(path.name)
        if match and match["split"] == split and match["source"].startswith("toyworld") == toyworld:
            found.append(path)
    return found


def iterate_clips(shards: Sequence[Path], max_clips: int) -> Iterator[np.ndarray]:
    """Yield up to `max_clips` clips, uint8 [T, H, W, 3], the same number from each shard as far as they last."""
    share = -(-max_clips // max(len(shards), 1))
    left = max_clips
    for path in shards:
        for data in _members(path, min(share, left)):
            frames, _ = decode_video(data)
            yield frames
            left -= 1


def _members(path: Path, limit: int) -> Iterator[bytes]:
    """The bytes of the first `limit` mp4 members."""
    taken = 0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if taken == limit:
                    return
                if not member.isfile() or not member.name.endswith(".mp4"):
                    continue
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()
                taken += 1
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path}: is not a readable shard ({error})") from None
