"""Does the frame rate that a prompt begins with (FPS-8, FPS-16) set the speed of what is seen?

    python experiments/frame_rate/run.py model=runs/toy/average/model out=runs/frame_rate

The same prompts and seeds at both rates, as many frames of each: at the higher one things move half as far a frame.
Speeds are the oracle's, of the largest thing; a clip in which it finds none counts as missing.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
from moviegen_data.toyworld import oracle
from moviegen_data.toyworld.words import COLORS, SHAPES
from moviegen_eval.manifest import asked_for
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import student_mean

from moviegen.media import decode_video

MOVIEGEN = Path(sys.executable).with_name("moviegen")
RATES, DIRECTIONS = (8, 16), ("left", "right", "up", "down")


def prompts() -> list[str]:
    """32: every color and shape, the directions in turn."""
    return [
        f"a small {color} {shape} moves {DIRECTIONS[number % 4]} over a plain background while the camera stays still"
        for number, (color, shape) in enumerate(product(COLORS, SHAPES))
    ]


def speed(path: Path) -> float:
    """Pixels a frame from the first to the last place of the largest thing; nan where it is not found."""
    frames, rate = decode_video(str(path))
    sprites = oracle.observe(frames, rate).sprites
    if not sprites:
        return float("nan")
    centers = sprites[0].centers
    centers = centers[np.isfinite(centers).all(axis=1)]
    return (
        float(np.linalg.norm(centers[-1] - centers[0]) / (len(frames) - 1))
        if len(centers) > 1
        else float("nan")
    )


def main(arguments: list[str]) -> None:
    """Generate at both rates, measure, write numbers.json."""
    given = {"out": "runs/frame_rate", "frames": "16"} | dict(word.split("=", 1) for word in arguments)
    out = Path(given["out"])
    out.mkdir(parents=True, exist_ok=True)
    texts = out / "prompts.txt"
    texts.write_text("\n".join(prompts()) + "\n", encoding="utf-8")
    seen = {}
    for rate in RATES:
        words = [f"sampler.frame_rate={rate}", f"sampler.num_frames={given['frames']}", f"prompts={texts}"]
        folder = out / f"fps{rate}"
        subprocess.run(
            [MOVIEGEN, "generate", f"model={given['model']}", *words, f"run_dir={folder}"], check=True
        )
        seen[rate] = np.array([speed(path) for path in asked_for(folder, sorted(folder.glob("*.mp4")))])
    figures = []
    for rate, speeds in seen.items():
        found = speeds[np.isfinite(speeds)]
        figures.append(_figure(f"frame_rate/{rate}/pixels_a_frame", found, "px"))
    ratios = seen[RATES[1]] / seen[RATES[0]]
    figures.append(_figure("frame_rate/ratio", ratios[np.isfinite(ratios)], "ratio"))
    write_numbers(out / "numbers.json", figures)
    for figure in figures:
        print(f"{figure.name}: {figure.value:.3f} ({figure.low:.3f} .. {figure.high:.3f}), n = {figure.n}")


def _figure(name: str, values: np.ndarray, unit: str) -> Figure:
    low, high = student_mean(values) or (None, None)
    return Figure(name, float(values.mean()), low, high, len(values), unit, False)


if __name__ == "__main__":
    main(sys.argv[1:])
