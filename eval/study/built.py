"""What `moviegen eval study build` leaves: videos of equal form under names that say nothing, and which is which.

`build.json` is for the server alone; it stands beside, not in, the folder `media` of which raters see the files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moviegen_eval.files import read_json, write_json
from moviegen_eval.records import parse_record
from moviegen_eval.study.study import Study

MANIFEST = "build.json"
VERSION = 1


@dataclass(frozen=True)
class BuiltPair:
    """The two videos of one item: file names in `media`, and the form that both have."""

    a: str
    b: str
    width: int
    height: int
    frame_rate: float
    num_frames: int
    duration_seconds: float
    sound: bool
    loudness_lufs: float | None  # that both were brought to; None: no sound, or silence
    source: str  # sha256 over the two source files and the settings: built anew when it changes
    notes: list[str]  # what was done to make them equal
    reference: str | None = None  # file in `media` of what both are held against

    @property
    def names(self) -> tuple[str, ...]:
        """All files of the item."""
        return (self.a, self.b, self.reference) if self.reference else (self.a, self.b)


@dataclass(frozen=True)
class Built:
    """A folder of equal pairs for a study; `items` is complete before `files` is asked for."""

    folder: Path
    items: dict[str, BuiltPair]

    @cached_property
    def files(self) -> dict[str, Path]:
        """Every video, and picture that one is held against, by its opaque name."""
        names = (name for pair in self.items.values() for name in pair.names)
        return {name: self.folder / "media" / name for name in names}

    @property
    def durations(self) -> dict[str, float]:
        """Seconds by item."""
        return {item: pair.duration_seconds for item, pair in self.items.items()}


def read_built(folder: Path, digest: str | None = None) -> Built:
    """Read build.json. Raises ValueError where it is of another study (`digest`), or not whole."""
    path = folder / MANIFEST
    values = read_json(path)
    if not isinstance(values, dict) or values.get("version") != VERSION or "items" not in values:
        raise ValueError(f"{path}: is no build.json of version {VERSION}; run `moviegen eval study build`")
    if digest is not None and values.get("study") != digest:
        found = str(values.get("study"))[:12]
        raise ValueError(f"{path}: was built for study {found}, not {digest[:12]}; build it again")
    items = {
        key: parse_record(BuiltPair, row, f"{path}: items.{key}") for key, row in values["items"].items()
    }
    return Built(folder, items)


def write_built(built: Built, digest: str) -> None:
    """Write build.json."""
    rows = {key: asdict(pair) for key, pair in built.items.items()}
    write_json(built.folder / MANIFEST, {"version": VERSION, "study": digest, "items": rows})


def check_built(built: Built, study: Study) -> None:
    """Raise ValueError unless every item of the study has both its videos."""
    without = [item.id for item in study.items if item.id not in built.items]
    if without:
        raise ValueError(f"{built.folder}: item {without[0]!r} is not built ({len(without)} such items)")
    lost = [name for name, path in built.files.items() if not path.is_file()]
    if lost:
        raise ValueError(
            f"{built.folder / 'media' / lost[0]}: is missing ({len(lost)} such files); build again"
        )
    mute = [item.id for item in study.items if not built.items[item.id].sound]
    heard = [axis.key for axis in study.axes if axis.sound]
    if heard and mute:
        raise ValueError(
            f"axis {heard[0]!r} is judged with sound, but item {mute[0]!r} has none ({len(mute)} such items)"
        )
    check_references(study)


def check_references(study: Study) -> None:
    """Raise ValueError where an axis is judged against a reference that an item lacks."""
    axis, alone = study.without_reference()
    if axis and alone:
        raise ValueError(
            f"axis {axis.key!r} is judged against a reference, but item {alone[0]!r} has none ({len(alone)} such "
            "items); give each its picture or video as `reference`"
        )


def summary(built: Built) -> dict[str, Any]:
    """How many pairs, and how many had to be changed in which way."""
    notes: dict[str, int] = {}
    for pair in built.items.values():
        for note in pair.notes:
            kind = note.split(":")[0]
            notes[kind] = notes.get(kind, 0) + 1
    return {"pairs": len(built.items), **notes}
