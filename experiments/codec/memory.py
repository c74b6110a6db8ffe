"""Peak memory of `moviegen reconstruct video=...` as the clip grows: `python experiments/codec/memory.py`.

Each length runs in a process of its own, through the command's own path: a file, the sandboxed reader, the codec in
tiles, two files. Prints a table of the peak resident memory of that process and of the decoding child, and writes it
beside this file as memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS = (32, 256, 1024)  # frames
MIB = 1 << 20


def shifting(num_frames: int, size: int) -> Iterator[np.ndarray]:
    """A smooth picture that moves, frame by frame: uint8 [size, size, 3]."""
    y, x = np.mgrid[:size, :size] / 16.0
    for number in range(num_frames):
        shift = number / 8.0
        parts = [np.sin(x + shift), np.cos(y - shift), np.sin(x + y + shift)]
        yield (127.5 + 100 * np.stack(parts, axis=-1)).astype(np.uint8)


def measure(num_frames: int, size: int, model: str, whole: bool) -> None:
    """Reconstruct a clip of a length in this process and print its peak memory as json."""
    import torch

    from moviegen import media
    from moviegen.codec.tiling import Tiling
    from moviegen.modelfile import load_codec
    from moviegen.reconstruct_video import reconstruct_video

    torch.set_num_threads(1)
    codec, decoder_peaks = load_codec(model), [0]
    encode = codec.encode

    def noting(clip: Any) -> Any:
        decoder_peaks.append(children_peak_bytes())
        return encode(clip)

    codec.encode = noting
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        media.write_video(folder / "in.mp4", shifting(num_frames, size), 24.0)
        reconstruct_video(folder / "in.mp4", folder, codec, Tiling(frames=None) if whole else Tiling())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row = {"num_frames": num_frames, "peak_bytes": peak, "decoder_peak_bytes": max(decoder_peaks)}
    print(json.dumps(row))


def children_peak_bytes() -> int:
    """The largest peak of this process's children so far (getrusage would count what they shared with it at birth)."""
    peaks = [0]
    for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        status = Path(f"/proc/{pid}/status").read_text()
        peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def run(num_frames: int, size: int, model: str, whole: bool) -> dict[str, int]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--frames", str(num_frames), "--size", str(size), "--model", model]
    done = subprocess.run(
        command + ["--whole"] * whole,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure one length (--frames), or all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, help="measure this length in this process")
    parser.add_argument("--size", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--model", default="experiments/toy/weights/tae")
    parser.add_argument("--whole", action="store_true", help="without tiles, for comparison")
    given = parser.parse_args()
    if given.frames:
        measure(given.frames, given.size, given.model, given.whole)
        return
    from moviegen.runfolder import write_json

    rows = []
    for whole in (False, True):
        for num_frames in LENGTHS:
            row = run(num_frames, given.size, given.model, whole) | {"tiled": not whole, "size": given.size}
            rows.append(row)
            peaks = [f"{row[key] / MIB:7.0f} MiB" for key in ("peak_bytes", "decoder_peak_bytes")]
            print(
                f"{'whole' if whole else 'tiled'} {num_frames:5d} frames  {peaks[0]}  decoder {peaks[1]}",
                flush=True,
            )
    write_json(Path(__file__).with_suffix(".json"), rows)


if __name__ == "__main__":
    main()
