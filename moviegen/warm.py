"""Commands as forks of a process that has read the heavy packages: a job of sixty commands reads torch once.

A fork begins as a new process would: usual handlers of signals, no exit functions of its parent, its own exit code.
Where a process has computed with several threads its forks hang; so only one that is a command of its own, and does
nothing but run others, is forked (`own_process`).
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from moviegen import interrupts

HEAVY = ("moviegen.train", "moviegen.generate")  # what they import takes seconds
POLL_SECONDS = 0.05
LOST = 1  # for an exit code that nobody can tell any more


@dataclass
class Process:
    """What is known of this process."""

    is_command: bool = False
    sources: dict[Path, int] | None = (
        None  # when each file of the code was changed last, as this process read it
    )


THIS = Process()


def own_process() -> None:
    """This process is a `moviegen` command and nothing else: not a test, or a program that calls one."""
    THIS.is_command = True


def forks() -> bool:
    """Whether forks are sound here; macOS's frameworks do not outlive one.

    A command is to run, and to record, the code that stands on disk when it begins: not where that was changed since.
    """
    if not THIS.is_command or sys.platform != "linux":
        return False
    now = _sources()
    THIS.sources = now if THIS.sources is None else THIS.sources
    return now == THIS.sources


def _sources() -> dict[Path, int]:
    found = (importlib.util.find_spec(name) for name in ("moviegen", "moviegen_data", "moviegen_eval"))
    folders = [Path(place) for spec in found if spec for place in spec.submodule_search_locations or ()]
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*.py")}


def run_command(words: list[str]) -> int:
    """The exit code of `moviegen WORDS`; on Ctrl-C or SIGTERM it may finish what it saves before they go on."""
    for name in HEAVY:
        importlib.import_module(name)
    child, _ = interrupts.attended(lambda: Fork(words))
    code = child.poll()
    assert code is not None
    return code


class Fork:
    """A fork with the part of `subprocess.Popen` that `interrupts` asks for."""

    def __init__(self, words: list[str]):
        from multiprocessing import get_context

        self.process = get_context("fork").Process(target=_run, args=(words,))
        self.process.start()

    def poll(self) -> int | None:
        """The exit code, negative for a signal's; None while it runs."""
        if not self._ended(os.WNOHANG):
            return None
        code = self.process.exitcode
        return LOST if code is None else code

    def send_signal(self, number: int, /) -> None:
        if self.poll() is None:
            os.kill(self._pid, number)

    def communicate(self, *, timeout: float | None = None) -> tuple[None, None]:
        """Wait for the end; raises TimeoutExpired as `subprocess.Popen`."""
        if timeout is None:
            self._ended()
            return None, None
        deadline = time.monotonic() + timeout
        while not self._ended(os.WNOHANG):
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["moviegen"], timeout)
            time.sleep(POLL_SECONDS)
        return None, None

    def _ended(self, options: int = 0) -> bool:
        """Whether it has ended; waits until it has without os.WNOHANG.

        The exit code is left for `poll`: a Ctrl-C that comes just as a wait ends would lose it.
        """
        try:
            return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | options) is not None
        except ChildProcessError:  # `poll` has fetched the exit code
            return True

    @property
    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


def _run(words: list[str]) -> None:
    """A command in a fork, which ends as Python ends."""
    from moviegen import cli

    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, usual)
    atexit._clear()  # the parent's; multiprocessing has cleared its own
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    atexit.register(logging.shutdown)
    THIS.is_command = False
    sys.argv[1:] = words
    try:
        code = cli.main(words)
    finally:
        atexit._run_exitfuncs()
    sys.exit(code)
