"""Where the checkpoints of a run lie, which one is the latest, and how a new one appears: whole, or not at all.

    checkpoints/step-000000200/   rank-00000.safetensors ..., manifest.json, manifest.sha256
    checkpoints/latest            {"folder": "step-000000200", "manifest_sha256": "..."}

A checkpoint is written under a hidden name and flushed to the disk; one rename then makes it visible, another moves
`latest`. A process that dies in between leaves a hidden folder, which the next start removes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moviegen.callbacks.manifest import DIGEST, NAME, CheckpointError, Manifest, digest_line

LATEST = "latest"
_VISIBLE, _HIDDEN = re.compile(r"step-\d{9,}"), re.compile(r"\.(step-\d{9,}(\.old)?|latest)\.part")


@dataclass(frozen=True)
class Folders:
    """The folder `root` of a run's checkpoints, of which the newest `keep` stay."""

    root: Path
    keep: int = 2

    def folder(self, step: int) -> Path:
        """Where a checkpoint lies once it is whole."""
        return self.root / f"step-{step:09d}"

    def hidden(self, step: int) -> Path:
        """Where it is written."""
        return self.root / f".step-{step:09d}.part"

    def begin(self, step: int) -> None:
        """Make an empty hidden folder."""
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.hidden(step), ignore_errors=True)
        os.mkdir(self.hidden(step))  # noqa: PTH102 (one call of the system, as everything here that can fail)

    def publish(self, manifest: Manifest) -> None:
        """Make a checkpoint visible whose files are all on the disk, then move `latest`, then remove old ones."""
        hidden, folder, text = self.hidden(manifest.step), self.folder(manifest.step), manifest.to_json()
        line = digest_line(text)
        write_file(hidden / NAME, [text])
        write_file(hidden / DIGEST, [line])
        flush_folder(hidden)
        if folder.exists():  # of a run that went back before it; a rename replaces no folder
            replaced = self.root / f".{folder.name}.old.part"
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(folder, replaced)  # noqa: PTH104
        os.rename(hidden, folder)  # noqa: PTH104
        flush_folder(self.root)
        note = {"folder": folder.name, "manifest_sha256": line.split()[0].decode()}
        beside = self.root / f".{LATEST}.part"
        write_file(beside, [json.dumps(note).encode() + b"\n"])
        os.replace(beside, self.root / LATEST)  # noqa: PTH105
        flush_folder(self.root)
        self.prune(manifest.step)

    def prune(self, step: int) -> None:
        """Of the checkpoints up to `step` leave the newest `keep`; later ones, of a run that went back, stay."""
        old = [folder for folder in self.whole() if _step(folder) <= step][self.keep :]
        for folder in old:
            gone = self.root / f".{folder.name}.old.part"
            with suppress(OSError):  # what cannot be removed now is tried again
                os.rename(folder, gone)  # noqa: PTH104 (first, so that half a folder is never taken for a checkpoint)
        self.clean()

    def clean(self) -> None:
        """Remove what unfinished saves and removals have left; nothing else is touched."""
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if _HIDDEN.fullmatch(path.name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()

    def whole(self) -> list[Path]:
        """Visible checkpoints, newest first."""
        found = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(
            (p for p in found if _VISIBLE.fullmatch(p.name) and p.is_dir()), key=_step, reverse=True
        )

    def latest(self) -> tuple[Path, str] | None:
        """The folder that `latest` names, and its manifest's digest; None if there is no readable `latest`."""
        try:
            note = json.loads((self.root / LATEST).read_text(encoding="utf-8"))
            name, digest = note["folder"], note["manifest_sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(name, str) or not isinstance(digest, str) or not _VISIBLE.fullmatch(name):
            return None
        return self.root / name, digest

    def candidates(self) -> list[tuple[Path, str | None]]:
        """What a run may go on from, with the digest that is wanted where one is known: `latest` first, then by age."""
        named = self.latest()
        rest: list[tuple[Path, str | None]] = [(p, None) for p in self.whole() if not named or p != named[0]]
        return [named, *rest] if named else rest

    def named(self, name: str) -> tuple[Path, str | None]:
        """The checkpoint called `name`, or the latest; raises CheckpointError if there is none."""
        if name == LATEST:
            found = self.latest()
            if found is None:
                raise CheckpointError(f"{self.root / LATEST} does not name a checkpoint")
            return found
        if not _VISIBLE.fullmatch(name) or not (self.root / name).is_dir():
            there = ", ".join(path.name for path in self.whole()) or "none"
            raise CheckpointError(f"{self.root} has no checkpoint {name!r}; there: {LATEST}, {there}")
        return self.root / name, None


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    """Write a file and flush it to the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for block in blocks:
            rest = memoryview(block)
            while len(rest):
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(path: Path) -> None:
    """Flush the names in a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
