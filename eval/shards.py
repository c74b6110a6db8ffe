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

EXTRA = ("toyworld_spins",)  # clips that no autoencoder is trained on (conf/data/toy_tae.yaml)
SHARD_NAME = re.compile(r"(?P<split>[a-z]+)-(?P<source>.+)-(?P<number>\d+)\.tar")


def find_shards(folder: Path | str, split: str, toyworld: bool) -> list[Path]:
    """The split's shards of toyworld, or of every other source but EXTRA; sorted, possibly none.

    Raises ValueError when the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: is not a folder of shards")
    found = []
    for path in sorted(folder.glob("**/*.tar")):
        match = SHARD_NAME.fullmatch(path.name)
        if not match or match["split"] != split or match["source"] in EXTRA:
            continue
        if match["source"].startswith("toyworld") == toyworld:
            found.append(path)
    return found


def count_clips(shards: Sequence[Path]) -> int:
    """The number of clips in the shards."""
    return sum(len(_members(path)) for path in shards)


def iterate_clips(shards: Sequence[Path], max_clips: int) -> Iterator[np.ndarray]:
    """Yield up to `max_clips` clips, uint8 [T, H, W, 3], taken evenly from all parts of the shards."""
    members = [(path, member) for path in shards for member in _members(path)]
    step = max(len(members) / max(max_clips, 1), 1.0)
    picks = [members[int(index * step)] for index in range(min(max_clips, len(members)))]
    for path in shards:
        with path.open("rb") as file:
            for offset, size in (span for owner, span in picks if owner == path):
                file.seek(offset)
                yield decode_video(file.read(size))[0]


def _members(path: Path) -> list[tuple[int, int]]:
    """(offset, size) of each mp4 in a tar; a ValueError names a damaged one."""
    try:
        with tarfile.open(path, "r:") as tar:
            found = [member for member in tar if member.isfile() and member.name.endswith(".mp4")]
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path}: is not a readable shard ({error})") from None
    return [(member.offset_data, member.size) for member in found]
