"""Readers of the edit data that researchers have: folders of InstructPix2Pix's form, and tables of pairs.

A folder holds one folder a prompt with `prompt.json` ({"edit": ...}) and pictures `<seed>_0.jpg` (before) and
`<seed>_1.jpg` (after). A table is csv, json or jsonl with a row a pair: columns for the source, the target and the
instruction under the names that public sets use (Ditto, InstructPix2Pix, and their like); paths are relative to it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moviegen_data.edit_pairs import PairFile

COLUMNS = {
    "source": ("source", "source_path", "source_video", "src", "before", "input", "input_image", "original_image"),
    "target": (
        "target", "target_path", "target_video", "tgt", "after", "output",
        "edited", "edited_path", "edited_video", "edited_image",
    ),
    "instruction": ("instruction", "edit", "edit_prompt", "edit_instruction", "prompt"),
}  # fmt: skip
THING = ("object", "thing", "label", "class")  # of a video in which something is to be painted over
TASK_COLUMNS = ("task", "edit_type", "type", "kind")


def list_pairs(path: Path, things: bool = False) -> list[PairFile]:
    """The pairs of a folder or a table, in its order; of a table of `things`, each a video and a thing in it.

    Raises:
        ValueError: there is none, it cannot be read, or a row lacks what it needs (it is named).
    """
    if path.is_dir():
        pairs = _folder(path)
    elif path.is_file():
        pairs = [_pair(path, number, row, things) for number, row in enumerate(_rows(path), 1)]
    else:
        raise ValueError(f"{path}: no such table or folder of edit pairs")
    if not pairs:
        raise ValueError(
            f"{path}: no edit pairs; a table with source, target and instruction, or a folder of prompts"
        )
    return pairs


def _folder(path: Path) -> list[PairFile]:
    pairs = []
    for note in sorted(path.glob("*/prompt.json")):
        row = _json(note)
        instruction = row.get("edit") if isinstance(row, dict) else None
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"{note}: names no instruction under 'edit'")
        for before in sorted(note.parent.glob("*_0.*")):
            after = before.with_name(before.name.replace("_0.", "_1.", 1))
            if after.is_file():
                pairs.append(PairFile(before, after, instruction.strip(), None))
    return pairs


def _rows(path: Path) -> list[Mapping[str, Any]]:
    text = _text(path)
    if path.suffix.lower() == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    try:
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not json ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a json table is a list of rows, not {type(rows).__name__}")
    return rows


def _pair(path: Path, number: int, row: Any, things: bool) -> PairFile:
    if not isinstance(row, Mapping):
        raise ValueError(f"{path} row {number}: is no row of named values")
    found = {}
    columns = {"source": COLUMNS["source"], "thing": THING} if things else COLUMNS
    for what, names in columns.items():
        value = next(
            (row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None
        )
        if value is None:
            raise ValueError(f"{path} row {number}: has no {what}; columns may be called {', '.join(names)}")
        found[what] = value.strip()
    if things:
        video = _inside(path, number, found["source"])
        return PairFile(video, video, found["thing"], "segment")
    task = next((said for name in TASK_COLUMNS if (said := str(row.get(name) or "").strip())), None)
    before, after = (_inside(path, number, found[what]) for what in ("source", "target"))
    return PairFile(before, after, found["instruction"], task)


def _inside(table: Path, number: int, name: str) -> Path:
    if "://" in name or name.startswith("pipe:"):
        raise ValueError(f"{table} row {number}: {name} is a url; only local files are read")
    return table.parent / name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: not json ({error})") from None
