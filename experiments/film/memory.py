"""Does memory grow with the length of a film? Peak of `moviegen upscale` in a process of its own, for several lengths.

python experiments/film/memory.py out=runs/film_memory size=[64,112] seconds=2,16,60
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from moviegen_eval.numbers import Figure, write_numbers

from moviegen.media import VideoWriter

FRAME_RATE = 8.0
CHILD = (
    "import resource, sys; from moviegen import cli; code = cli.main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(code)"
)


def clip(path: Path, seconds: float, size: tuple[int, int]) -> None:
    """A video of noise that drifts, half as high and wide as `size`."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (size[0] // 2, size[1] // 2, 3), dtype=np.uint8)
    with VideoWriter(path, FRAME_RATE, 18) as writer:
        for number in range(round(seconds * FRAME_RATE)):
            writer.write(np.roll(noise, number, axis=1)[None])


def main(arguments: list[str]) -> None:
    """Run each length and write numbers.json."""
    given = {"out": "runs/film_memory", "size": "[64,112]", "seconds": "2,16,60"}
    given |= {"model": "experiments/toy/weights/upsample"} | dict(word.split("=", 1) for word in arguments)
    out, size = Path(given["out"]), tuple(json.loads(given["size"]))
    out.mkdir(parents=True, exist_ok=True)
    figures = []
    for seconds in map(float, given["seconds"].split(",")):
        source, began = out / f"in-{seconds:g}.mp4", time.monotonic()
        clip(source, seconds, size)
        words = [f"video={source}", f"size=[{size[0]},{size[1]}]", f"out={out}/out-{seconds:g}.mp4"]
        command = [sys.executable, "-c", CHILD, "upscale", *words, f"model={given['model']}", "num_threads=1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, took = int(done.stdout.splitlines()[-1]), time.monotonic() - began
        name = f"film/upscale/{size[1]}x{size[0]}/{seconds:g}_s"
        figures.append(Figure(f"{name}/peak", peak / 2**20, None, None, 1, "MiB", False))
        figures.append(Figure(f"{name}/seconds", took, None, None, 1, "s", False))
        print(
            f"{seconds:g} s, {round(seconds * FRAME_RATE)} frames: peak {peak / 2**20:.0f} MiB, {took:.0f} s",
            flush=True,
        )
    write_numbers(out / "numbers.json", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
