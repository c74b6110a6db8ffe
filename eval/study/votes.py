"""Votes: one line of votes.jsonl each, written by appending only; everything else is computed from them.

An undo is a vote of its own that names the vote it takes back: with a new answer, or with the answer "none" for a
plain retraction. Nothing is ever removed from the log.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

# Signs are from the side of arm a: the mean of signs is the net win rate.
ANSWER_SIGNS = {"a": 1, "tie": 0, "b": -1, "none": 2}
SIDE_SIGNS = {"a": 1, "b": -1, None: 0}
MAX_TEXT = 10_000  # characters of a reason or of the details
VOTE_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"(?s).{1,200}")
_CHOICES: dict[str, tuple[str | None, ...]] = {"answer": tuple(ANSWER_SIGNS), "shown_left": tuple(SIDE_SIGNS)}
_PATTERNS = {
    "study": re.compile(r"[0-9a-f]{64}"),
    "item": _NAME,
    "axis": _NAME,
    "rater": _NAME,
    "id": VOTE_ID,
    "time": re.compile(r".{0,40}"),
}
_EXPECTED = {
    "study": "the 64 hex digits of a study file's digest",
    **dict.fromkeys(("item", "axis", "rater"), "a text of 1 to 200 characters"),
    "id": "32 hex digits",
    "time": "ISO 8601 with its offset, as 2026-01-31T12:00:00+00:00",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Vote:
    """One rater's answer to one axis of one item. Raises ValueError where a field cannot be right."""

    study: str  # digest of the study file
    item: str
    axis: str
    rater: str  # an opaque id
    answer: str  # "a" | "b" | "tie" in terms of arm_a and arm_b, never of sides; "none" takes back only
    shown_left: str | None  # "a" | "b": which arm stood on the left; None: not known (imported)
    watch_seconds: tuple[float | None, float | None] = (None, None)  # left, right; None: not known
    reason: str = ""
    time: str = field(default_factory=lambda: utc_now())  # UTC, ISO 8601; "": not known
    undoes: str | None = None  # id of the vote that this one takes back
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    source: str = "page"  # page, csv, mturk, prolific, simulated, ...
    details: dict[str, Any] = field(default_factory=dict)  # whatever else was seen: viewport, replays, ...

    def __post_init__(self) -> None:
        problem = vote_problem(self.__dict__)
        if problem:
            raise ValueError(f"vote {self.id!r}: {problem}")

    def to_line(self) -> str:
        """The vote as a line of the log, with its newline."""
        return json.dumps(self.__dict__, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


_KNOWN = frozenset(Vote.__dataclass_fields__)
_REQUIRED = frozenset(("study", "item", "axis", "rater", "answer", "shown_left", "time", "id"))
_OPTIONAL = {"watch_seconds": (None, None), "reason": "", "undoes": None, "source": "", "details": {}}


def utc_now() -> str:
    """The time now as votes carry it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def microseconds(time: str) -> int | None:
    """Microseconds since 1970 of an ISO 8601 time with its offset; None where it is none (or has no offset)."""
    try:
        moment = datetime.fromisoformat(time)
        return (moment - _EPOCH) // _MICROSECOND if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def vote_problem(row: Mapping[str, Any]) -> str | None:
    """Why the row is no vote, or None. Names the key, the value and what would be right."""
    if not row.keys() >= _REQUIRED:
        return f"key {min(_REQUIRED - row.keys())!r} is missing"
    if unknown := row.keys() - _KNOWN:
        return f"unknown key {min(unknown)!r}"
    for key, allowed in _CHOICES.items():
        value = row[key]
        if value not in allowed if isinstance(value, str) else value is not None or None not in allowed:
            return f"{key} is {value!r:.60}; expected {', '.join(name or 'null' for name in allowed)}"
    for key, pattern in _PATTERNS.items():
        value = row[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            return f"{key} is {value!r:.80}; expected {_EXPECTED[key]}"
    if row["time"] and microseconds(row["time"]) is None:
        return f"time is {row['time']!r:.60}; expected {_EXPECTED['time']}"
    return _optional_problem(row)


def _optional_problem(row: Mapping[str, Any]) -> str | None:
    watched = row.get("watch_seconds", (None, None))
    if not isinstance(watched, list | tuple) or len(watched) != 2 or not all(map(_is_duration, watched)):
        return f"watch_seconds is {watched!r:.60}; expected [left, right], each seconds from 0 or null"
    undoes = row.get("undoes")
    if undoes is not None and not (isinstance(undoes, str) and VOTE_ID.fullmatch(undoes)):
        return f"undoes is {undoes!r:.60}; expected the id of a vote or null"
    if undoes is None and row["answer"] == "none":
        return "answer is none, but undoes names no vote that this one takes back"
    reason, source, details = row.get("reason", ""), row.get("source", ""), row.get("details")
    if not isinstance(reason, str) or len(reason) > MAX_TEXT:
        return f"reason is {reason!r:.60}; expected a text of at most {MAX_TEXT} characters"
    if not isinstance(source, str) or len(source) > 200:
        return f"source is {source!r:.60}; expected a short text"
    if details and (not isinstance(details, dict) or len(json.dumps(details)) > MAX_TEXT):
        return f"details is {details!r:.60}; expected an object of at most {MAX_TEXT} characters"
    return None


def _is_duration(value: Any) -> bool:
    return value is None or (value.__class__ in (int, float) and math.isfinite(value) and value >= 0)


def vote_from_row(row: Mapping[str, Any]) -> Vote:
    """The vote of a parsed line. Raises ValueError with what is wrong."""
    problem = vote_problem(row)
    if problem:
        raise ValueError(problem)
    values = {**_OPTIONAL, **row}
    values["watch_seconds"] = tuple(values["watch_seconds"])
    return Vote(**values)


class VoteLog:
    """The append-only file of votes: each is one write of whole lines to its end, safe for threads and processes.

    Half a line that a killed writer left behind is closed with a newline when the file is opened, so that it spoils
    no later vote; readers name it as unreadable.
    """

    def __init__(self, path: Path | str, durable: bool = True) -> None:
        """Open or create the log. `durable`: each append reaches the disk before it returns."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._durable, self._lock = durable, threading.Lock()
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, votes: Vote | Iterable[Vote]) -> None:
        """Add votes to the end; raises OSError when not all of them could be written."""
        votes = [votes] if isinstance(votes, Vote) else votes
        data = "".join(vote.to_line() for vote in votes).encode()
        with self._lock:
            while data:
                data = data[os.write(self._file, data) :]
            if self._durable:
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file; the log takes no more votes."""
        os.close(self._file)

    def __enter__(self) -> VoteLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
