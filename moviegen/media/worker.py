"""The sandboxed child: `python -P -m moviegen.media.worker`, a loop of JSON requests and framed replies.

Nothing that arrives from a file is ever executed or unpickled by the parent: replies are JSON and raw bytes.
A frame on the pipe is one kind byte (J or B), eight bytes of length, and the payload.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

HEADER = struct.Struct(">cQ")


def send(pipe: BinaryIO, payload: dict[str, Any] | np.ndarray) -> None:
    """Write one JSON or raw-bytes frame."""
    if isinstance(payload, dict):
        data = json.dumps(payload).encode()
        pipe.write(HEADER.pack(b"J", len(data)) + data)
    else:
        view = np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data
        pipe.write(HEADER.pack(b"B", len(view)))
        pipe.write(view)
    pipe.flush()


def answer(request: dict[str, Any]) -> Iterator[dict[str, Any] | np.ndarray]:
    """Yield the frames of the reply to one request; MediaError for a bad file."""
    from moviegen.media import remux, untrusted
    from moviegen.media.base import Limits

    limits, path = Limits(**request["limits"]), request["path"]
    if request["op"] == "probe":
        yield {"info": untrusted.as_reply(untrusted.probe_file(path, limits).info)}
    elif request["op"] == "clip":
        yield from _clip(path, request, limits)
    elif request["op"] == "sound":
        sound, rate = untrusted.read_sound(path, request["start_seconds"], request["stop_seconds"])
        yield {"shape": sound.shape, "sample_rate_hz": rate}
        yield sound
    elif request["op"] == "image":
        picture = untrusted.read_picture(path, limits, request.get("plain", False))
        yield {"shape": picture.shape}
        yield picture
    elif request["op"] == "check_pictures":
        remux.check_pictures(path, request["format"])
    elif request["op"] == "remux":
        remux.remux_sound(path, request)
    else:
        raise ValueError(f"unknown request {request['op']!r}")


def _clip(path: str, request: dict[str, Any], limits: Any) -> Iterator[dict[str, Any] | np.ndarray]:
    from moviegen.media import pictures, untrusted
    from moviegen.media.base import MediaError

    scan = untrusted.probe_file(path, limits)
    info = scan.info
    if info.width == 0:
        raise MediaError(path, "holds no picture", "not media")
    indices = untrusted.frame_indices(info, request, limits)
    rate = request["frame_rate"] or info.frame_rate / request["stride"]
    size = None
    for frames in pictures.read_frames(scan, indices, limits):
        if size is None:
            size = frames.shape[1:3]
            yield {"shape": (len(indices), *size, 3), "frame_rate": rate, "info": untrusted.as_reply(info)}
        if frames.shape[1:3] != size:
            raise MediaError(path, f"its size changes from {size} to {frames.shape[1:3]} within the span")
        yield frames
        if request.get("stream"):  # each chunk has the time to itself
            limit_processor_time(limits.seconds)
    if request["with_audio"] and info.has_audio:
        start = info.start_seconds + request["start_frame"] / info.frame_rate
        sound, sample_rate = untrusted.read_sound(path, start, start + len(indices) / rate)
        yield {"shape": sound.shape, "sample_rate_hz": sample_rate}
        yield sound


def limit_processor_time(seconds: float) -> None:
    """Let this process use `seconds` more of processor time before the kernel ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


def main() -> None:
    """Serve requests from stdin until it closes."""
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not reach the pipe
    from moviegen.media.base import MediaError, write_error

    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_processor_time(request["limits"]["seconds"])
        try:
            for frame in answer(request):
                send(pipe, frame)
            send(pipe, {"done": True})
        except MediaError as error:
            send(pipe, {"error": error.reason, "name": error.name, "rule": error.rule})
        except MemoryError:
            reason = f"needs more than the {memory_bytes} bytes of memory allowed"
            send(pipe, {"error": reason, "name": request["path"], "rule": "memory"})
        except OSError as error:
            failed = write_error(request.get("out", request["path"]), error)
            send(pipe, {"error": failed.reason, "name": failed.name, "rule": failed.rule})
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            send(pipe, {"error": reason, "name": request["path"], "rule": "damaged"})


if __name__ == "__main__":
    main()
