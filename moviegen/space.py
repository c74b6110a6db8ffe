"""Can files be written to a folder? Asked before anything is launched."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_output(folder: str | Path, key: str = "run_dir") -> None:
    """Raise ValueError, naming `key` and `folder`, for a read-only or full place, or one that is no folder.

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
