"""Votes from and to csv and jsonl, also of other people's tools.

A csv needs the columns item, axis, rater, answer; the others of a vote may be missing. Every row that is no vote is
named. Rows without an id get one from their content, so that importing a file twice adds nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moviegen_eval.files import write_atomically
from moviegen_eval.study.study import Study
from moviegen_eval.study.table import LeftOut, VoteTable, read_votes
from moviegen_eval.study.votes import Vote, vote_from_row
from tqdm import tqdm

COLUMNS = (
    "study", "item", "axis", "rater", "answer", "shown_left", "watch_left", "watch_right", "reason", "time", "undoes",
    "id", "source", "details",
)  # fmt: skip
NEEDED = ("item", "axis", "rater", "answer")
# A text that a spreadsheet would run as a formula is written with an apostrophe before it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")


@dataclass
class Imported:
    """Votes of a file, and the rows that are none, by reason."""

    votes: list[Vote] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, place: str) -> None:
        """Name a row that is no vote."""
        self.problems.setdefault(reason, []).append(place)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What `leave_out` was told."""
        return tuple(LeftOut(reason, tuple(places)) for reason, places in self.problems.items())


def content_id(*words: str) -> str:
    """The id of a vote that came without one: 32 hex digits of its content."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


def read_table(
    path: Path | str, encoding: str = "utf-8"
) -> tuple[list[str], Iterator[tuple[str, dict[str, str]]]]:
    """Columns of a csv, and (`row 2`, cells) of each row. Raises ValueError for text in another encoding, or none.

    A row of too few or too many cells has the key "" with the reason.
    """
    text = _decode(Path(path), encoding)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"{path}: is not csv ({error})") from None
    if not any(header):
        raise ValueError(f"{path}: is empty; expected a csv with a first line of column names")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: column {twice[0]!r} stands there twice")
    return header, _rows(path, reader, header)


def _decode(path: Path, encoding: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError:
        raise ValueError(f"encoding={encoding} is not known; try utf-8, cp1252 or utf-16") from None
    except UnicodeDecodeError:
        wrong = [n for n, line in enumerate(data.split(b"\n"), start=1) if not _is_text(line, encoding)]
        first = f"the first is line {wrong[0]}" if wrong else "cut in the middle of a character"
        raise ValueError(
            f"{path}: {len(wrong)} lines are not {encoding} ({first}); nothing was imported; name the file's own "
            "encoding, for Excel often encoding=cp1252"
        ) from None


def _is_text(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _rows(path: Path | str, reader: Any, header: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num} is not csv ({error})") from None
        if row is None:
            return
        if not any(row):
            continue
        place, cells = f"line {reader.line_num}", dict(zip(header, row, strict=False))
        if len(row) != len(header):
            cells[""] = f"{len(row)} cells where the first line has {len(header)} columns"
        yield place, cells


def need_columns(path: Path | str, header: Iterable[str], needed: Iterable[str]) -> None:
    """Raise ValueError where a column is missing."""
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing; found {', '.join(header)}")


def import_csv(path: Path | str, study: Study, encoding: str = "utf-8") -> Imported:
    """Votes of a csv with the columns of `export_csv`, or with some of them.

    An answer may also be the name of an arm, or left / right where shown_left is given. A row without a study is taken
    as a vote of this one.
    """
    header, rows = read_table(path, encoding)
    need_columns(path, header, NEEDED)
    found, items = Imported(), {item.id: item for item in study.items}
    for place, cells in rows:
        if "" in cells:
            found.leave_out("a row of another length than the first line", f"{place}: {cells['']}")
            continue
        item = items.get(cells["item"])
        try:
            answer = _answer(cells, (item.arm_a, item.arm_b) if item else ("", ""))
            found.votes.append(_vote(cells, answer, study.digest))
        except ValueError as error:
            _leave_out(found, place, error)
    return found


def _answer(cells: Mapping[str, str], arms: tuple[str, str]) -> str:
    given, left = cells["answer"].strip(), cells.get("shown_left", "")
    word = given.lower()
    if word in ("left", "right"):
        if left not in ("a", "b"):
            raise ValueError(f"answer is {given!r}; expected shown_left beside it, a or b")
        return left if word == "left" else {"a": "b", "b": "a"}[left]
    if word in ("same", "equal", "draw"):
        return "tie"
    if arms[0] != arms[1] and given in arms:
        return "ab"[arms.index(given)]
    return word


def _vote(cells: Mapping[str, str], answer: str, digest: str) -> Vote:
    watched = [_seconds(cells.get(name, "")) for name in ("watch_left", "watch_right")]
    try:
        details = json.loads(cells.get("details") or "{}")
    except ValueError:
        raise ValueError(f"details is {cells['details']!r:.60}; expected a json object") from None
    key = content_id(digest, *(f"{name}={value}" for name, value in sorted(cells.items())))
    return vote_from_row(
        {
            "study": cells.get("study") or digest,
            "answer": answer,
            "shown_left": cells.get("shown_left") or None,
            "watch_seconds": watched,
            "time": cells.get("time", ""),
            "undoes": cells.get("undoes") or None,
            "id": cells.get("id") or key,
            "source": cells.get("source") or "csv",
            "details": details,
            **{name: plain(cells.get(name, "")) for name in ("item", "axis", "rater", "reason")},
        }
    )


def _seconds(text: str) -> float | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise ValueError(f"watch_seconds is {text!r:.60}; expected seconds, or nothing") from None


def _leave_out(found: Imported, place: str, error: ValueError) -> None:
    """Count equal faults together: the key at fault and what is expected; the value stands with the place."""
    wrong, _, expected = str(error).partition("; expected ")
    reason = f"{wrong.partition(' is ')[0]} is not {expected}" if expected else wrong
    found.leave_out(reason, f"{place}: {wrong}")


def import_jsonl(path: Path | str) -> Imported:
    """Votes of a votes.jsonl."""
    table = read_votes(path)
    return Imported(list(table.votes()), {out.reason: list(out.places) for out in table.left_out})


def export_jsonl(table: VoteTable, path: Path | str) -> None:
    """Write the votes as the log has them."""
    write_atomically(path, "".join(vote.to_line() for vote in _shown(table)))


def export_csv(table: VoteTable, path: Path | str) -> None:
    """Write one row a vote, with the columns `COLUMNS`; `import_csv` gives the same votes back."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for vote in _shown(table):
        row: dict[str, Any] = dict(vote.__dict__)
        row["watch_left"], row["watch_right"] = vote.watch_seconds
        row["details"] = json.dumps(vote.details, ensure_ascii=False) if vote.details else ""
        row |= {name: escaped(row[name]) for name in ("item", "axis", "rater", "reason")}
        writer.writerow(["" if row[name] is None else row[name] for name in COLUMNS])
    write_atomically(path, text.getvalue())


def _shown(table: VoteTable) -> Iterable[Vote]:
    """The votes, with a progress bar: there may be a million."""
    return tqdm(table.votes(), "votes", len(table), unit="vote")


def escaped(text: str) -> str:
    """The text as a spreadsheet shows it and does not run it."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain(text: str) -> str:
    """The text before `escaped`."""
    return text[1:] if _ESCAPED.match(text) else text
