"""Runs reads of untrusted files in one long-lived child process, replaced after a crash or a limit.

The child has limits on address space, processor time and wall clock; a crash of the decoder by a signal
becomes a MediaError here.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from moviegen.media.base import Limits, MediaError
from moviegen.media.worker import HEADER

MAX_JSON_BYTES = 1 << 20
Reply = tuple[list[dict[str, Any]], list[np.ndarray]]
COMMAND = (sys.executable, "-P", "-m", "moviegen.media.worker")


class Sandbox:
    """One child process and the pipe to it; use `request`."""

    def __init__(self, memory_bytes: int, command: Sequence[str] | None = None) -> None:
        self.memory_bytes = memory_bytes
        self.owner = os.getpid()
        env = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        self.process = subprocess.Popen(
            [*(command or COMMAND), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is the parent's business
            env=env,
        )

    def request(self, message: dict[str, Any], limits: Limits) -> Reply:
        """Send one request; return its JSON frames and, for each that states a shape, the bytes after it.

        Raises MediaError for a bad file, a crash, or a limit; the child is then gone if it cannot be trusted.
        """
        deadline = time.monotonic() + limits.seconds
        with self._guarded(message["path"], limits):
            self._send(message, limits)
            return self._receive(message["path"], deadline, limits.max_bytes)

    def stream(self, message: dict[str, Any], limits: Limits) -> Iterator[dict[str, Any] | np.ndarray]:
        """Send one request and yield its frames, JSON and uint8 bytes, as they come; no more than one is held.

        The child waits while nobody asks for the next. Limits of time and bytes are those of each frame.
        """
        path = message["path"]
        with self._guarded(path, limits):
            self._send(message, limits)
        while True:
            with self._guarded(path, limits):
                reply, _ = self._next(path, time.monotonic() + limits.seconds, limits.max_bytes)
            if isinstance(reply, bytearray):
                yield np.frombuffer(reply, np.uint8)
            elif "done" in reply:
                return
            else:
                yield reply

    @contextmanager
    def _guarded(self, path: str, limits: Limits) -> Iterator[None]:
        """Turn a child that hangs or dies into a MediaError."""
        try:
            yield
        except TimeoutError:
            self.close()
            reason = f"reading took longer than {limits.seconds:g} s and was stopped"
            raise MediaError(path, reason, "timeout") from None
        except (EOFError, BrokenPipeError):
            raise self._death(path, limits) from None
        except (KeyboardInterrupt, SystemExit):
            self.close()
            raise

    def _send(self, message: dict[str, Any], limits: Limits) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message | {"limits": asdict(limits)}).encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End the child at once."""
        if os.getpid() != self.owner:
            return
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue

    def _receive(self, path: str, deadline: float, max_bytes: int) -> Reply:
        replies: list[dict[str, Any]] = []
        blobs: list[bytearray] = []
        taken = 0
        while True:
            reply, size = self._next(path, deadline, max_bytes, taken, raw=bool(blobs))
            taken += size
            if isinstance(reply, bytearray):
                blobs[-1].extend(reply)
            elif "done" in reply:
                return replies, [np.frombuffer(blob, np.uint8) for blob in blobs]
            else:
                replies.append(reply)
                if "shape" in reply:
                    blobs.append(bytearray())

    def _next(
        self, path: str, deadline: float, max_bytes: int, taken: int = 0, raw: bool = True
    ) -> tuple[dict[str, Any] | bytearray, int]:
        """The next frame of a reply, JSON or (where `raw` allows it) bytes, and how many bytes it took."""
        kind, size = HEADER.unpack(self._read(HEADER.size, deadline))
        total = HEADER.size + size
        if kind in (b"B", b"J") and taken + total > max_bytes:
            self.close()
            reason = f"decodes to more than the {max_bytes} bytes that one read may give"
            raise MediaError(path, reason, "too large")
        if kind == b"B" and raw:
            return self._read(size, deadline), total
        if kind != b"J" or size > MAX_JSON_BYTES:
            self.close()
            raise MediaError(path, "the decoding process sent something that is not a reply", "crash")
        reply = json.loads(bytes(self._read(size, deadline)))
        if "error" in reply:
            raise MediaError(reply["name"], reply["error"], reply["rule"])
        return reply, total

    def _read(self, size: int, deadline: float) -> bytearray:
        """Read exactly `size` bytes; EOFError if the child ends, TimeoutError at the deadline."""
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        data = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while len(data) < size:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(handle, min(size - len(data), 1 << 20))
                if not piece:
                    raise EOFError
                data += piece
        return data

    def _death(self, path: str, limits: Limits) -> MediaError:
        """What to say of a child that ended by itself."""
        try:
            code = self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            code = 0
        self.close()
        if code == -signal.SIGXCPU:
            reason = f"decoding used more than {limits.seconds:g} s of processor time"
            return MediaError(path, reason, "timeout")
        if code < 0:
            cause = f"the decoder crashed ({signal.Signals(-code).name})"
            reason = f"{cause}, perhaps at the limit of {limits.memory_bytes} bytes of memory"
            return MediaError(path, reason, "crash")
        return MediaError(path, f"the decoding process ended with code {code}", "crash")


_lock = threading.Lock()
_sandbox: Sandbox | None = None


def ask(message: dict[str, Any], limits: Limits) -> Reply:
    """Send a request to this process's own child, starting or replacing it as needed."""
    global _sandbox
    with _lock:
        if _sandbox is not None and not _usable(_sandbox, limits):
            _sandbox.close()
            _sandbox = None
        if _sandbox is None:
            _sandbox = Sandbox(limits.memory_bytes)
        return _sandbox.request(message, limits)


def _usable(sandbox: Sandbox, limits: Limits) -> bool:
    same = sandbox.owner == os.getpid() and sandbox.memory_bytes == limits.memory_bytes
    return same and sandbox.process.poll() is None


@atexit.register
def reset() -> None:
    """End this process's child, if it has one; the next read starts another."""
    global _sandbox
    if _sandbox is not None:
        _sandbox.close()
        _sandbox = None
