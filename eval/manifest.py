"""The manifest of generated clips and images: `manifest.jsonl`, one line a clip, beside the files it names.

`moviegen generate` writes these lines; any other system's clips can be judged by writing the same file. `moviegen edit`
writes lines of its own (`EditedSample`), which name its clips as arms of a suite of edits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moviegen_eval.files import inside, read_json_lines, write_json_lines
from moviegen_eval.records import parse_record
from moviegen_eval.stills import is_still

MANIFEST = "manifest.jsonl"
RECIPE = "recipe.json"  # beside it where `moviegen generate` made the clips; others may lie there too
SETS = ("heldout", "template", "free")


@dataclass(frozen=True)
class GeneratedSample:
    """One generated clip and how it came about."""

    id: str  # unique within the manifest
    prompt: str
    path: str  # mp4, or png for a still; relative to the manifest's folder
    set: str  # "heldout" (combinations never trained on), "template" (held-out wording) or "free"
    spec: dict[str, Any] | None  # what the oracle should see; None where a prompt says nothing of it
    system: str
    seed: int
    steps: int
    guidance: float
    checkpoint: str
    frame_rate: float  # frames per second; 0 for a still
    commit: str
    original: str | None = None  # what the user wrote, where `prompt` is a rewriting of it
    image: str | None = None  # the frame that was given; relative to the manifest's folder, may lie outside
    image_frame: int = 0  # which frame of the clip it is
    references: list[str] | None = None  # pictures of the person to be seen; as `image`
    consent: str | None = None  # id of the record that allows their use
    tags: dict[str, str] | None = None  # e.g. concept and motion_level of Movie Gen Video Bench


@dataclass(frozen=True)
class EditedSample:
    """One clip or picture that `moviegen edit` wrote, as its manifest names it."""

    id: str
    source: str
    still: bool
    instruction: str
    task: str
    file: str  # relative to the manifest's folder
    caption: str | None = None
    keep: dict[str, Any] | None = None


def read_listing(folder: Path | str) -> list[tuple[str, str]]:
    """(id, path from the folder) of all that a manifest names, generated or edited; ValueError as `read_manifest`."""
    path = Path(folder) / MANIFEST
    rows = list(read_json_lines(path))
    if not all("instruction" in row for _, row in rows):
        return [(sample.id, sample.path) for sample in read_manifest(folder)]
    edited = [(where, parse_record(EditedSample, row, where)) for where, row in rows]
    for where, sample in edited:
        inside(path.parent, sample.file, where)
    return [(sample.id, sample.file) for _, sample in edited]


def read_manifest(folder: Path | str) -> list[GeneratedSample]:
    """Read `<folder>/manifest.jsonl`.

    Raises ValueError naming file and line for a missing, unknown or mistyped key, an unknown set, a judged
    prompt without a spec, a path that leaves the folder, or an id used twice. Whether the clips exist is not
    checked here: a missing clip is a wrong answer of the system, not a wrong manifest.
    """
    path = Path(folder) / MANIFEST
    samples: list[GeneratedSample] = []
    seen: set[str] = set()
    for where, row in read_json_lines(path):
        sample = parse_record(GeneratedSample, row, where)
        inside(path.parent, sample.path, where)
        if sample.set not in SETS:
            raise ValueError(f"{where}: set is {sample.set!r}; expected one of {', '.join(SETS)}")
        if sample.spec is None and sample.set != "free":
            raise ValueError(f"{where}: a prompt of set {sample.set!r} needs a spec to be judged against")
        if sample.frame_rate < 0 or (sample.frame_rate == 0 and not is_still(sample.path)):
            raise ValueError(f"{where}: frame_rate is {sample.frame_rate}; expected more than 0")
        if sample.id in seen:
            raise ValueError(f"{where}: id {sample.id!r} is used twice")
        seen.add(sample.id)
        samples.append(sample)
    return samples


def asked_for(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Those of a folder's files that the last request to `moviegen generate` asked for; all where it made none of them.

    Raises ValueError where it has not finished: what lies there may be of another request.
    """
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recipe = None
    if not isinstance(recipe, dict) or not isinstance(
        recipe.get("prompts"), dict
    ):  # not one of `moviegen generate`
        return list(files)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder}: moviegen generate has not finished it; give that command again")
    named = {folder / path for _, path in read_listing(folder)}
    return [path for path in files if path in named]


def write_manifest(folder: Path | str, samples: Iterable[GeneratedSample]) -> None:
    """Write `<folder>/manifest.jsonl` atomically."""
    write_json_lines(Path(folder) / MANIFEST, (asdict(sample) for sample in samples))
