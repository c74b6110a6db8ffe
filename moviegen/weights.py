"""The manifest of external weights: what each is for, where it comes from, its licence and checksum.

Nothing is fetched: files come with a package or by a local path. Where no checksum is known the manifest says so, and
what is used is recorded beside the results. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MANIFEST = Path(__file__).with_name("weights.json")
UNKNOWN = "unknown: recorded on first use"


@dataclass(frozen=True)
class ExternalWeight:
    """One file (or model folder) that somebody else made."""

    name: str
    file: str  # its name at the source
    used_by: str
    source: str
    licence: str
    sha256: str | None  # of the whole file; None where unknown
    sha256_prefix: str | None  # the part of it that the publisher puts into the file's name
    without: str  # what runs, or is lost, without it

    @property
    def checksum(self) -> str:
        """The checksum as a table shows it."""
        return self.sha256 or (f"{self.sha256_prefix}..." if self.sha256_prefix else UNKNOWN)


def read_manifest() -> dict[str, ExternalWeight]:
    """All external weights by name."""
    rows = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return {row["name"]: ExternalWeight(**row) for row in rows}


def check_weight(name: str, path: str | Path) -> dict[str, str]:
    """Hold a local file against the manifest; return what to record: name, path, sha256, and whether it was known.

    Raises ValueError for a name that is not in the manifest, no file, or another checksum than the manifest's.
    """
    manifest, file = read_manifest(), Path(path)
    if name not in manifest:
        raise ValueError(f"weights.{name}: not in the manifest; known: {', '.join(manifest)}")
    weight = manifest[name]
    if not file.is_file():
        raise ValueError(f"weights.{name}={path}: no such file; it comes from: {weight.source}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    wanted = weight.sha256 or weight.sha256_prefix
    if wanted and not found.startswith(wanted):
        raise ValueError(f"weights.{name}={path}: sha256 is {found}, expected {weight.checksum}")
    return {"name": name, "path": str(file), "sha256": found, "manifest": weight.checksum}


def check_weights(paths: Mapping[str, str]) -> list[dict[str, str]]:
    """`check_weight` for each of several files."""
    return [check_weight(name, path) for name, path in paths.items()]
