"""Random access to the samples of plain WebDataset tar shards in a local folder.

A small index of each tar (where every file of every sample starts) is kept beside it as `<tar>.idx.npy` and
made anew when the tar changes. Reading is one `pread` a file: safe in threads and forked workers.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from moviegen import unfinished
from moviegen.runfolder import file_sha256

KEY = "__key__"
ABSENT = -1
INDEX_VERSION = 1
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstandard"}


class ShardError(ValueError):
    """A shard cannot be used; one line that names the file and says why."""

    def __init__(self, message: str):
        # from a data worker torch hands back the whole traceback, which ends with our line
        super().__init__(message.strip().rpartition("\n")[2].removeprefix(f"{__name__}.ShardError: "))


@dataclass(frozen=True)
class Sample:
    """One sample: its key, and the bytes of each file that was asked for, by suffix."""

    key: str
    files: dict[str, bytes]


def refuse_url(path: str | Path) -> None:
    """Shards are local files: a `pipe:` would run a command, other urls are for a copy tool."""
    text = str(path)
    if text.startswith("pipe:") or "://" in text:
        raise ShardError(f"{text}: shards are read from local folders, never from a pipe: or other url")


def index_tar(path: Path) -> np.ndarray:
    """List the samples of a tar: rows of (key, and for each suffix (offset, bytes), -1 where absent)."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    last = None
    for name, offset, size in _members(path):
        key, suffix = _split_name(name)
        if not suffix or key.startswith("__"):
            continue
        if key != last and key in samples:
            raise ShardError(f"{path}: the files of sample {key} do not stand together")
        if suffix in samples.setdefault(key, {}):
            raise ShardError(f"{path}: sample {key} has two files .{suffix}")
        samples[key][suffix] = (offset, size)
        last = key
    suffixes = sorted({suffix for files in samples.values() for suffix in files})
    width = max((len(key.encode()) for key in samples), default=1)
    table = np.zeros(len(samples), [(KEY, f"S{width}")] + [(suffix, np.int64, (2,)) for suffix in suffixes])
    for row, (key, files) in enumerate(samples.items()):
        table[KEY][row] = key.encode()
        for suffix in suffixes:
            table[suffix][row] = files.get(suffix, (ABSENT, ABSENT))
    return table


def _split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the file name, folders belong to the key."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each regular file, or a ShardError if the tar is damaged or cut short."""
    total = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(2)
        if magic in COMPRESSED:
            raise ShardError(f"{path}: compressed with {COMPRESSED[magic]}; unpack it to a plain tar")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isreg():
                        if member.offset_data + member.size > total:
                            raise ShardError(f"{path}: damaged tar, cut short inside {member.name}")
                        yield member.name, member.offset_data, member.size
                end = tar.offset
        except (tarfile.TarError, UnicodeDecodeError, OSError) as error:
            raise ShardError(f"{path}: damaged tar ({error})") from None
        # tarfile stops in silence at a broken header: an undamaged tar ends with a block of zeros
        file.seek(min(end, max(total - 512, 0)))
        if total < 512 or end > total or file.read(512).strip(b"\0"):
            raise ShardError(f"{path}: damaged tar, no end mark after byte {end}")


@lru_cache(maxsize=128)
def _opened(path: Path, stamp: str) -> io.FileIO:  # noqa: ARG001 (a replaced tar is another file)
    """An open file. One that falls out of the cache closes when its last reader lets go of it."""
    return io.FileIO(path)


@lru_cache(maxsize=1024)
def _table(path: Path, stamp: str) -> np.ndarray:
    """The index of a tar: from beside it if made for this stamp, else made anew and left there."""
    beside = path.with_name(path.name + ".idx.npy")
    try:
        with beside.open("rb") as file:
            if np.load(file, allow_pickle=False) == np.array(stamp):
                return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        pass  # none yet, or unreadable: made anew
    table = index_tar(path)
    part = beside.with_name(f"{beside.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, np.array(stamp), allow_pickle=False)
            np.save(file, table, allow_pickle=False)
        part.replace(beside)
    except OSError:  # a read-only folder or a full disk: the index stays in memory
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return table


class Shard:
    """One tar of samples of one size.

    `sha256` and `split` come from index.json or the tar's name; `bucket` is (frames, height, width).
    """

    def __init__(self, path: Path, record: dict | None = None):
        self.path, self.record = path, dict(record or {})
        self.sha256: str | None = self.record.get("sha256")
        self.split: str = self.record.get("split") or path.name.split("-", 1)[0]
        sizes = [self.record.get(name) for name in ("frames", "height", "width")]
        known = tuple(size for size in sizes if isinstance(size, int))
        self.bucket: tuple[int, ...] | None = known if len(known) == 3 else None
        try:
            status = path.stat()
        except OSError:
            raise ShardError(f"{path}: no such shard") from None
        self._stamp = f"{INDEX_VERSION} {status.st_size} {status.st_mtime_ns} {self.sha256}"

    def __len__(self) -> int:
        count = self.record.get("num_samples")
        return count if isinstance(count, int) else len(self.table)

    def content(self) -> str:
        """What tells this tar from another of its name: its sha256, taken of the file where index.json says none."""
        return self.sha256 or file_sha256(self.path)

    @property
    def table(self) -> np.ndarray:
        """The tar's index, see `index_tar`."""
        table = _table(self.path, self._stamp)
        expected = self.record.get("num_samples", len(table))
        if len(table) != expected:
            raise ShardError(
                f"{self.path}: holds {len(table)} samples, index.json says {expected}; build anew"
            )
        return table

    def key(self, row: int) -> str:
        """The key of a sample."""
        return self.table[KEY][row].decode()

    def read(self, row: int, suffixes: Iterable[str], optional: Container[str] = ()) -> Sample:
        """Read the files `suffixes` of sample number `row`, no others; of `optional` ones it lacks, nothing."""
        key = self.key(row)
        return Sample(
            key, {suffix: self._read_file(row, key, suffix, suffix in optional) for suffix in suffixes}
        )

    def _read_file(self, row: int, key: str, suffix: str, optional: bool) -> bytes:
        names = self.table.dtype.names or ()
        offset, size = self.table[suffix][row] if suffix in names and suffix != KEY else (ABSENT, ABSENT)
        if offset == ABSENT and optional:
            return b""
        if offset == ABSENT:
            has = [name for name in names[1:] if self.table[name][row][0] != ABSENT]
            raise ShardError(f"{self.path}: sample {key} has no .{suffix}, only {', '.join(has)}")
        file = _opened(self.path, self._stamp)
        data = os.pread(file.fileno(), int(size), int(offset))
        if len(data) != size:
            raise ShardError(f"{self.path}: cut short inside {key}.{suffix}: {len(data)} bytes of {size}")
        return data


class ShardSet:
    """Shards of one size read as one list of samples: all of each shard, or its `rows` alone.

    `duration` is the name of their bucket's, "" where nothing names it.
    """

    def __init__(
        self, name: str, shards: list[Shard], rows: list[np.ndarray] | None = None, duration: str = ""
    ):
        self.name, self.shards, self.rows, self.duration = name, shards, rows, duration
        self._ends = list(accumulate(len(part) for part in (shards if rows is None else rows)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def find(self, position: int) -> tuple[Shard, int]:
        """The shard that holds sample number `position`, and its row there."""
        if not 0 <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)} in {self.name}")
        which = bisect_right(self._ends, position)
        place = position - (self._ends[which - 1] if which else 0)
        return self.shards[which], place if self.rows is None else int(self.rows[which][place])


class ShardFolder:
    """A folder of tar shards, with or without the `index.json` that `moviegen data build` writes."""

    def __init__(self, path: str | Path):
        refuse_url(path)
        self.path = Path(path)
        if not self.path.is_dir():
            raise ShardError(f"{self.path}: no such folder of shards")
        if line := unfinished.told(self.path):
            raise ShardError(line)
        records = self._records()
        names = records or {tar.name: {} for tar in sorted(self.path.glob("*.tar"))}
        if not names:
            raise ShardError(f"{self.path}: no .tar shards in this folder")
        self.shards = [Shard(self.path / name, record) for name, record in sorted(names.items())]

    def _records(self) -> dict[str, dict]:
        file = self.path / "index.json"
        if not file.is_file():
            return {}
        try:
            records = {record["name"]: record for record in json.loads(file.read_text())["shards"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{file}: not a shard index ({type(error).__name__}: {error})") from None
        for name in records:
            if not isinstance(name, str) or Path(name).name != name or not name.strip("."):
                raise ShardError(
                    f"{file}: names the shard {name!r}; write the plain name of a file in the same folder"
                )
        return records

    def sets(self, split: str, match: str = "*") -> list[ShardSet]:
        """The shards of a split whose file name matches, one set for each size (bucket)."""
        chosen = [shard for shard in self.shards if shard.split == split and fnmatch(shard.path.name, match)]
        if not sum(len(shard) for shard in chosen):
            has = ", ".join(sorted({shard.split for shard in self.shards}))
            raise ShardError(
                f"{self.path}: no samples of split {split!r} in tars {match!r}; splits here: {has}"
            )
        buckets: dict[tuple[int, ...], list[Shard]] = {}
        for shard in chosen:
            buckets.setdefault(shard.bucket or (), []).append(shard)
        return [
            ShardSet(f"{self.path}/{split}{list(bucket) if bucket else ''}", shards)
            for bucket, shards in sorted(buckets.items())
        ]
