"""What a checkpoint folder holds, in json: where each part of each tensor lies, under which digest, and plain values.

`manifest.sha256` has the digest of `manifest.json` (`sha256sum -c manifest.sha256` reads it). Nothing is pickled, and
what the json says of files is held against the rules before any is opened.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
NAME, DIGEST = "manifest.json", "manifest.sha256"
DTYPES = {  # ours, which are torch's, and those of safetensors headers
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, or is damaged, or does not fit; one line that names it."""


@dataclass(frozen=True)
class Chunk:
    """A part of a tensor: where it belongs in the whole, and its bytes in a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A whole tensor, whose chunks cover it."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Manifest:
    """The whole of a checkpoint. `state` holds plain values that were the same on all ranks."""

    step: int
    num_ranks: int
    tensors: dict[str, Entry]
    state: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        return sum(chunk.num_bytes for entry in self.tensors.values() for chunk in entry.chunks)

    def to_json(self) -> bytes:
        """The text of manifest.json."""
        tensors = {name: asdict(entry) for name, entry in self.tensors.items()}
        whole = {"format": FORMAT, "step": self.step, "num_ranks": self.num_ranks, "tensors": tensors}
        return json.dumps({**whole, "state": self.state}, allow_nan=False).encode()


def digest_line(text: bytes) -> bytes:
    """The text of manifest.sha256, as sha256sum writes it."""
    return f"{hashlib.sha256(text).hexdigest()}  {NAME}\n".encode()


def read_manifest(folder: Path, sha256: str | None = None) -> Manifest:
    """Read and check the manifest of a checkpoint folder; raises CheckpointError.

    `sha256` is what the manifest must have, if that is known from elsewhere.
    """
    try:
        text, line = (folder / NAME).read_bytes(), (folder / DIGEST).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder} is no whole checkpoint: {error.strerror} ({error.filename})"
        ) from error
    if line != digest_line(text) or (sha256 is not None and line.split()[0].decode() != sha256):
        raise CheckpointError(f"{folder / NAME} is damaged: its digest is not the one that was written")
    try:
        return _parsed(json.loads(text), folder)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{folder / NAME} is not what this version writes ({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _parsed(node: Any, folder: Path) -> Manifest:
    if node["format"] != FORMAT:
        raise CheckpointError(f"{folder / NAME} is of format {node['format']}, this version reads {FORMAT}")
    tensors = {name: _entry(name, one, folder) for name, one in node["tensors"].items()}
    state = node["state"]
    if not isinstance(state, dict):
        raise TypeError("state is no object")
    return Manifest(_count(node["step"]), _count(node["num_ranks"]), tensors, state)


def _entry(name: str, node: Mapping[str, Any], folder: Path) -> Entry:
    """One tensor; its chunks must lie within it and cover it, and their files within the folder."""
    if node["dtype"] not in DTYPES:
        raise CheckpointError(f"{folder / NAME}: {name} is of unknown type {str(node['dtype'])[:40]!r}")
    shape = tuple(_count(size) for size in node["shape"])
    item = getattr(torch, node["dtype"]).itemsize
    chunks = tuple(_chunk(one) for one in node["chunks"])
    for chunk in chunks:
        inside = len(chunk.offsets) == len(chunk.sizes) == len(shape) and all(
            first + size <= most for first, size, most in zip(chunk.offsets, chunk.sizes, shape, strict=True)
        )
        if (
            not inside
            or chunk.num_bytes != math.prod(chunk.sizes) * item
            or Path(chunk.file).name != chunk.file
        ):
            raise CheckpointError(
                f"{folder / NAME}: a part of {name} does not lie within it, or not in the folder"
            )
    covered = sum(math.prod(chunk.sizes) for chunk in chunks)
    if covered != math.prod(shape) or len({chunk.offsets for chunk in chunks if chunk.num_bytes}) != sum(
        chunk.num_bytes > 0 for chunk in chunks
    ):
        raise CheckpointError(
            f"{folder / NAME}: the parts of {name} have {covered} of its {math.prod(shape)} values"
        )
    return Entry(node["dtype"], shape, chunks)


def _chunk(node: Mapping[str, Any]) -> Chunk:
    return Chunk(
        offsets=tuple(_count(one) for one in node["offsets"]),
        sizes=tuple(_count(one) for one in node["sizes"]),
        file=str(node["file"]),
        start=_count(node["start"]),
        num_bytes=_count(node["num_bytes"]),
        sha256=str(node["sha256"]),
    )


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{str(value)[:40]!r} where a count is wanted")
    return value
