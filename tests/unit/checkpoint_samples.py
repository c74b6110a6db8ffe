"""Checkpoints for tests: written and read by the storage itself, without a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moviegen.callbacks import storage
from moviegen.callbacks.folders import Folders


def save(
    root: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any] | None = None, keep: int = 2
) -> Path:
    """Write a checkpoint in this process; its folder."""
    folders = Folders(root, keep)
    storage.save(tensors, storage.Writer(folders, step, state or {}))
    return folders.folder(step)


def load(folder: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole, in this process."""
    manifest = storage.verify(folder, sha256)
    tensors = {name: torch.empty(e.shape, dtype=e.torch_dtype) for name, e in manifest.tensors.items()}
    storage.load(tensors, folder, manifest)
    return tensors


def latest_tensors(root: Path) -> tuple[int, dict[str, Tensor]]:
    """Step and tensors of the latest checkpoint of a run."""
    named = Folders(root).latest()
    assert named is not None
    return storage.verify(*named).step, load(*named)
