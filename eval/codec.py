"""`moviegen eval codec`: any codecs on the same images and videos; numbers.json, table.md and clips.jsonl out.

Each codec works in a process of its own (`python -m moviegen.roundtrip`), so that judging needs no model code. All
outputs are written at the end; reconstructions are removed unless `keep` is set.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.codec_figures import codec_figures, codec_table
from moviegen_eval.config import CodecEvalConfig, parse_config
from moviegen_eval.files import read_json, write_atomically, write_json, write_json_lines
from moviegen_eval.metrics import FrameMetric, Psnr
from moviegen_eval.metrics.frames import FrameFeatures
from moviegen_eval.metrics.paired import Paired
from moviegen_eval.metrics.registry import open_metrics
from moviegen_eval.numbers import NUMBERS, Figure, write_numbers
from moviegen_eval.sources import SourceClip, write_sources
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import interrupts
from moviegen.weights import check_weights

FRAME_METRICS = ("psnr", "ssim", "st_lpips", "vmaf", "lpips", "dists")
FEATURES = ("rfid", "rfvd")


@dataclass
class Toolbox:
    """Metrics that can be computed here, feature extractors by name, and the reasons why others cannot."""

    metrics: list[FrameMetric] = field(default_factory=list)
    extractors: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass
class CodecScores:
    """What one codec scored: by clip and metric, per-frame scores and the clip's; features of both sides by clip."""

    clips: dict[str, dict[str, float]] = field(default_factory=dict)
    frames: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    features: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)  # what moviegen.roundtrip said


def codec(cfg: DictConfig | Mapping[str, Any]) -> list[Figure]:
    """Score the codecs that `conf/codec_eval.yaml` names, print the table, return the figures of `numbers.json`.

    Raises ValueError of one line for a codec, file or weight that cannot be used; then no figures are written.
    """
    config = parse_config(CodecEvalConfig, cfg, "codec")
    weights = check_weights(config.weights)
    tools, out = build_tools(config), Path(config.out)
    work = out / "clips"
    try:
        sources = write_sources(config, work / "source")
        scores = {}
        for name, node in config.codecs.items():
            result = reconstruct(config, node, sources, work / name)
            scores[name] = score_codec(config, tools, sources, work / name, result, name)
        figures = codec_figures(config, sources, scores)
        table = codec_table(config, figures, scores, tools.skipped)
        write_json_lines(out / "clips.jsonl", _rows(sources, scores))
        write_json(out / "facts.json", _facts(tools, weights, scores))
        write_atomically(out / "table.md", table)
        write_numbers(out / NUMBERS, figures)
    finally:
        if not config.keep:
            shutil.rmtree(work, ignore_errors=True)
    print(table)
    return figures


def build_tools(config: CodecEvalConfig) -> Toolbox:
    """Everything that the installed packages and the given weights allow, from the registry of metrics."""
    opened = open_metrics([*FRAME_METRICS, *FEATURES], config.weights)
    tools = Toolbox(skipped={**opened.skipped})
    for name in FRAME_METRICS:
        if name == "vmaf" and not config.vmaf:
            tools.skipped[name] = "vmaf=false"
        elif name in opened.samples:
            paired = opened.samples[name]
            assert isinstance(paired, Paired)
            tools.metrics.append(paired.metric)  # type: ignore[arg-type]
    for name in FEATURES:
        if name in opened.sets:
            wrapped = opened.sets[name].extractor
            assert isinstance(wrapped, FrameFeatures)
            tools.extractors[name] = wrapped.extractor
    return tools


def reconstruct(
    config: CodecEvalConfig, node: Any, sources: Sequence[SourceClip], folder: Path
) -> dict[str, Any]:
    """Run one codec over all clips in a process of its own; raises ValueError with that process's reason."""
    longest = sorted(sources, key=lambda clip: -clip.num_frames)  # a clip within one tile has no seam in time
    videos = [clip.key for clip in longest if clip.num_frames > 1]
    job = {
        "codec": node,
        "clips": [{"key": c.key, "path": str(c.path), "frame_rate": c.frame_rate} for c in sources],
        "out": str(folder),
        "seam_clips": videos[: config.seam_clips],
        "tiling": config.tiling,
        "max_whole_frames": config.max_whole_frames,
        "device": config.device,
        "precision": config.precision,
        "num_threads": config.num_threads,
        "seed": config.seed,
    }
    write_json(folder / "job.json", job)
    command = [sys.executable, "-m", "moviegen.roundtrip", str(folder / "job.json")]
    done = interrupts.run_child(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ValueError(f"codec {folder.name}: {lines[-1]} (exit code {done.returncode})")
    return read_json(folder / "result.json")


def score_codec(
    config: CodecEvalConfig,
    tools: Toolbox,
    sources: Sequence[SourceClip],
    folder: Path,
    result: dict[str, Any],
    name: str,
) -> CodecScores:
    """Every metric of every clip, and the features of source and reconstruction."""
    scores = CodecScores(result=result)
    for clip in tqdm(sources, name, unit="clip"):
        source, copy = (np.load(path, allow_pickle=False) for path in (clip.path, folder / f"{clip.key}.npy"))
        per_frame = {metric.name: metric.frames(source, copy) for metric in tools.metrics}
        scores.frames[clip.key] = {key: [round(float(v), 5) for v in row] for key, row in per_frame.items()}
        means = {key: float(row.mean()) for key, row in per_frame.items()}
        if clip.num_frames > 1:
            means["psnr_frame"] = means["psnr"]
        scores.clips[clip.key] = means | {"psnr": Psnr().score(source, copy)}
        scores.features[clip.key] = {}
        for metric, extractor in tools.extractors.items():
            if metric == "rfid":
                picked = np.linspace(0, clip.num_frames - 1, min(clip.num_frames, config.fid_frames)).round()
                pair = (source[picked.astype(int)], copy[picked.astype(int)])
            else:
                pair = (source, copy)
            features = extractor.features(pair[0]), extractor.features(pair[1])
            scores.features[clip.key][metric] = features
    return scores


def _rows(sources: Sequence[SourceClip], scores: Mapping[str, CodecScores]) -> list[dict[str, Any]]:
    """One line a codec and clip: its groups, motion, scores, and the scores of its frames."""
    return [
        {
            "codec": name,
            "key": clip.key,
            "groups": list(clip.groups),
            "num_frames": clip.num_frames,
            "motion": clip.motion,
            "scores": own.clips[clip.key],
            "frames": own.frames[clip.key],
        }
        for name, own in scores.items()
        for clip in sources
    ]


def _facts(
    tools: Toolbox, weights: list[dict[str, str]], scores: Mapping[str, CodecScores]
) -> dict[str, Any]:
    results = {name: own.result for name, own in scores.items()}
    return json.loads(json.dumps({"codecs": results, "weights": weights, "skipped": tools.skipped}))
