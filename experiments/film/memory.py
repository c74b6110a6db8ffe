"""Does memory grow with the length of a film? Peak of any stage of `moviegen film`, at a small size.

python experiments/film/memory.py out=runs/film_memory size=[144,256] seconds=2,16,60
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from moviegen_eval.numbers import Figure, write_numbers

MOVIEGEN = Path(sys.executable).with_name("moviegen")


def main(arguments: list[str]) -> None:
    """Make a film of each length and write numbers.json."""
    given = {"out": "runs/film_memory", "size": "[144,256]", "seconds": "2,16,60"}
    given |= dict(word.split("=", 1) for word in arguments)
    out, size = Path(given["out"]), json.loads(given["size"])
    figures = []
    for seconds in map(float, given["seconds"].split(",")):
        folder = out / f"{seconds:g}_s"
        words = [f"seconds={seconds:g}", f"size=[{size[0]},{size[1]}]", f"run_dir={folder}", "num_threads=1"]
        subprocess.run([MOVIEGEN, "film", "prompt='a red star moves left'", *words], check=True)
        (told,) = folder.glob("*/stages.json")
        stages = json.loads(told.read_text(encoding="utf-8"))
        name = f"film/{size[1]}x{size[0]}/{seconds:g}_s"
        peak, took = stages["peak_bytes"] / 2**20, sum(stages["seconds"].values())
        figures.append(Figure(f"{name}/peak", peak, None, None, 1, "MiB", False))
        figures.append(Figure(f"{name}/seconds", took, None, None, 1, "s", False))
        print(f"{seconds:g} s: peak {peak:.0f} MiB, {took:.0f} s", flush=True)
    write_numbers(out / "numbers.json", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
