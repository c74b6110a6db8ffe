"""Work in processes, each with a pipe of its own, so that one that is killed is noticed wherever it stood.

The pool of `concurrent.futures` shares one queue among its processes: of one that is killed while it sends, for lack of
memory or by SIGTERM to the whole group, it waits for the rest for ever.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from typing import Any, TypeVar

Connection = connection.Connection
T = TypeVar("T")
R = TypeVar("R")


class WorkerKilledError(RuntimeError):
    """A process ended before it had sent what it made."""


@contextmanager
def in_processes(work: Callable[[T], R], units: Sequence[T], workers: int) -> Iterator[Iterator[R]]:
    """What `work` makes of each unit, in order; Ctrl-C is left to this process.

    At the end no process is left; one that is at work finishes its unit. What `work` raises is raised by the iterator.

    Raises:
        WorkerKilledError: by the iterator, where a process was killed.
    """
    context = get_context("spawn")
    pipes, processes = [], []
    try:
        for _ in range(min(workers, len(units))):
            here, there = context.Pipe()
            pipes.append(here)
            processes.append(context.Process(target=_serve, args=(work, there), daemon=True))
            processes[-1].start()
            there.close()  # so that the end of the process is the end of the pipe
        yield _results(pipes, units)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _results(pipes: Sequence[Connection], units: Sequence[Any]) -> Iterator[Any]:
    left, busy, made = iter(enumerate(units)), {}, {}

    def give(pipe: Connection) -> None:
        for busy[pipe], unit in left:
            pipe.send(unit)
            return

    with _noticed():
        for pipe in pipes:
            give(pipe)
    for number in range(len(units)):
        while number not in made:
            with _noticed():
                for pipe in connection.wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    made[busy.pop(pipe)] = pipe.recv()
                    give(pipe)
        result, error = made.pop(number)
        if error is not None:
            raise error
        yield result


@contextmanager
def _noticed() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:  # the latter in the middle of what it sent
        raise WorkerKilledError("a worker process was killed") from error


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Make what is asked for until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            unit = pipe.recv()
            try:
                reply = work(unit), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                reply = None, error
            pipe.send(reply)
