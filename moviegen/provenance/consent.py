"""Consent records: who may be shown or learned from, for what, until when, and what was made on the strength of it.

A store is a folder with `<id>.json` for each record and `<id>.uses.jsonl` with what used it. A record covers one
subject (a person) or one source (a recording) through hashes of files, so it is of no use for anybody else's picture.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SCOPES = ("training", "sampling")
COVERS = ("subject", "source")
NONE_NEEDED = "none-needed"  # what records of shards say of clips that show nobody
ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class ConsentError(ValueError):
    """There is no consent for what was asked; one line that says how to get or add it."""


@dataclass(frozen=True)
class Consent:
    """One record. Dates are ISO days; the last day still counts."""

    id: str
    covers: str  # one of COVERS
    name: str  # of the person or the recording; a pseudonym will do
    kind: str  # how it was given: signed form, public test sequence, ...
    licence: str  # SPDX or custom:...
    scope: tuple[str, ...]  # of SCOPES
    purpose: str
    expires: str
    evidence_sha256: str  # of the document that proves it, which is kept elsewhere
    files: tuple[str, ...]  # sha256 of each picture or recording that it covers
    added: str
    revoked: str | None = None
    reason: str | None = None  # of the revocation

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id):
            raise ConsentError(f"a consent id is of small letters, digits, _ and -, not {self.id!r}")
        if self.covers not in COVERS:
            raise ConsentError(f"consent {self.id}: covers must be subject or source, not {self.covers!r}")
        if not self.scope or set(self.scope) - set(SCOPES):
            raise ConsentError(
                f"consent {self.id}: scope names some of {', '.join(SCOPES)}, not {list(self.scope)}"
            )
        for name in ("name", "kind", "licence", "purpose"):
            if not getattr(self, name).strip():
                raise ConsentError(f"consent {self.id}: {name} is empty; say what the record allows and why")
        for day in filter(None, (self.expires, self.added, self.revoked)):
            _day(day, self.id)
        for digest in (self.evidence_sha256, *self.files):
            if not SHA256.fullmatch(digest):
                raise ConsentError(f"consent {self.id}: {digest!r} is no sha256; give the files themselves")
        if not self.files:
            raise ConsentError(
                f"consent {self.id}: covers no file; name the pictures or recordings with files=[...]"
            )


def _day(text: str, owner: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ConsentError(f"consent {owner}: {text!r} is no day; write it as 2027-12-31") from None


def file_sha256(path: Path | str) -> str:
    """Hex digest of a file's content; ConsentError where there is none."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConsentError(f"{path}: cannot be read ({error.strerror})") from None


def people_in_shards(folders: Iterable[Path | str]) -> set[str]:
    """Ids of the consent records that the references in folders of shards rely on, from each index.json.

    ConsentError for references of which the index does not tell whether they show people or drawn characters.
    """
    found: set[str] = set()
    for folder in folders:
        try:
            index = json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))
            records = [dict(record) for record in index["shards"]]
        except (OSError, ValueError, KeyError, TypeError):
            records = [{}]
        for record in records:
            if record.get("faces") not in ("synthetic", "people"):
                raise ConsentError(
                    f"{folder}: its index.json does not say whose faces these are; moviegen data identities writes it"
                )
            if record["faces"] == "people":
                found |= {str(consent) for consent in record.get("consents") or ["unrecorded"]}
    return found


class ConsentStore:
    """The records in a folder; `today` is the day on which they are asked for."""

    def __init__(self, folder: Path | str, today: datetime.date | None = None):
        self.folder = Path(folder)
        self.today = today or datetime.datetime.now(datetime.UTC).date()

    def ids(self) -> list[str]:
        """Ids of all records, in order."""
        return sorted(path.stem for path in self.folder.glob("*.json") if ID.fullmatch(path.stem))

    def get(self, consent_id: str) -> Consent:
        """A record; ConsentError where there is none, or it is damaged."""
        path = self._path(consent_id)
        if not path.is_file():
            raise ConsentError(f"no consent {consent_id!r} in {self.folder}; {self._advice(consent_id)}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Consent(**values | {name: tuple(values[name]) for name in ("scope", "files")})
        except ConsentError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConsentError(f"{path}: is no consent record ({reason}); add it again") from None

    def add(self, record: Consent) -> None:
        """Write a new record; ConsentError for an id that is taken or a record that has expired."""
        if self._path(record.id).exists():
            raise ConsentError(
                f"consent {record.id!r} exists in {self.folder}; choose another id, or revoke it"
            )
        if _day(record.expires, record.id) < self.today:
            raise ConsentError(f"consent {record.id}: expires={record.expires} lies in the past")
        self._write(record)

    def revoke(self, consent_id: str, reason: str) -> list[dict[str, Any]]:
        """Revoke a record from today on; returns what used it, see `uses`. A second time changes nothing."""
        record = self.get(consent_id)
        if record.revoked is None:
            self._write(replace(record, revoked=self.today.isoformat(), reason=reason))
        return self.uses(consent_id)

    def check(self, consent_id: str | None, file_sha256s: Iterable[str], scope: str) -> Consent:
        """The record that allows the use of files with these hashes; ConsentError where none does.

        Args:
            consent_id: of the record; None or "unrecorded" is none.
            file_sha256s: of the reference, or of the recordings that clips were cut from.
            scope: one of SCOPES.
        """
        if consent_id in (None, "", "unrecorded", NONE_NEEDED):
            raise ConsentError(f"a real person's face needs a consent record; {self._advice('ID')}")
        record = self.valid(str(consent_id), scope)
        if any(digest not in record.files for digest in file_sha256s):
            raise ConsentError(
                f"consent {record.id} ({record.name}) does not cover this file; it names {len(record.files)} others: "
                f"{self._advice(record.id + '-2')}"
            )
        return record

    def valid(self, consent_id: str, scope: str) -> Consent:
        """A record that is neither revoked nor expired and allows `scope`; ConsentError otherwise."""
        record = self.get(consent_id)
        if record.revoked is not None:
            because = f" ({record.reason})" if record.reason else ""
            raise ConsentError(
                f"consent {record.id} ({record.name}) was revoked on {record.revoked}{because}; it cannot be used"
            )
        if _day(record.expires, record.id) < self.today:
            raise ConsentError(
                f"consent {record.id} ({record.name}) expired on {record.expires}; ask again, then "
                f"{self._advice(record.id + '-2')}"
            )
        if scope not in record.scope:
            raise ConsentError(
                f"consent {record.id} ({record.name}) allows {' and '.join(record.scope)}, not {scope}"
            )
        return record

    def record_use(self, consent_id: str, kind: str, path: Path | str, sha256: str) -> None:
        """Note that shards, a run or a model were made on the strength of a record, to be listed when it is revoked.

        `path` is a file, with its sha256, or the folder of a run, with that of its consents.json.
        """
        note = {
            "kind": kind,
            "path": str(Path(path).resolve()),
            "sha256": sha256,
            "date": self.today.isoformat(),
        }
        known = [{**use, "date": note["date"]} for use in self.uses(consent_id)]
        if note not in known:
            with (self.folder / f"{consent_id}.uses.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")

    def uses(self, consent_id: str) -> list[dict[str, Any]]:
        """What used a record: {kind, path, sha256, date}, oldest first."""
        path = self.folder / f"{consent_id}.uses.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []

    def _path(self, consent_id: str) -> Path:
        if not ID.fullmatch(consent_id):
            raise ConsentError(f"a consent id is of small letters, digits, _ and -, not {consent_id!r}")
        return self.folder / f"{consent_id}.json"

    def _advice(self, consent_id: str) -> str:
        return (
            f"add one: moviegen consent add id={consent_id} name=WHO files=[PICTURE] evidence=FORM.pdf "
            f"expires=YEAR-MONTH-DAY purpose=WHY store={self.folder}"
        )

    def _write(self, record: Consent) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(record.id)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=self.folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record), indent=1) + "\n")
            Path(name).replace(path)  # readable by its owner alone: it names people
        finally:
            Path(name).unlink(missing_ok=True)
