"""Clips beside their reconstructions: `reconstructions.jsonl` and one lossless `<key>.npz` a pair.

An npz holds `source` and `reconstruction` (uint8 [T, H, W, 3], equal shapes) and `frame_rate`. The arrays are
lossless because PSNR against an H.264 copy of the source would measure H.264.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.files import inside, read_json_lines, write_json_lines
from moviegen_eval.records import parse_record

RECONSTRUCTIONS = "reconstructions.jsonl"
SETS = ("toyworld", "real")


@dataclass(frozen=True)
class Reconstruction:
    """One line of `reconstructions.jsonl`: a held-out clip that went through the autoencoder."""

    key: str
    set: str  # "toyworld" or "real"
    source_name: str  # the file or world the clip was cut from
    path: str  # npz, relative to the folder
    caption: str | None = None
    spec: dict[str, Any] | None = None  # toyworld: what the oracle should see, for the ceiling


@dataclass(frozen=True)
class ClipPair:
    """A clip and its reconstruction: uint8 [T, H, W, 3] both, frames per second (0 for an image)."""

    source: np.ndarray
    reconstruction: np.ndarray
    frame_rate: float


def read_reconstructions(folder: Path | str) -> list[Reconstruction]:
    """Read `<folder>/reconstructions.jsonl`; errors name file and line."""
    path = Path(folder) / RECONSTRUCTIONS
    records: list[Reconstruction] = []
    for where, row in read_json_lines(path):
        record = parse_record(Reconstruction, row, where)
        inside(path.parent, record.path, where)
        if record.set not in SETS:
            raise ValueError(f"{where}: set is {record.set!r}; expected one of {', '.join(SETS)}")
        records.append(record)
    return records


def load_pair(path: Path | str) -> ClipPair:
    """Load one npz; a ValueError names the file and what is wrong with it."""
    arrays = load_arrays(path, ("source", "reconstruction"), ("frame_rate",))
    source, reconstruction, frame_rate = (arrays[name] for name in ("source", "reconstruction", "frame_rate"))
    if source.shape != reconstruction.shape:
        raise ValueError(f"{path}: source is {source.shape} but reconstruction is {reconstruction.shape}")
    if not 0 <= frame_rate < 1000:
        raise ValueError(f"{path}: frame_rate is {frame_rate}; expected frames per second, 0 for an image")
    return ClipPair(source, reconstruction, float(frame_rate))


def load_arrays(path: Path | str, clips: Iterable[str], others: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Clips (uint8 [T, H, W, 3]) and other arrays of an npz; a ValueError names the file and what is wrong with it."""
    clips = tuple(clips)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*clips, *others)}
    except KeyError as error:
        raise ValueError(f"{path}: has no array {str(error.args[0]).split()[0]!r}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: is not a readable npz ({str(error).splitlines()[0]})") from None
    for name in clips:
        clip = arrays[name]
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3 or clip.size == 0:
            raise ValueError(f"{path}: {name} is {clip.dtype} {clip.shape}; expected uint8 [T, H, W, 3]")
    return arrays


def save_pair(folder: Path | str, key: str, pair: ClipPair) -> str:
    """Write `<folder>/<key>.npz` and return its name."""
    arrays = {"source": pair.source, "reconstruction": pair.reconstruction}
    return save_arrays(folder, key, {**arrays, "frame_rate": np.float64(pair.frame_rate)})


def save_arrays(folder: Path | str, key: str, arrays: Mapping[str, Any]) -> str:
    """Write `<folder>/<key>.npz` whole or not at all, and return its name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{key}.tmp.npz"
    try:
        np.savez_compressed(temporary, **arrays)
        temporary.replace(folder / f"{key}.npz")
    finally:
        temporary.unlink(missing_ok=True)
    return f"{key}.npz"


def write_reconstructions(folder: Path | str, records: Iterable[Reconstruction]) -> None:
    """Write `<folder>/reconstructions.jsonl` atomically."""
    write_json_lines(Path(folder) / RECONSTRUCTIONS, (asdict(record) for record in records))
