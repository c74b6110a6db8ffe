"""Prompts from outside, one of the command line or a file of them: read whole, and refused by line where one is wrong.

- `.txt`: one prompt a line, as Movie Gen Video Bench is published. Prompts that come twice are kept; the id is the
  number of the line, from 00001; blank lines are passed over and counted.
- `.csv`: a header with a column `prompt`; the id is the number of the row where no column says it, so that the Bench
  has the same ids in both of its forms. Columns that are called as a field of `.jsonl` lines mean the same (`image`;
  `seed` as `3` or `[3, 4]`); others (`concept`, `motion_level`) go into the manifest as tags.
- `.jsonl`: the fields of `Prompt`, with `text` written as `prompt` and `seeds` as `seed`, a number or a list.

Tabs and line breaks within a prompt become blanks; other control characters are refused.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moviegen.config import UserError, nearest

BREAKS = re.compile(r"[\t\r\n]+")
CONTROL = {"Cc": "control character", "Cs": "half of a character", "Zl": "line mark", "Zp": "paragraph mark"}
MAX_ID_LENGTH = 100  # a file's name has at most 255 bytes
RESERVED = ("recipe", "run")  # <id>.json would be a file that a run folder has anyway
# what certainly has no prompt on each line; files of other suffixes, or of none, are read as `.txt`
OTHER_FILES = (
    ".json .tsv .yaml .yml .toml .xml .html .parquet .arrow .xls .xlsx .ods .docx .odt .rtf .pdf .zip .gz"
)
EXAMPLE = '{"id": "1", "prompt": "a red star moves left"}'
FIELDS = (
    "id",
    "prompt",
    "set",
    "spec",
    "original",
    "image",
    "image_frame",
    "references",
    "consent",
    "seed",
    "tags",
)  # of a jsonl line


@dataclass(frozen=True)
class Prompt:
    """What to generate; `set`, `spec`, `image` and `tags` are copied into the manifest for whoever judges the clip."""

    id: str
    text: str
    set: str = "free"
    spec: dict[str, Any] | None = None
    original: str | None = None  # what the user wrote, where `text` is a rewriting of it
    image: str | None = None  # a given frame; in a file, relative to its folder
    image_frame: int = 0  # which frame of the clip it is; 0 is the first
    references: tuple[str, ...] = ()  # pictures of the person to be seen; in a file, relative to its folder
    consent: str | None = None  # id of the record that allows their use
    seeds: tuple[int, ...] = ()  # a clip for each; empty: what the command is set to
    tags: dict[str, str] = field(default_factory=dict)


def one_prompt(text: str) -> list[Prompt]:
    """The prompt of a command line. Raises UserError where it is empty or holds control characters."""
    return [Prompt("00001", clean(text, "prompt"))]


def read_prompts(path: str) -> list[Prompt]:
    """Read a prompt file. Raises UserError naming the file and line for anything that is not UTF-8 or no prompt."""
    file = Path(path)
    if file.suffix.lower() in OTHER_FILES.split():
        raise UserError(
            f"{file}: prompts are read from .txt (one a line), .csv (a column prompt) and .jsonl (an object a line)"
        )
    try:
        text = file.read_bytes().decode("utf-8-sig")  # some editors write a mark before the first prompt
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
    prompts = list(READERS.get(file.suffix.lower(), _lines)(file, text))
    if not prompts:
        raise UserError(f"{file} holds no prompt")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UserError(f"{file}: two prompts have the same id {prompt.id!r}")
        seen.add(prompt.id)
    return prompts


def check_single(prompt: Prompt, command: str) -> None:
    """Raise UserError for what `command`, which makes one video that begins with the image, cannot do for a line."""
    if prompt.references or prompt.consent:
        raise UserError(
            f"prompt {prompt.id} names a person's pictures or consent, which {command} does not take from a file: "
            "use moviegen personalize"
        )
    if prompt.image_frame:
        raise UserError(
            f"prompt {prompt.id}: image_frame={prompt.image_frame}, but what {command} makes begins with the image: "
            "use moviegen generate"
        )
    if len(prompt.seeds) > 1:
        raise UserError(
            f"prompt {prompt.id} has {len(prompt.seeds)} seeds; {command} makes one video of it: leave one"
        )


def clean(text: str, where: str) -> str:
    """A prompt on one line, without blanks around it; UserError where it is empty or no plain text."""
    line = BREAKS.sub(" ", text).strip()
    if not any(unicodedata.category(character)[0] in "LNPSM" for character in line):
        raise UserError(f"{where}: the prompt is empty")
    if not line.isprintable():  # few are not, and this is fast
        for place, character in enumerate(line):
            if kind := CONTROL.get(unicodedata.category(character)):
                raise UserError(
                    f"{where}: the prompt holds a {kind}, U+{ord(character):04X}, as character {place + 1}; remove it"
                )
    return line


def _lines(file: Path, text: str) -> Iterator[Prompt]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):  # splitlines knows eight more marks
        if line.strip():
            yield Prompt(f"{number:05d}", clean(line, f"{file}:{number}"))


def _table(file: Path, text: str) -> Iterator[Prompt]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if "prompt" not in (rows.fieldnames or ()):
            raise UserError(
                f"{file}: the first line must name a column prompt, it is {','.join(rows.fieldnames or ())!r}"
            )
        for number, row in enumerate(rows, 1):
            where = f"{file}:{rows.line_num}"
            if None in row or None in row.values():
                raise UserError(
                    f"{where}: row {number} has not the {len(rows.fieldnames or ())} cells of the first line; "
                    "put a prompt that holds commas in quotes"
                )
            told = {name: row.pop(name) for name in FIELDS if name in row and name != "tags"}
            given = {name: _cell(name, value) for name, value in told.items() if value or name == "prompt"}
            tags = {name: value for name, value in row.items() if value}
            yield _prompt({"id": f"{number:05d}", "tags": tags} | given, where, file.parent)
    except csv.Error as error:
        raise UserError(f"{file}: no csv after line {rows.line_num} ({error})") from error


def _cell(name: str, value: str) -> Any:
    """A cell of a table as `.jsonl` has that field: a text, or what is no text as json."""
    try:
        return json.loads(value) if name in ("seed", "image_frame", "spec", "references") else value
    except ValueError:
        return value  # which is refused by name


def _records(file: Path, text: str) -> Iterator[Prompt]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _prompt(_record(f"{file}:{number}", line), f"{file}:{number}", file.parent)


def _record(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is no prompt; write {EXAMPLE}") from error
    if not (isinstance(row, dict) and isinstance(row.get("prompt"), str) and "id" in row):
        raise UserError(f"{where} is no prompt; write {EXAMPLE}")
    if unknown := [name for name in row if name not in FIELDS]:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; {nearest(unknown[0], FIELDS)}")
    return row


def _prompt(row: dict[str, Any], where: str, folder: Path) -> Prompt:
    """The prompt of such fields; pictures are relative to `folder`."""
    name = str(row["id"])
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > MAX_ID_LENGTH or name in RESERVED:
        raise UserError(
            f"{where}: id {name[:40]!r} cannot name a file: letters, digits, - and _, at most {MAX_ID_LENGTH}, "
            f"not {' or '.join(RESERVED)}"
        )
    for key, kind in _TYPES.items():
        if not isinstance(row.get(key), kind | None):
            raise UserError(f"{where}: {key} is {row[key]!r}; it must be {_KINDS[kind]}")
    if not all(isinstance(reference, str) for reference in row.get("references") or []):
        raise UserError(f"{where}: references are {row['references']!r}; they must be paths of pictures")
    return Prompt(
        name,
        clean(row["prompt"], where),
        row.get("set") or "free",
        row.get("spec"),
        clean(row["original"], where) if row.get("original") else None,
        str(folder / row["image"]) if row.get("image") else None,
        _frame(row, where),
        tuple(str(folder / path) for path in row.get("references") or ()),
        row.get("consent"),
        _seeds(row.get("seed"), where),
        {str(key): str(value) for key, value in (row.get("tags") or {}).items()},
    )


def _frame(row: dict[str, Any], where: str) -> int:
    given = row.get("image_frame")
    place = 0 if given is None else given
    if not isinstance(place, int) or isinstance(place, bool) or place < 0:
        raise UserError(
            f"{where}: image_frame is {given!r}; it must be a whole number from 0, the first frame"
        )
    if given is not None and not row.get("image"):
        raise UserError(f"{where}: image_frame is {given}, of no image; name it on the line, as image")
    return place


def _seeds(given: Any, where: str) -> tuple[int, ...]:
    seeds = [] if given is None else given if isinstance(given, list) else [given]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds):
        raise UserError(f"{where}: seed is {given!r}; it must be a whole number from 0, or a list of them")
    return tuple(seeds)


_TYPES = {
    "spec": dict,
    "original": str,
    "image": str,
    "references": list,
    "consent": str,
    "set": str,
    "tags": dict,
}
_KINDS = {dict: "an object", str: "a text", list: "a list"}
READERS: dict[str, Callable[[Path, str], Iterator[Prompt]]] = {".csv": _table, ".jsonl": _records}
