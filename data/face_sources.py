"""Clips to look for faces in: the samples of shards, or the files of a folder."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.config import VideoSource
from moviegen_data.files import file_sha256, list_files
from numpy.typing import NDArray

from moviegen.media import MediaError, check_readable, decode_video, probe, read_clip

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """One clip: the tar that its sample stands in, its record, and its frames or why there are none."""

    tar: str
    key: str
    record: dict[str, Any]
    source: Path | bytes

    def frames(self, rate: float) -> tuple[Frames, float]:
        """Frames uint8 [T, H, W, 3] and their rate; those of a file come at `rate`. Raises MediaError."""
        if isinstance(self.source, bytes):
            return decode_video(self.source)[0], float(self.record.get("fps") or 0)
        return read_clip(self.source, frame_rate=rate).frames, rate


def index_of(folder: Path) -> dict[str, Any]:
    """The index.json of a folder of shards; ValueError where there is none."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return index | {"shards": [dict(record) for record in index["shards"]]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{folder}: no index.json of shards; give a folder that moviegen data build wrote"
        ) from None


def tar_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and files by suffix of each sample of a tar; ValueError for a damaged one."""
    try:
        with tarfile.open(path, "r:") as tar:
            key, files = None, {}
            for member in tar:
                found, _, suffix = member.name.partition(".")
                if found != key and key is not None:
                    yield key, files
                    files = {}
                handle = tar.extractfile(member)
                key, files[suffix] = found, handle.read() if handle else b""
            if key is not None:
                yield key, files
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{path}: is not a readable shard ({error})") from None


def shard_records(folder: Path, match: str) -> list[dict[str, Any]]:
    """The records of a folder's tars of videos whose name matches; ValueError where there is none."""
    records = [
        r for r in index_of(folder)["shards"] if fnmatch(r["name"], match) and (r.get("frames") or 0) > 1
    ]
    if not records:
        raise ValueError(f"{folder}: no shard of videos is named like {match!r}")
    return records


def shard_clips(folder: Path, records: Sequence[dict[str, Any]]) -> Iterator[Clip]:
    """The clips of shards, in order."""
    for record in records:
        for key, files in tar_samples(folder / record["name"]):
            if "mp4" in files and "json" in files:
                yield Clip(record["name"], key, json.loads(files["json"]), files["mp4"])


def video_clips(source: VideoSource, name: str) -> Iterator[Clip]:
    """The files of a folder, each as one clip; one that cannot be read has the reason in its record."""
    for number, file in enumerate(list_files(source)):
        record: dict[str, Any] = {"source": source.name, "source_file": file.path.name, "split": source.split}
        record |= {"consent": file.rights.consent, "licence": file.rights.licence}
        try:
            path = check_readable(file.path)
            info = probe(path, None)
            if not info.width:
                raise MediaError(path, "holds no picture", "no picture")
            record |= {"source_sha256": file_sha256(path), "fps": info.frame_rate, "frames": info.num_frames}
            record |= {"height": info.height, "width": info.width}
        except MediaError as error:
            record |= {"unreadable": error.reason, "source_sha256": ""}
        yield Clip(name, f"{source.name}-{number:06d}", record, file.path)
