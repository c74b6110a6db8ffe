"""Ctrl-C that no callback can swallow.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a destructor, or a callback of a library
written in C, the exception is printed or dropped and the program goes on. So a long loop that runs `with remembered()`
asks `check` between two samples.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Within it Ctrl-C is remembered; nothing changes outside the main thread or where another handler stands."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and its exception got lost."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
