"""Frames of an untrusted file at a constant rate, a chunk at a time: runs only inside the sandboxed child process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from av.error import FFmpegError

from moviegen.media.base import Limits, MediaError
from moviegen.media.pixelformats import upright_rgb
from moviegen.media.timeline import Timeline
from moviegen.media.untrusted import Scan, check_pixels, open_container, picture_stream

CHUNK_FRAMES = 16
CHUNK_BYTES = 64 << 20  # of frames on their way; large pictures go in shorter chunks


def read_frames(scan: Scan, places: np.ndarray, limits: Limits) -> Iterator[np.ndarray]:
    """Yield uint8 [n, H, W, 3] chunks of exactly the frames at `places` (rising) of the timeline's rate."""
    assert scan.timeline is not None
    chunk: list[np.ndarray] = []
    for frame in _picked(scan.info.path, scan.timeline, scan.timeline.shown_at(places), limits):
        if chunk and frame.shape != chunk[0].shape:
            sizes = f"{chunk[0].shape[1]}x{chunk[0].shape[0]} to {frame.shape[1]}x{frame.shape[0]}"
            raise MediaError(scan.info.path, f"its size changes from {sizes} within the span")
        chunk.append(frame)
        if len(chunk) >= min(CHUNK_FRAMES, max(1, CHUNK_BYTES // frame.nbytes)):
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _picked(path: str, timeline: Timeline, wanted: np.ndarray, limits: Limits) -> Iterator[np.ndarray]:
    """The pictures of the file numbered `wanted`, which rises; one that is wanted twice comes twice."""
    done = 0
    for index, frame in _decoded(path, timeline, int(wanted[0])):
        if index > wanted[done]:
            break  # the one that is wanted did not decode
        if index == wanted[done]:
            check_pixels(path, frame.width, frame.height, limits)
            picture = upright_rgb(path, frame)
            while done < len(wanted) and wanted[done] == index:
                yield picture
                done += 1
            if done == len(wanted):
                return
    counts = f"{done} of {len(wanted)} frames decoded from frame {wanted[0]} on"
    raise MediaError(path, f"truncated: {counts}", "truncated")


def _decoded(path: str, timeline: Timeline, first: int) -> Iterator[tuple[int, Any]]:
    """Decoded pictures and their numbers in the file, from a key frame at or before picture `first`."""
    if first > 0 and timeline.stamps is not None:
        try:
            pictures = _run(path, timeline, int(timeline.stamps[first]))
            index, frame = next(pictures, (first + 1, None))
        except MediaError:
            index, frame, pictures = first + 1, None, iter(())
        if index <= first:
            yield index, frame
            yield from pictures
            return
    yield from _run(path, timeline, None)  # also where the container's index led past the picture


def _run(path: str, timeline: Timeline, seek_to: int | None) -> Iterator[tuple[int, Any]]:
    with open_container(path) as container:
        stream = picture_stream(container)
        stream.thread_type = "NONE"
        stream.codec_context.options = {"err_detect": "explode"}  # damage is an error, not a wrong picture
        try:
            if seek_to is not None:
                container.seek(seek_to, stream=stream, backward=True)
            for number, frame in enumerate(container.decode(stream)):
                if timeline.stamps is None:
                    yield number, frame
                elif frame.pts is not None:
                    yield int(np.searchsorted(timeline.stamps, frame.pts)), frame
        except FFmpegError as error:
            raise MediaError(path, f"the decoder failed: {error.strerror}", "damaged") from error
