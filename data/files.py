"""Finding source files, their captions and their rights; nothing here opens a video."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
from dataclasses import dataclass, field
from pathlib import Path

from moviegen_data.config import FileSource, check_licence

from moviegen.media import MediaError

SIDECARS = {".txt", ".csv"}


@dataclass(frozen=True)
class Rights:
    """By what right a file is used."""

    licence: str | None
    licence_url: str | None
    consent: str


@dataclass(frozen=True)
class SourceFile:
    """One real file that a source names."""

    path: Path
    shown: str  # as the source named it
    caption: str | None
    rights: Rights
    problem: str | None = None  # why it cannot be used, where that is known without opening it


@dataclass
class Captions:
    """A captions csv: caption and rights by file name or by path relative to the csv."""

    path: Path | None = None
    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def row(self, file: Path) -> dict[str, str]:
        """The row of a file, or nothing."""
        if self.path is None:
            return {}
        beside = self.path.resolve().parent
        relative = file.relative_to(beside).as_posix() if file.is_relative_to(beside) else file.name
        return self.rows.get(relative) or self.rows.get(file.name) or {}


def resolve_package(path: str) -> Path:
    """The file behind `package:NAME/path/in/it`; the package is located, not imported.

    Raises:
        ValueError: the package is not installed.
    """
    package, _, rest = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ValueError(
            f"{path}: the package {package} is not installed; see the extra 'demo' of pyproject.toml"
        )
    return Path(spec.origin).parent / rest


def list_files(source: FileSource) -> list[SourceFile]:
    """All files of a source in order of their names; those that are missing are listed too.

    Raises:
        ValueError: an empty folder, a pattern that fits nothing, a url, or an unreadable captions file.
    """
    captions = read_captions(Path(source.captions)) if source.captions else Captions()
    found: dict[Path, str] = {}
    for text in source.paths:
        if "://" in text or text.startswith("pipe:"):
            raise ValueError(f"source {source.name}: {text} is a url; only local files are read")
        for path in _expand(text, source.name):
            found.setdefault(path.resolve(), text if text.startswith("package:") else str(path))
    skipped = {captions.path.resolve()} if captions.path else set()
    media = {path.with_suffix("") for path in found if path.suffix.lower() not in SIDECARS}
    files = []
    for path, shown in sorted(found.items(), key=lambda item: (item[0].name, str(item[0]))):
        if path not in skipped and not (path.suffix.lower() == ".txt" and path.with_suffix("") in media):
            files.append(_source_file(path, shown, source, captions))
    if not files:
        raise ValueError(f"source {source.name}: no files in {', '.join(source.paths)}")
    return files


def _expand(text: str, name: str) -> list[Path]:
    path = resolve_package(text) if text.startswith("package:") else Path(text).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        if not inside:
            raise ValueError(f"source {name}: the folder {text} is empty")
        return inside
    if any(sign in text for sign in "*?[") and not path.exists():
        base = Path(path.anchor or ".")
        matches = sorted(p for p in base.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
        if not matches:
            raise ValueError(f"source {name}: nothing fits the pattern {text}")
        return [p for p in matches if p.is_file()]
    return [path]


def _source_file(path: Path, shown: str, source: FileSource, captions: Captions) -> SourceFile:
    row, problem, caption = captions.row(path), None, None
    try:
        caption = row.get("caption") if captions.path is not None else _sidecar(path.with_suffix(".txt"))
    except MediaError as error:
        problem = str(error)
    licence = row.get("licence") or source.licence
    check_licence(licence, shown)
    url = row.get("licence_url") or (None if row.get("licence") else source.licence_url) or _spdx_url(licence)
    rights = Rights(licence or None, url, row.get("consent") or source.consent)
    return SourceFile(path, shown, caption or None, rights, problem)


def _spdx_url(licence: str | None) -> str | None:
    if not licence or licence.startswith("custom:") or " " in licence:
        return None
    return f"https://spdx.org/licenses/{licence}.html"


def _sidecar(path: Path) -> str | None:
    if not path.is_file():
        return None
    return " ".join(_utf8(path).split())


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MediaError(path, f"is not UTF-8 (byte {error.start}); save it as UTF-8", "caption") from None


def read_captions(path: Path) -> Captions:
    """Read a csv with the columns file and caption, in UTF-8; ValueError says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"captions file {path}: no such file")
    reader = csv.DictReader(io.StringIO(_utf8(path), newline=""))
    if not {"file", "caption"} <= set(reader.fieldnames or ()):
        raise ValueError(f"captions file {path}: needs the columns file,caption, has {reader.fieldnames}")
    rows = {}
    for record in reader:
        row = {
            key: " ".join(value.split()) for key, value in record.items() if key and isinstance(value, str)
        }
        rows[row["file"]] = row
    return Captions(path, rows)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
