"""Figures and the table of `moviegen eval codec`, from the scores of clips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from moviegen_eval.config import CodecEvalConfig
from moviegen_eval.metrics.frechet import bootstrap_distance, frechet_distance, polynomial_mmd
from moviegen_eval.numbers import Figure
from moviegen_eval.sources import SourceClip
from moviegen_eval.stats import bootstrap_mean

if TYPE_CHECKING:
    from moviegen_eval.codec import CodecScores

# name -> unit, higher is better, decimals in the table
METRICS = {
    "psnr": ("dB", True, 2),
    "psnr_frame": ("dB", True, 2),
    "ssim": ("ssim", True, 4),
    "st_lpips": ("distance", False, 4),
    "vmaf": ("vmaf", True, 1),
    "lpips": ("distance", False, 4),
    "dists": ("distance", False, 4),
    "rfid": ("frechet", False, 2),
    "rfvd": ("frechet", False, 2),
}
SHOWN = [name for name in METRICS if name != "psnr_frame"]  # a table's columns; the rest is in numbers.json
TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "st_lpips": "ST-LPIPS",
    "vmaf": "VMAF",
    "lpips": "LPIPS",
    "dists": "DISTS",
}
TITLES |= {"rfid": "rFID", "rfvd": "rFVD"}


def codec_figures(
    config: CodecEvalConfig, sources: Sequence[SourceClip], scores: Mapping[str, CodecScores]
) -> list[Figure]:
    """`codec/<name>/<group>/<metric>`, groups image, video, video_<length>, video_<motion>; and the seams."""
    groups = sorted({group for clip in sources for group in clip.groups}, key=_place)
    figures: list[Figure] = []
    for name, own in scores.items():
        for group in groups:
            members = [clip for clip in sources if group in clip.groups]
            figures += _means(config, f"codec/{name}/{group}", [own.clips[clip.key] for clip in members])
            figures += _distances(config, f"codec/{name}/{group}", [own.features[c.key] for c in members])
        figures += _seams(config, f"codec/{name}/seams", list(own.result["seams"].values()))
    return figures


def _place(group: str) -> tuple[int, float, str]:
    """Images, all videos, lengths, real ones, then by motion."""
    length = re.fullmatch(r"video_([\d.]+)s", group)
    order = ["image", "video", "length", "video_real", "video_static", "video_slow", "video_fast"]
    return order.index("length" if length else group), float(length[1]) if length else 0.0, group


def _means(config: CodecEvalConfig, prefix: str, rows: Sequence[Mapping[str, float]]) -> list[Figure]:
    figures = []
    for metric in METRICS:
        values = [row[metric] for row in rows if metric in row]  # a video of one frame has no psnr_frame
        if not values:
            continue
        unit, higher, _ = METRICS[metric]
        figures.append(_mean(config, f"{prefix}/{metric}", values, unit, higher))
    return figures


def _mean(config: CodecEvalConfig, name: str, values: Sequence[float], unit: str, higher: bool) -> Figure:
    low, high = bootstrap_mean(values, config.bootstrap_count, config.seed) or (None, None)
    mean = float(np.mean(values))
    if low is not None and high is not None:
        low, high = min(low, mean), max(high, mean)
    return Figure(name, mean, low, high, len(values), unit, higher)


def _distances(config: CodecEvalConfig, prefix: str, rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """rFID and rFVD with n (figures of another n do not compare), and the unbiased MMD^2 beside each."""
    figures = []
    for metric in ("rfid", "rfvd"):
        pairs = [row[metric] for row in rows if metric in row]
        counts = [len(pair[0]) for pair in pairs]
        if sum(counts) < 2 or (metric == "rfvd" and prefix.endswith("/image")):
            continue
        a, b = (np.concatenate([pair[side] for pair in pairs]).astype(np.float64) for side in (0, 1))
        groups, value = np.repeat(np.arange(len(pairs)), counts), frechet_distance(a, b)
        interval = bootstrap_distance(a, b, groups, config.frechet_bootstrap, config.seed) or (None, None)
        figures.append(Figure(f"{prefix}/{metric}", value, *interval, len(a), "frechet", False))
        figures.append(
            Figure(f"{prefix}/{metric}_mmd", polynomial_mmd(a, b), None, None, len(a), "mmd2", False)
        )
    return figures


def _seams(config: CodecEvalConfig, prefix: str, reports: Sequence[Mapping[str, Any]]) -> list[Figure]:
    figures = []
    for field, unit, higher in (
        ("psnr", "dB", True),
        ("max_error", "levels of 255", False),
        ("seam_psnr", "dB", True),
        ("seam_max_error", "levels of 255", False),
    ):
        values = [report[field] for report in reports if report[field] is not None]
        if not values:
            continue
        if field.endswith("max_error"):
            worst = float(max(values))
            figures.append(Figure(f"{prefix}/{field}", worst, None, None, len(values), unit, higher))
        else:
            figures.append(_mean(config, f"{prefix}/{field}", values, unit, higher))
    return figures


def codec_table(
    config: CodecEvalConfig,
    figures: Sequence[Figure],
    scores: Mapping[str, CodecScores],
    skipped: Mapping[str, str],
) -> str:
    """Markdown: one table a group with a row a codec, then tiled against whole, then what was left out and why."""
    by_name = {figure.name: figure for figure in figures}
    groups = list(dict.fromkeys(figure.name.split("/")[2] for figure in figures))
    parts = ["# Codecs", ""]
    for name, own in scores.items():
        parts.append("- " + _described(name, own.result))
    for group in [group for group in groups if group != "seams"]:
        parts += ["", *_group_table(group, list(scores), by_name)]
    parts += ["", *_seam_table(config, list(scores), by_name)]
    parts += ["", f"Motion: temporal information below {config.motion_slow:g} is static, from "
              f"{config.motion_fast:g} fast (levels of 255)."]  # fmt: skip
    parts += [f"Left out: {metric}: {reason}" for metric, reason in skipped.items()]
    return "\n".join(parts) + "\n"


def _described(name: str, result: Mapping[str, Any]) -> str:
    spatial, temporal = result["spatial_factor"], result["temporal_factor"]
    rate = 3 * spatial**2 * temporal / result["latent_channels"]
    text = (
        f"{name}: {result['codec']}, {temporal}x{spatial}x{spatial}, {result['latent_channels']} channels, "
    )
    text += f"{rate:g} values to one, {result['num_parameters'] / 1e6:.1f} M parameters"
    return text + (", **random weights**" if result["random_weights"] else "")


def _group_table(group: str, codecs: Sequence[str], by_name: Mapping[str, Figure]) -> list[str]:
    columns = [m for m in SHOWN if any(f"codec/{name}/{group}/{m}" in by_name for name in codecs)]
    n = by_name[f"codec/{codecs[0]}/{group}/psnr"].n
    heads = [f"{TITLES[m]} ({'higher' if METRICS[m][1] else 'lower'})" for m in columns]
    lines = [f"## {group.replace('_', ', ')} (n = {n})", "", "| codec | " + " | ".join(heads) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for name in codecs:
        cells = [_cell(by_name.get(f"codec/{name}/{group}/{m}"), METRICS[m][2]) for m in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _seam_table(config: CodecEvalConfig, codecs: Sequence[str], by_name: Mapping[str, Figure]) -> list[str]:
    columns = {"psnr": "PSNR", "max_error": "largest error", "seam_psnr": "PSNR at seams"}
    columns |= {"seam_max_error": "largest error at seams"}
    rows = [name for name in codecs if f"codec/{name}/seams/psnr" in by_name]
    if not rows:
        return []
    tiles = ", ".join(f"{key} {value}" for key, value in config.tiling.items())
    lines = [f"## tiled against whole ({tiles})", "", "| codec | " + " | ".join(columns.values()) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for name in rows:
        cells = [_cell(by_name.get(f"codec/{name}/seams/{field}"), 2) for field in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(figure: Figure | None, decimals: int) -> str:
    if figure is None:
        return "-"
    text = f"{figure.value:.{decimals}f}"
    if figure.low is not None and figure.high is not None:
        text += f" [{figure.low:.{decimals}f}, {figure.high:.{decimals}f}]"
    return text
