"""A folder of shards that is being written says so until it is finished, so that nobody takes half for all."""

from __future__ import annotations

from pathlib import Path

MARK = "UNFINISHED"
INDEX = "index.json"


def begin(folder: Path) -> None:
    """Mark a folder, and remove its index, which is no longer true."""
    (folder / MARK).write_text(
        "The command that writes these shards was broken off; the same command goes on.\n"
    )
    (folder / INDEX).unlink(missing_ok=True)


def end(folder: Path) -> None:
    """Take the mark away, when everything is there."""
    (folder / MARK).unlink(missing_ok=True)


def told(folder: Path) -> str:
    """Of a folder that is marked, a line that names it and says what to do; empty of another."""
    if not (folder / MARK).is_file():
        return ""
    return (
        f"{folder} is not finished: what writes it was broken off or still runs; give that command again "
        f"(or remove {folder / MARK} to take what is there)"
    )
