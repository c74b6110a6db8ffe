"""Ctrl-C and SIGTERM: both unwind the program, so that half-written files go and what is finished stays.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a destructor, or a callback of a library
written in C, the exception is printed or dropped and the program goes on. So a long loop that runs `with remembered()`
asks `check` between two samples.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeVar

CHILD_SECONDS = 5.0  # that a child has which the signal reached too, as from a terminal
GRACE_SECONDS = 60.0  # that a child has to save once it is told to go
KEPT = 4096  # characters of a child's stderr, from its end
Handler = Callable[[int, FrameType | None], Any] | int

_asked = threading.Event()


class Child(Protocol):
    """What is asked of a process: the part of `subprocess.Popen`."""

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int, /) -> None: ...

    def communicate(self, *, timeout: float | None = None) -> tuple[Any, Any]: ...


AnyChild = TypeVar("AnyChild", bound=Child)


class Terminated(SystemExit):
    """SIGTERM came, or what a scheduler means the same by; `exit_code` is 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.exit_code = 128 + number


def terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signature of signal handlers)
    """A signal's handler: leave the program as by `sys.exit`, through every `finally`."""
    raise Terminated(number)


@contextmanager
def remembered() -> Iterator[None]:
    """Within it Ctrl-C is remembered; nothing changes outside the main thread or where another handler stands."""
    with _handled(signal.SIGINT, signal.default_int_handler, _interrupt) as handled:
        try:
            yield
        finally:
            if handled:
                _asked.clear()


@contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM raises Terminated; nothing changes outside the main thread or where another handler stands."""
    with _handled(signal.SIGTERM, signal.SIG_DFL, terminate):
        yield


@contextmanager
def _handled(number: int, usual: Handler, handler: Handler) -> Iterator[bool]:
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(number) is not usual:
        yield False
        return
    signal.signal(number, handler)
    try:
        yield True
    finally:
        signal.signal(number, usual)


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and its exception got lost."""
    if _asked.is_set():
        raise KeyboardInterrupt


def run_child(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a process to its end. On Ctrl-C or SIGTERM it may finish what it saves before they go on.

    Args:
        options: as of `subprocess.Popen`.
    """
    process, (out, errors) = attended(lambda: subprocess.Popen(command, **options))
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def attended(start: Callable[[], AnyChild]) -> tuple[AnyChild, tuple[Any, Any]]:
    """A process that `start` begins, and what it said, when it has ended.

    On Ctrl-C or SIGTERM it may finish what it saves before they go on, also where they come while it begins.
    """
    with _held() as release:
        process = start()
        try:
            release()
            return process, process.communicate()
        except (KeyboardInterrupt, SystemExit):
            _end(process)
            raise


@contextmanager
def _held() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM that come within it wait until what it yields is called, or for its end."""
    handlers: dict[int, Callable[..., Any]] = {}
    came: list[tuple[int, FrameType | None]] = []

    def release() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        while came:
            number, frame = came.pop(0)
            handlers[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(usual := signal.getsignal(number)) and not isinstance(usual, signal.Handlers):
                handlers[number] = usual
                signal.signal(number, lambda *signalled: came.append(signalled))
    try:
        yield release
    finally:
        release()


def run_shown(command: list[str]) -> subprocess.CompletedProcess[str]:
    """As `run_child`; what the process says on stderr is shown as it comes, and the end of it is kept."""
    kept: list[str] = [""]
    read_end, write_end = os.pipe()
    reader = threading.Thread(target=_pass_on, args=(read_end, kept), daemon=True)
    reader.start()
    try:
        done = run_child(command, stderr=write_end)
    finally:
        os.close(write_end)
        reader.join(CHILD_SECONDS)  # a process that the child left behind may hold the pipe open
    return subprocess.CompletedProcess(command, done.returncode, None, kept[0])


def _pass_on(source: int, kept: list[str]) -> None:
    """Write what comes from a pipe to stderr, and keep the end of it in kept[0]."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while piece := pipe.read(1 << 16):
            text = decoder.decode(piece)
            kept[0] = (kept[0] + text)[-KEPT:]
            with contextlib.suppress(OSError, ValueError):  # whoever reads our stderr may have gone
                sys.stderr.write(text)
                sys.stderr.flush()


def _end(process: Child) -> None:
    """Have a process end: by itself, told by SIGTERM, or killed.

    A training that Ctrl-C has reached saves; a second Ctrl-C would keep it from that, SIGTERM does not.
    """
    for stop, seconds in (
        (None, CHILD_SECONDS),
        (signal.SIGTERM, GRACE_SECONDS),
        (signal.SIGKILL, GRACE_SECONDS),
    ):
        if stop is not None and process.poll() is None:
            process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
            process.communicate(timeout=seconds)
            return


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
