"""Results of single clips, kept by what they depend on: the metric's manifest, and the files and words it was given.

One file a clip and metric, written whole: processes of one job array may share a cache, and a broken-off run goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.files import write_atomically
from moviegen_eval.scores import manifest_digest

from moviegen.media import atomic_path


class ScoreCache:
    """A folder `<root>/<name>-<digest of the manifest>/<two digits>/<key>.json` or `.npy`."""

    def __init__(self, root: Path):
        self.root = root
        self._hashes: dict[tuple[Path, int, int], str] = {}

    def file_sha256(self, path: Path) -> str:
        """sha256 of a file, computed once as long as size and time stay."""
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def path(self, name: str, manifest: Mapping[str, Any], key: Mapping[str, Any]) -> Path:
        """Where a result lies, without its suffix."""
        digest = manifest_digest(key)
        return self.root / f"{name}-{manifest_digest(manifest)[:16]}" / digest[:2] / digest

    def read_scores(self, path: Path) -> dict[str, Any] | None:
        """Scores, or {"error": reason}; None where there is no whole file."""
        try:
            found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_scores(self, path: Path, scores: Mapping[str, Any]) -> None:
        """Keep scores, or {"error": reason}."""
        write_atomically(path.with_suffix(".json"), json.dumps(dict(scores), allow_nan=False))

    def read_features(self, path: Path) -> np.ndarray | None:
        """Features [N, D]; None where there is no whole file."""
        try:
            return np.load(path.with_suffix(".npy"), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def write_features(self, path: Path, features: np.ndarray) -> None:
        """Keep features [N, D]."""
        with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(features, np.float32), allow_pickle=False)
