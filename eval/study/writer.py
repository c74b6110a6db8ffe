"""One thread that works for all raters: it applies their requests to the desk and commits many in one transaction.

An answer is given only after its rows are on disk, so whatever a page has seen acknowledged survives any crash. A
request that cannot be written is refused alone; the state in memory is then read anew from the database.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moviegen_eval.files import write_atomically
from moviegen_eval.study.assign import Desk, RefusedError
from moviegen_eval.study.store import Store, vote_of
from moviegen_eval.study.votes import VoteLog
from sqlalchemy.exc import SQLAlchemyError

MAX_BATCH = 256
Operation = Callable[[Desk], Any]


@dataclass
class _Request:
    operation: Operation
    answer: Future


class Writer:
    """Runs operations one after the other. `votes.jsonl` follows the database line by line."""

    def __init__(self, store: Store, new_desk: Callable[[], Desk], log: Path) -> None:
        """`new_desk`: makes an empty desk, which is filled from the store. `log`: the votes.jsonl to keep."""
        self.store, self._new_desk, self.path = store, new_desk, log
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._desk: Desk | None = self._restored()
        self._log: VoteLog | None = self._new_log()
        self._thread = threading.Thread(target=self._run, name="study-writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation) -> Future:
        """Ask for an operation; the future has its result once all that it wrote is on disk."""
        request = _Request(operation, Future())
        self._requests.put(request)
        return request.answer

    def close(self) -> None:
        """Finish what was asked for, then stop."""
        self._requests.put(None)
        self._thread.join()
        if self._log is not None:
            self._log.close()

    def _restored(self) -> Desk:
        desk = self._new_desk()
        desk.restore(*(self.store.rows(name) for name in ("raters", "assignments", "votes", "events")))
        return desk

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._requests.get()]
            while len(batch) < MAX_BATCH and not self._requests.empty():
                batch.append(self._requests.get())
            running = None not in batch
            requests = [r for r in batch if r is not None and r.answer.set_running_or_notify_cancel()]
            if not self._commit(requests) and len(requests) > 1:
                for request in requests:  # one of them cannot be written: find it
                    self._commit([request])

    def _commit(self, requests: list[_Request]) -> bool:
        """Apply and write requests in one transaction; False if that failed, with nothing written or changed."""
        try:
            self._desk = desk = self._desk or self._restored()
            answers = [_apply(request, desk) for request in requests]
            rows, desk.pending = desk.pending, []
            if rows:
                self.store.append(rows)
        except Exception as error:  # the thread outlives every fault; the state in memory does not
            self._desk = None
            print(f"a request was not written: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if len(requests) == 1:
                database = isinstance(error, SQLAlchemyError | OSError)
                requests[0].answer.set_exception(
                    RefusedError("not saved; try again", 503) if database else error
                )
            return False
        self._follow([row for table, row in rows if table == "votes"])
        for request, (result, refusal) in zip(requests, answers, strict=True):
            if refusal is None:
                request.answer.set_result(result)
            else:
                request.answer.set_exception(refusal)
        return True

    def _follow(self, rows: list[dict[str, Any]]) -> None:
        """Add committed votes to the log; one that could not be written is written anew as a whole later."""
        if not rows:
            return
        try:
            if self._log is None:
                self._log = self._new_log()
            else:
                self._log.append(vote_of(row) for row in rows)
        except (OSError, SQLAlchemyError) as error:
            self._log = None
            print(f"{self.path}: {error}; the votes are safe in the database", file=sys.stderr, flush=True)

    def _new_log(self) -> VoteLog:
        """Write all votes of the database to the log, which a killed server may have left behind it."""
        write_atomically(self.path, "".join(vote_of(row).to_line() for row in self.store.rows("votes")))
        return VoteLog(self.path, durable=False)


def _apply(request: _Request, desk: Desk) -> tuple[Any, RefusedError | None]:
    try:
        return request.operation(desk), None
    except RefusedError as refusal:  # raised before anything was changed
        return None, refusal
