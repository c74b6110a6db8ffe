"""Writing whole files or nothing, and reading JSON and JSON lines strictly.

Every error is one line that names the file (and the line) and says what would be right.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path | str, data: str | bytes) -> None:
    """Write `data` to a temporary name in the same folder, then rename it over `path`; text is UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused because JSON has neither."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_json_lines(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomically(path, "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows))


def read_text(path: Path | str) -> str:
    """Return the file's UTF-8 text, or raise a ValueError of one line."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def read_json(path: Path | str) -> Any:
    """Return the parsed JSON file, or raise a ValueError of one line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not JSON ({error.msg} at line {error.lineno})") from None


def read_json_lines(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`<path>:<line number>`, object) for every line that is not blank."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: is not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}")
        yield where, row


def inside(folder: Path, relative: str, where: str) -> Path:
    """Return `folder / relative`; absolute paths and paths that leave the folder raise a ValueError."""
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{where}: path {relative!r} must be relative to {folder} and stay inside it")
    return folder / path


def source_file(folder: Path, name: str, where: str) -> Path:
    """The file of a source video that a suite names, as `inside`; TGVE leaves its suffix, .mp4, out."""
    path = inside(folder, name, where)
    whole = path.with_name(f"{path.name}.mp4")
    return whole if whole.is_file() and not path.is_file() else path
