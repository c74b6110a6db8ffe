"""Is there room for what a command is about to write? Asked before anything is launched."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def check_output(folder: str | Path, needed_bytes: int = 0, key: str = "run_dir") -> None:
    """Raise OSError or ValueError, naming `key` and `folder`, unless files of `needed_bytes` can be written there.

    A folder that does not exist is not made: its nearest parent is tried with a small file, which is removed.
    """
    folder = Path(folder).absolute()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=parent, prefix=".moviegen_room_") as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise ValueError(
            f"{key}={folder}: cannot write there ({parent}: {error.strerror}); make room or choose another folder"
        ) from None
    free = shutil.disk_usage(parent).free
    if free < needed_bytes:
        raise ValueError(
            f"{key}={folder}: {size(free)} are free, and two checkpoints (a new one is written beside the one before) "
            f"need at least {size(needed_bytes)}; make room or choose another folder"
        )


def size(num_bytes: float) -> str:
    """A number of bytes for people: 1.5 GB, 12 MB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"
