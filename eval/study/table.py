"""A vote log as numpy columns: a million votes in a few hundred megabytes and a few seconds.

What cannot be read or used is never dropped in silence: it is counted under a reason, with the place of each.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.study.votes import ANSWER_SIGNS, SIDE_SIGNS, VOTE_ID, Vote, microseconds, vote_problem

NO_ID, NAN = b"\0" * 32, float("nan")
UNKNOWN_TIME = np.iinfo(np.int64).min  # what numpy reads as "not a time"
_ANSWERS = {sign: answer for answer, sign in ANSWER_SIGNS.items()}
_SIDES = {sign: side for side, sign in SIDE_SIGNS.items()}


@dataclass(frozen=True)
class LeftOut:
    """Votes or lines that do not count: why, how many, and where each stands (`line 7`, or the vote's id)."""

    reason: str
    places: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many."""
        return len(self.places)

    def __str__(self) -> str:
        shown = ", ".join(self.places[:3]) + (", ..." if self.count > 3 else "")
        return f"{self.count} left out: {self.reason} ({shown})"


@dataclass(frozen=True)
class Column:
    """Texts of a column: distinct values, and for each row the position of its value."""

    names: tuple[str, ...]
    codes: np.ndarray  # int32 [N]

    def __getitem__(self, row: int) -> str:
        return self.names[self.codes[row]]

    def equals(self, name: str) -> np.ndarray:
        """Where the text is `name`, bool [N]."""
        return self.codes == (self.names.index(name) if name in self.names else -1)

    def positions(self, order: dict[str, int]) -> np.ndarray:
        """For each row the position that `order` gives its text, -1 where it gives none. int32 [N]."""
        lookup = np.array([order.get(name, -1) for name in self.names] or [-1], dtype=np.int32)
        return lookup[self.codes] if len(self.codes) else np.zeros(0, np.int32)


@dataclass(frozen=True)
class VoteTable:
    """Votes as columns of equal length N, in the order of the log."""

    study: Column
    item: Column
    axis: Column
    rater: Column
    source: Column
    reason: Column
    details: Column  # json text
    answer: np.ndarray  # int8 [N]: +1 arm a, 0 tie, -1 arm b, +2 none
    shown_left: np.ndarray  # int8 [N]: +1 arm a, -1 arm b, 0 not known
    watch_seconds: np.ndarray  # float64 [N, 2]: left, right; NaN not known
    time: np.ndarray  # datetime64[us] [N], UTC; NaT not known
    id: np.ndarray  # S32 [N]
    undoes: np.ndarray  # S32 [N], empty where none
    left_out: tuple[LeftOut, ...] = ()  # lines that are no votes

    def __len__(self) -> int:
        return len(self.answer)

    def take(self, rows: np.ndarray) -> VoteTable:
        """The votes that a mask or positions pick; names of columns stay as they are."""
        picked: dict[str, Any] = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if isinstance(value, Column):
                picked[column.name] = Column(value.names, value.codes[rows])
            elif isinstance(value, np.ndarray):
                picked[column.name] = value[rows]
        return replace(self, **picked)

    def vote(self, row: int) -> Vote:
        """One row as a vote."""
        left, right = (None if np.isnan(seconds) else float(seconds) for seconds in self.watch_seconds[row])
        time, details = self.time[row], self.details[row]
        moment = (
            datetime.fromtimestamp(0, UTC) if np.isnat(time) else time.astype(datetime).replace(tzinfo=UTC)
        )
        return Vote(
            study=self.study[row],
            item=self.item[row],
            axis=self.axis[row],
            rater=self.rater[row],
            answer=_ANSWERS[int(self.answer[row])],
            shown_left=_SIDES[int(self.shown_left[row])],
            watch_seconds=(left, right),
            reason=self.reason[row],
            time="" if np.isnat(time) else moment.isoformat(timespec="milliseconds"),
            undoes=self.undoes[row].decode() or None,
            id=self.id[row].decode(),
            source=self.source[row],
            details=json.loads(details) if details else {},
        )

    def votes(self) -> Iterator[Vote]:
        """All rows as votes."""
        return (self.vote(row) for row in range(len(self)))


class TableBuilder:
    """Collects rows of checked votes, compactly, and makes the table of them."""

    def __init__(self) -> None:
        names = ("study", "item", "axis", "rater", "source", "reason", "details")
        self._positions: dict[str, dict[str, int]] = {name: {} for name in names}
        self._codes = {name: array("i") for name in names}
        self._columns = list(self._codes.values())
        self._checked = [
            (name, positions) for name, positions in self._positions.items() if name != "details"
        ]
        self._answer, self._side = array("b"), array("b")
        self._watched, self._time = array("d"), array("q")
        self._id, self._undoes = bytearray(), bytearray()
        self._left_out: dict[str, list[str]] = {}

    def leave_out(self, reason: str, place: str) -> None:
        """Count a line that is no vote."""
        self._left_out.setdefault(reason, []).append(place)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row of which `vote_problem` says nothing."""
        details = row.get("details")
        texts = (
            row["study"],
            row["item"],
            row["axis"],
            row["rater"],
            row.get("source", ""),
            row.get("reason", ""),
        )
        packed = json.dumps(details, ensure_ascii=False) if details else ""
        codes = [
            positions.setdefault(text, len(positions))
            for positions, text in zip(self._positions.values(), (*texts, packed), strict=True)
        ]
        left, right = (NAN if s is None else s for s in row.get("watch_seconds", (None, None)))
        time = microseconds(row["time"]) if row["time"] else None
        undoes = (row.get("undoes") or "").encode().ljust(32, b"\0")
        signs = ANSWER_SIGNS[row["answer"]], SIDE_SIGNS[row["shown_left"]]
        self._append(codes, signs, (left, right), time, row["id"].encode(), undoes)

    def add_like_others(self, row: dict[str, Any]) -> bool:
        """Add a row whose texts all stood in rows before, without checking them again; False: it is not of this kind.

        Most lines of a long log are; they are read twice as fast.
        """
        try:
            codes = [positions[row[name]] for name, positions in self._checked]
            signs = ANSWER_SIGNS[row["answer"]], SIDE_SIGNS[row["shown_left"]]
            left, right = row["watch_seconds"]
            time, name = microseconds(row["time"]), row["id"]
            plain = (
                len(row) == 13
                and row["undoes"] is None
                and row["details"] == {}
                and left.__class__ is float
                and right.__class__ is float
                and 0 <= left < 1e9
                and 0 <= right < 1e9
                and signs[0] != ANSWER_SIGNS["none"]
                and VOTE_ID.fullmatch(name) is not None
            )
        except (KeyError, TypeError, ValueError):
            return False
        if not plain or time is None:
            return False
        codes.append(self._positions["details"].setdefault("", len(self._positions["details"])))
        self._append(codes, signs, (left, right), time, name.encode(), NO_ID)
        return True

    def _append(
        self,
        codes: list[int],
        signs: tuple[int, int],
        watched: tuple[float, float],
        time: int | None,
        name: bytes,
        undoes: bytes,
    ) -> None:
        for column, code in zip(self._columns, codes, strict=True):
            column.append(code)
        self._answer.append(signs[0])
        self._side.append(signs[1])
        self._watched.extend(watched)
        self._time.append(UNKNOWN_TIME if time is None else time)
        self._id += name
        self._undoes += undoes

    def table(self) -> VoteTable:
        """The table of everything added."""
        columns = {
            name: Column(tuple(positions), np.frombuffer(self._codes[name].tobytes(), np.int32))
            for name, positions in self._positions.items()
        }
        return VoteTable(
            **columns,
            answer=np.frombuffer(self._answer.tobytes(), np.int8),
            shown_left=np.frombuffer(self._side.tobytes(), np.int8),
            watch_seconds=np.frombuffer(self._watched.tobytes(), np.float64).reshape(-1, 2),
            time=np.frombuffer(self._time.tobytes(), np.int64).view("datetime64[us]"),
            id=np.frombuffer(bytes(self._id), "S32"),
            undoes=np.frombuffer(bytes(self._undoes), "S32"),
            left_out=tuple(LeftOut(reason, tuple(places)) for reason, places in self._left_out.items()),
        )


def read_votes(path: Path | str) -> VoteTable:
    """Read a votes.jsonl. Lines that are no votes stand in `left_out`; raises ValueError where there is no file."""
    builder = TableBuilder()
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                row, problem = _parse(decoder, line)
                if problem is None and builder.add_like_others(row):
                    continue
                problem = problem or vote_problem(row)
                if problem is None:
                    builder.add(row)
                else:
                    builder.leave_out(*_reason(problem, number))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    return builder.table()


def table_of(votes: Iterator[Vote] | list[Vote]) -> VoteTable:
    """The table of votes in memory."""
    builder = TableBuilder()
    for vote in votes:
        builder.add(vote.__dict__)
    return builder.table()


def _parse(decoder: json.JSONDecoder, line: bytes) -> tuple[dict[str, Any], str | None]:
    """The object of a line, and why there is none."""
    try:
        row = decoder.decode(line.decode())
    except UnicodeDecodeError:
        return {}, "the line is not UTF-8"
    except (ValueError, RecursionError):
        return {}, "the line is not JSON, or only a part of a line"
    if not isinstance(row, dict):
        return {}, "the line is no JSON object"
    return row, None


def _reason(problem: str, number: int) -> tuple[str, str]:
    """The reason without the line's own value, so that equal ones count up, and the place with it."""
    found, _, expected = problem.partition("; expected ")
    if not expected:
        return problem, f"line {number}"
    return f"{found.partition(' is ')[0]} is not {expected}", f"line {number}: {found}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
