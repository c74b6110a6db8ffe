"""Faults: calls of the operating system that fail, tear or take long, and files that are damaged on the disk."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from moviegen.callbacks import folders

# of a save, all that can fail
CALLS = ("open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir")


class FaultySystem:
    """Stands for the modules `os` and `shutil` where checkpoints are written; `calls` has the names of what was called.

    Does `fault` at call number `at`, counted from 1, or from it on.
    """

    def __init__(self, fault: Callable[[str, tuple], None], at: int, forever: bool = False):
        self.fault, self.at, self.forever, self.calls = fault, at, forever, []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.at or (self.forever and len(self.calls) > self.at):
                self.fault(name, arguments)
            return real(*arguments)

        return call

    def rmtree(self, folder: Path, ignore_errors: bool) -> None:
        """A folder of files removed by calls that are counted; what cannot be removed stays, as with shutil's own."""
        assert ignore_errors
        with suppress(OSError):
            for path in sorted(folder.iterdir()):
                self.unlink(path)
            self.rmdir(folder)

    def install(self) -> None:
        """From now on, in this process."""
        folders.os = folders.shutil = self  # type: ignore[assignment]


def fails(number: int) -> Callable[[str, tuple], None]:
    """A call that fails with this error number."""

    def fault(name: str, arguments: tuple) -> None:
        if name == "close":  # what cannot be closed is closed all the same
            os.close(arguments[0])
        raise OSError(number, os.strerror(number))

    return fault


def dies(name: str, arguments: tuple) -> None:
    """SIGKILL at a call; a write is done by half before."""
    if name == "write":
        handle, data = arguments
        os.write(handle, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def dies_where_all_takes_long(
    seconds: float, at: int, before: Callable[[], None]
) -> Callable[[str, tuple], None]:
    """A disk on which every call takes so long, and SIGKILL at call number `at`, once `before` has returned."""
    calls = itertools.count(1)

    def fault(name: str, arguments: tuple) -> None:
        time.sleep(seconds)
        if next(calls) == at:
            before()
            dies(name, arguments)

    return fault


def takes_long(seconds: float, began: Path) -> Callable[[str, tuple], None]:
    """A disk on which every call takes so long; `began` appears with the first."""

    def fault(name: str, arguments: tuple) -> None:  # noqa: ARG001
        began.touch()
        time.sleep(seconds)

    return fault


ENOSPC, EIO = errno.ENOSPC, errno.EIO


def files_of(root: Path) -> list[Path]:
    """All files of a folder of checkpoints, sorted."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit of a file; says which."""
    data = bytearray(path.read_bytes())
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name} byte {place} bit {bit}"


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder to be damaged."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
