"""Where a running study is kept: four tables that are only ever added to, in SQLite (WAL) or PostgreSQL by URL.

What `append` returned from is on disk. Votes, like all rows, are never changed or deleted: the database itself refuses.
No address of a rater is stored anywhere.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa
from moviegen_eval.study.votes import Vote
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

VERSION = "1"
ADVISORY_LOCK = 0x6D6F7669  # PostgreSQL's lock against a second server on one study
metadata = sa.MetaData()
_text = sa.Text

meta = sa.Table(
    "meta", metadata, sa.Column("key", _text, primary_key=True), sa.Column("value", _text, nullable=False)
)
raters = sa.Table(
    "raters",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", _text, nullable=False, unique=True),
    sa.Column("code", _text, nullable=False, unique=True),
    sa.Column("external", _text, unique=True),  # keyed hash of a platform's id of the person
    sa.Column("time", sa.Float(53), nullable=False),
)
assignments = sa.Table(
    "assignments",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", _text, nullable=False, unique=True),
    sa.Column("rater", _text, sa.ForeignKey("raters.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("item", _text, nullable=False),
    sa.Column("axis", _text, nullable=False),
    sa.Column("shown_left", _text, nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
    sa.UniqueConstraint("rater", "item", "axis"),
    sa.UniqueConstraint("rater", "number"),
)
votes = sa.Table(
    "votes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", _text, nullable=False, unique=True),
    sa.Column("study", _text, nullable=False),
    sa.Column("item", _text, nullable=False),
    sa.Column("axis", _text, nullable=False),
    sa.Column("rater", _text, sa.ForeignKey("raters.id"), nullable=False),
    sa.Column("answer", _text, nullable=False),
    sa.Column("shown_left", _text, nullable=False),
    sa.Column("watch_left", sa.Float(53), nullable=False),
    sa.Column("watch_right", sa.Float(53), nullable=False),
    sa.Column("reason", _text, nullable=False),
    sa.Column("time", _text, nullable=False),
    sa.Column("undoes", _text, sa.ForeignKey("votes.id"), unique=True),
    sa.Column("source", _text, nullable=False),
    sa.Column("assignment", _text, sa.ForeignKey("assignments.id"), nullable=False),
    sa.Column("details", _text, nullable=False),  # json: window, replays, ...
    sa.CheckConstraint("answer IN ('a', 'b', 'tie') AND shown_left IN ('a', 'b')"),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("rater", _text, sa.ForeignKey("raters.id")),
    sa.Column("kind", _text, nullable=False),
    sa.Column("time", sa.Float(53), nullable=False),
)
_VOTE_COLUMNS = [field.name for field in fields(Vote) if field.name != "watch_seconds"]
TABLES = {table.name: table for table in (raters, assignments, votes, events)}  # parents before children

for _table in TABLES:
    for _change in ("UPDATE", "DELETE"):
        _name = f"{_table}_no_{_change.lower()}"
        event.listen(
            metadata,
            "after_create",
            sa.DDL(
                f"CREATE TRIGGER IF NOT EXISTS {_name} BEFORE {_change} ON {_table} "
                "BEGIN SELECT RAISE(ABORT, 'rows are never changed'); END"
            ).execute_if(dialect="sqlite"),
        )
        event.listen(
            metadata,
            "after_create",
            sa.DDL(
                f"CREATE OR REPLACE TRIGGER {_name} BEFORE {_change} ON {_table} "
                "FOR EACH STATEMENT EXECUTE FUNCTION moviegen_refuse()"
            ).execute_if(dialect="postgresql"),
        )
event.listen(
    metadata,
    "before_create",
    sa.DDL(
        "CREATE OR REPLACE FUNCTION moviegen_refuse() RETURNS trigger AS "
        "'BEGIN RAISE EXCEPTION ''rows are never changed''; END' LANGUAGE plpgsql"
    ).execute_if(dialect="postgresql"),
)


class Store:
    """One study's database. Raises ValueError of one line where it cannot be used."""

    def __init__(self, url: str, digest: str) -> None:
        """Open or create the tables for the study of this digest; another study's database is refused."""
        self.digest = digest
        try:
            self.url = sa.make_url(url)
            self.engine = sa.create_engine(self.url, pool_pre_ping=True)
        except (SQLAlchemyError, ImportError) as error:
            raise ValueError(
                f"database: {_first_line(error)}; expected sqlite:/// or postgresql://"
            ) from None
        self._lock: TextIO | sa.Connection | None = None
        try:
            self._open()
        except (SQLAlchemyError, OSError) as error:
            self.close()
            raise ValueError(f"database {self.url.render_as_string()}: {_first_line(error)}") from None
        except ValueError:
            self.close()
            raise

    @property
    def sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def _open(self) -> None:
        if self.sqlite:
            if not self.url.database or self.url.database == ":memory:":
                raise ValueError("database: sqlite needs a file: sqlite:///path/of/votes.sqlite")
            event.listen(self.engine, "connect", _sqlite_settings)
        elif self.engine.dialect.name != "postgresql":
            raise ValueError(f"database: {self.engine.dialect.name} is neither sqlite nor postgresql")
        self._take_lock()
        with self.engine.begin() as connection:
            metadata.create_all(connection)
            self._check_meta(connection)

    def _take_lock(self) -> None:
        """One server a study: the balance of assignments is kept in its memory."""
        taken = "a server of this study is running already"
        if self.sqlite:
            path = Path(f"{self.url.database}.lock")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(str(self.url.database), os.O_CREAT | os.O_RDWR, 0o600))  # codes are secrets
            self._lock = path.open("a")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"database {self.url.database}: {taken}") from None
            return
        self._lock = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not self._lock.scalar(sa.select(sa.func.pg_try_advisory_lock(ADVISORY_LOCK))):
            raise ValueError(f"database {self.url.render_as_string()}: {taken}")

    def _check_meta(self, connection: sa.Connection) -> None:
        found = {row.key: row.value for row in connection.execute(sa.select(meta))}
        name = self.url.render_as_string()
        if not found:
            first = {"version": VERSION, "study": self.digest, "secret": secrets.token_hex(32)}
            first["admin"] = secrets.token_urlsafe(24)
            connection.execute(sa.insert(meta), [{"key": k, "value": v} for k, v in first.items()])
            found = first
        if found["version"] != VERSION:
            raise ValueError(
                f"database {name}: has version {found['version']}, this program writes {VERSION}"
            )
        if found["study"] != self.digest:
            raise ValueError(
                f"database {name}: holds votes of study {found['study'][:12]}, not of {self.digest[:12]}; a study "
                "file must not change after the first vote: take the old file, or another database"
            )
        self.secret, self.admin = found["secret"], found["admin"]

    def append(self, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Write (table, row) pairs in one transaction: all of them or none. On disk when this returns."""
        by_table: dict[str, list[dict[str, Any]]] = {}
        for table, row in rows:
            by_table.setdefault(table, []).append(_to_row(row))
        with self.engine.begin() as connection:
            for name, table in TABLES.items():
                if name in by_table:
                    connection.execute(sa.insert(table), by_table[name])

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """All rows of a table in the order in which they were written."""
        source = TABLES[table]
        with self.engine.connect() as connection:
            found = connection.execution_options(yield_per=5000).execute(
                sa.select(source).order_by(source.c.seq)
            )
            for row in found.mappings():
                values = dict(row)
                if "details" in values:
                    values["details"] = json.loads(values["details"])
                yield values

    def close(self) -> None:
        """Give the lock back and close all connections."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self.engine.dispose()


def vote_of(row: dict[str, Any]) -> Vote:
    """The vote in a row of the table `votes`."""
    values = {name: row[name] for name in _VOTE_COLUMNS}
    return Vote(**values, watch_seconds=(row["watch_left"], row["watch_right"]))


def _to_row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "details": json.dumps(row["details"], allow_nan=False)} if "details" in row else row


def _sqlite_settings(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")  # FULL: a commit is on disk also when the power fails
    cursor.close()


def _first_line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]
