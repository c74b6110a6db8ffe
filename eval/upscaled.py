"""`moviegen eval upscale`: an upsampler against interpolation: PSNR, ST-LPIPS, VMAF, flicker, and the error at seams.

Reads the set that `moviegen eval upscale_set` wrote, and what `moviegen upscale clips` made of it; writes numbers.json,
bars.json and upscaled.jsonl. No measure looks at the border of the picture. Flicker is the mean size of the second
difference of luma in time against that of the ground truth. The excess error at seams is the mean absolute error near
a window's edge against that elsewhere, less 1; `_net` is that against the excess of Lanczos at the same places, clip by
clip, for what stands there differs from 0 without any window; `_bound` is the farthest end of its interval from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.bars import check_bars
from moviegen_eval.config import parse_config
from moviegen_eval.files import inside, read_json_lines, write_json, write_json_lines
from moviegen_eval.judge import BARS, table
from moviegen_eval.metrics.stlpips import StLpips
from moviegen_eval.numbers import NUMBERS, Figure, at_level, write_numbers
from moviegen_eval.pairs import load_arrays
from moviegen_eval.records import Record, parse_record
from moviegen_eval.stats import bootstrap_mean
from moviegen_eval.upscale_set import CLIPS, Frames, SetClip
from moviegen_eval.verdicts import relative_to
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from tqdm import tqdm

from moviegen.media import vmaf_frames

ROWS = "upscaled.jsonl"
EDGE = 8  # pixels at the border of the picture that no measure looks at
NEAR = 2  # pixels on either side of a window's edge that count as its seam
STEP = 6  # frames from one that ST-LPIPS looks at to the next
OWN, PLAIN = "upsampler", {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
MEASURES = {  # name: unit, higher is better
    "psnr": ("dB", True), "st_lpips": ("", False), "vmaf": ("", True), "flicker": ("ratio to ground truth", False),
    "seam_space": ("excess", False), "seam_time": ("excess", False),
}  # fmt: skip


@dataclass(frozen=True)
class UpscaleEvalConfig:
    """The keys of conf/upscale_eval.yaml, which says what they are."""

    set: str
    upscaled: str
    out: str
    prefix: str = "upsample"
    bars: dict[str, float | str] = field(default_factory=dict)
    bootstrap_count: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Windows:
    """How a video was cut: frames and pixels of a window, and those it shares with the next."""

    window: int
    overlap: int
    tile: int | None
    tile_overlap: int


@dataclass(frozen=True)
class Made:
    """One line of `upscaled.jsonl`: what was made of a clip. The npz holds an array uint8 [T, H, W, 3] for each way."""

    name: str
    path: str
    ways: list[str]  # "upsampler", "windows apart", and "alone": one window without the others
    alone_at: list[int]  # its top and left
    seconds: float  # that the upsampler took
    windows: dict[str, Any]
    shown: str | None  # a marked file of it


def upscaled(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Judge what conf/upscale_eval.yaml names, print the table, return the figures of numbers.json.

    Raises ValueError of one line for a clip that is missing or broken; then nothing is written.
    """
    config = parse_config(UpscaleEvalConfig, cfg, "eval upscale")
    judge, rows, folder, made = Judge(), [], Path(config.set), Path(config.upscaled)
    found = {row.name: (where, row) for where, row in _read(made / ROWS, Made)}
    clips = _read(folder / CLIPS, SetClip)
    if not clips:
        raise ValueError(f"{folder / CLIPS}: names no clip")
    for where, clip in tqdm(clips, desc="judging", unit="clip"):
        if clip.name not in found:
            raise ValueError(f"{made / ROWS}: does not name {clip.name}, which {where} does")
        place, row = found[clip.name]
        file = inside(folder, clip.path, where)
        source, ways = (
            load_arrays(file, ("source", "low")),
            load_arrays(inside(made, row.path, place), row.ways),
        )
        windows = parse_record(Windows, row.windows, place)
        try:
            judged = judge.row(source["source"], source["low"], ways, windows, row.alone_at)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        shown = row.shown and relative_to(config.out, inside(made, row.shown, place))
        paths = {"source": relative_to(config.out, file), "shown": shown}
        rows.append({**vars(clip), "seconds": row.seconds, **judged, **paths})
    figures = figures_of(rows, config.prefix, config.bootstrap_count, config.seed)
    bars = check_bars({f"{config.prefix}/{name}": bar for name, bar in config.bars.items()}, figures, {})
    out = Path(config.out)
    write_numbers(out / NUMBERS, figures)
    write_json_lines(out / ROWS, rows)
    write_json(out / BARS, [vars(bar) for bar in bars])
    print(table(figures, bars))
    return figures


def _read(path: Path, cls: type[Record]) -> list[tuple[str, Record]]:
    return [(where, parse_record(cls, row, where)) for where, row in read_json_lines(path)]


class Judge:
    """All measures of a clip made in several ways."""

    def __init__(self) -> None:
        self.perceptual = StLpips()

    def row(
        self,
        source: Frames,
        low: Frames,
        made: Mapping[str, Frames],
        windows: Windows,
        alone_at: Sequence[int] = (0, 0),
    ) -> dict[str, Any]:
        """`ways`: measures of what was made, and of interpolations of `low`; `single`: PSNR within one window.

        Args:
            source: uint8 [T, H, W, 3].
            low: the same at half the size.
            made: what models made of it, the upsampler's own first; `alone` is one window of it, without the others.
            windows: as `made` was cut.
            alone_at: top and left of `alone`, from the first frame on.
        """
        ways = {OWN: made[OWN]} | {way: interpolated(low, kind) for way, kind in PLAIN.items()}
        ways |= {way: frames for way, frames in made.items() if way != "alone"}
        wrong = [way for way, frames in ways.items() if frames.shape != source.shape]
        if wrong:
            raise ValueError(f"{wrong[0]} is {ways[wrong[0]].shape}, the clip {source.shape}")
        row: dict[str, Any] = {
            "ways": {way: self.measured(source, frames, windows) for way, frames in ways.items()}
        }
        if "alone" in made:
            row["single"] = single(source, made[OWN], made["alone"], alone_at)
        return row

    def measured(self, source: Frames, made: Frames, windows: Windows) -> dict[str, float]:
        """The measures of `MEASURES`: uint8 [T, H, W, 3] both."""
        error = np.abs(made.astype(np.float64) - source)
        return {
            "psnr": psnr(error[:, EDGE:-EDGE, EDGE:-EDGE]),
            "st_lpips": self.perceptual.score(source[::STEP], made[::STEP]),
            "vmaf": float(vmaf_frames(source, made).mean()),
            "flicker": flicker(made) / max(flicker(source), 1e-6),
            **seams(error.mean(3), windows),
        }


def interpolated(low: Frames, kind: Image.Resampling) -> Frames:
    """Twice as large: uint8 [T, h, w, 3] to [T, 2 h, 2 w, 3]."""
    size = (2 * low.shape[2], 2 * low.shape[1])
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, kind)) for frame in low])


def psnr(error: NDArray[np.float64]) -> float:
    """dB of errors in levels of 255."""
    return float(10 * np.log10(255**2 / max(np.square(error).mean(), 1e-6)))


def flicker(frames: Frames) -> float:
    """Mean size of the second difference in time of luma, uint8 [T, H, W, 3]."""
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return float(np.abs(luma[2:] - 2 * luma[1:-1] + luma[:-2])[:, EDGE:-EDGE, EDGE:-EDGE].mean())


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


def seams(error: NDArray[np.float64], windows: Windows) -> dict[str, float]:
    """Mean absolute error [T, H, W] at the edges of windows against that elsewhere, less 1: in space, and in time.

    In time the frames on either side of an edge count. Where there is no edge, nothing is in excess: 0.
    """
    frames, height, width = error.shape
    inner = np.zeros((height, width), bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    cuts = [near(n, window_edges(n, windows.tile or n, windows.tile_overlap), NEAR) for n in (height, width)]
    at = (cuts[0][:, None] | cuts[1]) & inner
    times = near(frames, window_edges(frames, windows.window, windows.overlap), 1)
    return {
        "seam_space": _excess(error.mean(0)[inner], at[inner]),
        "seam_time": _excess(error[:, inner].mean(1), times),
    }


def _excess(error: NDArray[np.float64], at: NDArray[np.bool_]) -> float:
    if not at.any() or at.all():
        return 0.0
    return float(error[at].mean() / max(error[~at].mean(), 1e-9) - 1)


def single(source: Frames, whole: Frames, alone: Frames, at: Sequence[int]) -> dict[str, float]:
    """PSNR in the middle of one window, alone and as part of the whole."""
    count, height, width = alone.shape[:3]
    place = np.s_[:count, at[0] + EDGE : at[0] + height - EDGE, at[1] + EDGE : at[1] + width - EDGE]
    wanted = source[place].astype(np.float64)
    errors = {"alone": alone[:, EDGE:-EDGE, EDGE:-EDGE] - wanted, "in the whole": whole[place] - wanted}
    return {way: psnr(error) for way, error in errors.items()}


def figures_of(
    rows: Sequence[Mapping[str, Any]], prefix: str = "upsample", bootstrap_count: int = 2000, seed: int = 0
) -> list[Figure]:
    """The figures of each set of clips, means with 95 % intervals over clips; those of drawn clips name their level."""

    def mean(name: str, values: Sequence[float], unit: str, higher: bool) -> Figure:
        low, high = bootstrap_mean(values, bootstrap_count, seed) or (None, None)
        return Figure(f"{prefix}/{name}", float(np.mean(values)), low, high, len(values), unit, higher)

    figures: list[Figure] = []
    for kind in dict.fromkeys(row["set"] for row in rows):
        some = [row for row in rows if row["set"] == kind]
        own: list[Figure] = []
        for way in some[0]["ways"]:
            for name, about in MEASURES.items():
                values = [row["ways"][way][name] for row in some]
                own.append(mean(f"{kind}/{name}/{way.replace(' ', '_')}", values, *about))
        own += _differences(kind, some, mean)
        figures += [at_level(figure, some[0].get("level")) for figure in own]
    return figures


def _differences(
    kind: str, some: Sequence[Mapping[str, Any]], mean: Callable[[str, Sequence[float], str, bool], Figure]
) -> Iterator[Figure]:
    """Clip by clip: ST-LPIPS and seams against interpolation, PSNR against one window."""
    for other in PLAIN:
        gap = [row["ways"][OWN]["st_lpips"] - row["ways"][other]["st_lpips"] for row in some]
        yield mean(f"{kind}/st_lpips_minus_{other}", gap, "", False)
    for name in ("seam_space", "seam_time"):
        own, plain = ([1 + row["ways"][way][name] for row in some] for way in (OWN, "lanczos"))
        net = mean(
            f"{kind}/{name}_net", [a / b - 1 for a, b in zip(own, plain, strict=True)], "excess", False
        )
        yield net
        if net.low is not None and net.high is not None:
            bound = max(abs(net.low), abs(net.high))
            yield replace(net, name=net.name.replace("_net", "_bound"), value=bound, low=None, high=None)
    if all("single" in row for row in some):
        gap = [row["single"]["in the whole"] - row["single"]["alone"] for row in some]
        yield mean(f"{kind}/psnr_minus_single_window", gap, "dB", True)
