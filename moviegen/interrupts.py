"""Ctrl-C that no callback can swallow.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside a destructor, or a callback of a library
written in C, the exception is printed or dropped and the program goes on. So the signal is remembered as well, and a
long loop asks `check` between two samples.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def remember() -> None:
    """From now on Ctrl-C is remembered. Changes nothing outside the main thread or where another handler stands."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _asked.clear()
        signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C was pressed and its exception got lost."""
    if _asked.is_set():
        raise KeyboardInterrupt


def forget() -> None:
    """Restore Python's own handler."""
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is _interrupt
    ):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _asked.clear()


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
