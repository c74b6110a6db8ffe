"""The folder of `moviegen edit`: whose files lie there, and which edits are finished.

Beside each edited file `<id>.json` says what made it. With strips, `<id>_strip.png` and its own json follow at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from moviegen import runfolder
from moviegen.config import UserError

MANIFEST = "manifest.jsonl"
RUN_FILES = ("run.json", "config.yaml", MANIFEST)
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Edit:
    """One edit that is asked for."""

    id: str
    source: str
    still: bool
    instruction: str
    task: str
    caption: str | None = None  # of the clip after the edit, for models that know no source

    @property
    def file(self) -> str:
        """The name of the edited file."""
        return self.id + (".png" if self.still else ".mp4")

    @property
    def strip(self) -> list[str]:
        """The names of its strip and the strip's side-car."""
        return [f"{self.id}_strip.png", f"{self.id}_strip.json"]

    @property
    def files(self) -> list[str]:
        """The names of all that may be written of it."""
        return [self.file, f"{self.id}.json", *self.strip]


def check_outputs(out: Path, edits: Sequence[Edit], table: str | None = None) -> None:
    """Raise UserError where a file of these edits would be another's: another edit's, the run's, a source, or foreign.

    Args:
        table: the file of edits, which is read like a source.
    """
    owners: dict[str, str] = dict.fromkeys(RUN_FILES, "the run")
    for one in edits:
        for name in one.files:
            if name in owners:
                raise UserError(f"edit {one.id}: {name} would be of {owners[name]} too; give another id")
            owners[name] = f"edit {one.id}"
    read = {Path(path).resolve() for path in [*(one.source for one in edits), *([table] if table else [])]}
    if lost := next((out / name for name in owners if (out / name).resolve() in read), None):
        raise UserError(f"{lost} is what these edits read, and would be replaced; choose another run_dir")
    strange = (out / name for one in edits for name in one.files if name not in _own(out, one))
    found = next((path for path in strange if os.path.lexists(path)), None)
    if found or not _own_manifest(out / MANIFEST):
        raise UserError(f"{found or out / MANIFEST} was not made by moviegen edit; choose another run_dir")


def outdated(out: Path, one: Edit) -> list[Path]:
    """Files of an earlier edit of this id that this one does not write over: a video where now is a picture."""
    return [out / name for name in _own(out, one) if name not in one.files]


def _own(out: Path, one: Edit) -> list[str]:
    """The files that an earlier edit of this id left in the folder."""
    earlier = _note(out, one).get("edit")
    return replace(one, still=bool(earlier.get("still"))).files if isinstance(earlier, dict) else []


def _own_manifest(path: Path) -> bool:
    """Whether a manifest, if there is one, lists edits."""
    try:
        first, *_ = path.read_text(encoding="utf-8").splitlines() or ["{}"]
        return "instruction" in json.loads(first)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False


def tell_replaced(out: Path, todo: Iterable[Edit]) -> None:
    """Print which edited files of an earlier run are made anew."""
    again = [one.file for one in todo if (out / one.file).is_file()]
    if again:
        more = f" and {len(again) - SHOWN} more" if len(again) > SHOWN else ""
        print(f"{out}: earlier edits are replaced: {', '.join(again[:SHOWN])}{more}")


def finished(out: Path, one: Edit, recipe: dict[str, Any], strips: bool) -> bool:
    """Whether the folder holds this edit, made of the same source in the same way, with its strip if that is wanted."""
    if not all((out / name).is_file() for name in [one.file, *(one.strip if strips else [])]):
        return False
    known = _note(out, one)
    same = json.loads(json.dumps({"edit": asdict(one), "recipe": recipe}))
    if {name: known.get(name) for name in same} != same or not Path(one.source).is_file():
        return False
    told, source = known.get("provenance") or {}, {"sha256": runfolder.file_sha256(one.source)}
    mine = runfolder.file_sha256(out / one.file)  # a run that died between file and side-car left another's
    return (told.get("sha256"), told.get("ingredients")) == (mine, [source])


@contextmanager
def reserved(out: Path, one: Edit) -> Iterator[None]:
    """While an edit is written its side-car names it: a file that is left without one would be taken for another's."""
    note = out / f"{one.id}.json"
    new = not note.exists()
    if new:
        runfolder.write_json(note, {"edit": asdict(one)})
    try:
        yield
    except BaseException:
        if new and not (out / one.file).exists():
            note.unlink(missing_ok=True)
        raise


def _note(out: Path, one: Edit) -> dict[str, Any]:
    """What `<id>.json` says; nothing where there is none that can be read."""
    try:
        known = runfolder.read_json(out / f"{one.id}.json")
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
