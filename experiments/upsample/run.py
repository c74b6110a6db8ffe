"""The upsampler against interpolation: PSNR, ST-LPIPS, VMAF, flicker, and the error at the seams of windows.

    python experiments/upsample/run.py model=experiments/toy/weights/upsample out=runs/upsample clips=65 degraded=16

The clips of `moviegen eval upscale_set`, made and judged one by one, as `moviegen upscale clips` and `moviegen eval
upscale` do. `degraded=N` judges the first N of each set once more from a low resolution that was blurred, noised and
compressed twice (conf/degradation), with parameters of its own for each clip, the same in every run. One row of
rows.jsonl a clip; a run that was broken off, or that had `seconds=` and used them up, goes on from there. Writes
table.md and numbers.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.upscale_set import Frames, HeldOut, UpscaleSetConfig, held_out, smaller
from moviegen_eval.upscaled import MEASURES, Judge, Windows, figures_of
from tqdm import tqdm

from moviegen.config import build, compose
from moviegen.pixels import from_uint8, to_uint8
from moviegen.tasks.degradation import Rounds, degraded
from moviegen.upscale import load_upsampler
from moviegen.upscale_clips import others_of, upsampled, windows_of

GIVEN = {
    "model": "experiments/toy/weights/upsample",
    "out": "runs/upsample",
    "clips": "65",
    "degraded": "0",
    "seconds": "inf",
    "num_threads": "",
}


def lows(clips: int, count: int, rounds: Rounds) -> Iterator[tuple[str, HeldOut, Frames]]:
    """The set, the clip, and its low resolution: of all clips plainly, of the first `count` of a set degraded too."""
    for clip in held_out(UpscaleSetConfig(real=clips, toyworld=clips)):
        yield clip.set, clip, smaller(clip.frames)
        index = int(clip.name.rpartition("-")[2])
        if index < count:
            size = clip.frames.shape[1] // 2, clip.frames.shape[2] // 2
            rng = np.random.default_rng((index, 1))
            yield f"{clip.set}_degraded", clip, to_uint8(degraded(from_uint8(clip.frames), size, rounds, rng))


def shown(one: Figure) -> str:
    return f"{one.value:.4g}" if one.low is None else f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}]"


def tables(rows: Sequence[dict[str, Any]], figures: Sequence[Figure]) -> str:
    """A table for each set in Markdown, and the figures that compare two ways."""
    named, lines = {figure.name: figure for figure in figures}, []
    for kind in dict.fromkeys(row["set"] for row in rows):
        some = [row for row in rows if row["set"] == kind]
        lines += ["", f"| {kind}, {len(some)} clips | {' | '.join(MEASURES)} |"]
        lines.append("|---" * (len(MEASURES) + 1) + "|")
        for way in some[0]["ways"]:
            own = [named[f"upsample/{kind}/{name}/{way.replace(' ', '_')}"] for name in MEASURES]
            lines.append(f"| {way} | {' | '.join(map(shown, own))} |")
        lines.append("")
        lines += [
            f"{one.name}: {shown(one)}"
            for one in figures
            if one.name.startswith(f"upsample/{kind}/") and one.name.count("/") == 2
        ]
        lines += ["", f"{np.mean([row['seconds'] for row in some]):.1f} s a clip"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Run, or go on, and write the tables."""
    words = dict(word.split("=", 1) for word in arguments)
    own = [f"{key}={value}" for key, value in words.items() if key.startswith("upsampler.")]
    given = GIVEN | {key: value for key, value in words.items() if not key.startswith("upsampler.")}
    if given["num_threads"]:
        torch.set_num_threads(int(given["num_threads"]))
    out, began = Path(given["out"]), time.monotonic()
    config = build(compose("upscale", ["video=none", "factor=2", *own]).upsampler)
    rounds = build(compose("train", ["task=upsample"]).task.degradation.rounds)
    task, judge, windows = load_upsampler(given["model"]), Judge(), Windows(**windows_of(config))
    out.mkdir(parents=True, exist_ok=True)
    log = out / "rows.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    done = {(row["set"], row["name"]) for row in rows}
    with log.open("a") as file:
        for kind, clip, low in tqdm(lows(int(given["clips"]), int(given["degraded"]), rounds)):
            if time.monotonic() - began > float(given["seconds"]):
                break
            if (kind, clip.name) in done:
                continue
            start = time.monotonic()
            made = {"upsampler": upsampled(task, config, low)}
            seconds = time.monotonic() - start
            others, alone_at = others_of(task, config, low, apart=True)
            row = judge.row(clip.frames, low, made | others, windows, alone_at)
            rows.append({"name": clip.name, "set": kind, "level": clip.level, "seconds": seconds, **row})
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    figures = figures_of(rows)
    text = tables(rows, figures)
    (out / "table.md").write_text(text)
    write_numbers(out / "numbers.json", figures)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
