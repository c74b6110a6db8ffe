"""How well reconstructions match their clips: PSNR and SSIM, and the PCA baseline's PSNR beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moviegen_eval.baselines.pca import BlockPca
from moviegen_eval.metrics import Metric, Psnr, Ssim
from moviegen_eval.numbers import Figure
from moviegen_eval.pairs import Reconstruction, load_pair
from moviegen_eval.stats import bootstrap_mean
from tqdm import tqdm


@dataclass(frozen=True)
class PairScores:
    """Scores of one pair by metric name: psnr, ssim and, with a baseline, psnr_pca."""

    record: Reconstruction
    scores: dict[str, float]


def score_pairs(
    folder: Path, records: Sequence[Reconstruction], baselines: Mapping[str, BlockPca]
) -> list[PairScores]:
    """Score every pair; `baselines` maps a set ("toyworld", "real") to the PCA fitted for it."""
    metrics: tuple[Metric, ...] = (Psnr(), Ssim())
    scored = []
    for record in tqdm(records, desc="reconstructions", unit="clip"):
        pair = load_pair(folder / record.path)
        scores = {metric.name: metric.score(pair.source, pair.reconstruction) for metric in metrics}
        if record.set in baselines:
            linear = baselines[record.set].reconstruct(pair.source)
            scores["psnr_pca"] = Psnr().score(pair.source, linear)
        scored.append(PairScores(record, scores))
    return scored


def fidelity_figures(scored: Sequence[PairScores], level: str, count: int, seed: int) -> list[Figure]:
    """Figures `tae/<set>/<metric>`, and `tae/real/<source>/<metric>` for each real file.

    `psnr_minus_pca` is the mean of the differences clip by clip, whose interval says whether the autoencoder
    is ahead: the clips differ more from one another than the two codecs do. `level` ends toyworld's units.
    """
    figures: list[Figure] = []
    for name in ("toyworld", "real"):
        members = [item for item in scored if item.record.set == name]
        suffix = level if name == "toyworld" else ""
        figures += _means(f"tae/{name}", members, suffix, count, seed)
        sources = sorted({item.record.source_name for item in members})
        if name == "real" and len(sources) > 1:
            for source in sources:
                own = [item for item in members if item.record.source_name == source]
                figures += _means(f"tae/real/{_plain(source)}", own, suffix, count, seed)
    return figures


def _means(prefix: str, scored: Sequence[PairScores], suffix: str, count: int, seed: int) -> list[Figure]:
    columns: dict[str, list[float]] = {}
    for item in scored:
        for name, value in item.scores.items():
            columns.setdefault(name, []).append(value)
        if "psnr_pca" in item.scores:
            columns.setdefault("psnr_minus_pca", []).append(item.scores["psnr"] - item.scores["psnr_pca"])
    figures = []
    for name, values in columns.items():
        unit = "ssim" if name == "ssim" else "dB"
        low, high = bootstrap_mean(values, count, seed) or (None, None)
        mean = sum(values) / len(values)
        if low is not None and high is not None:
            low, high = min(low, mean), max(high, mean)
        figures.append(Figure(f"{prefix}/{name}", mean, low, high, len(values), unit + suffix, True))
    return figures


def _plain(source: str) -> str:
    """A file's name as a part of a figure's name: its stem, odd characters replaced."""
    return re.sub(r"[^A-Za-z0-9_+-]", "_", Path(source).stem) or "unnamed"
