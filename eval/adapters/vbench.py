"""VBench and VBench-2.0 through files: their programs pin old packages and live in environments of their own.

On prompts of one's own only six of VBench's sixteen dimensions make sense; on its own prompts all do, and the total is
4 : 1 quality to semantics with dynamic degree at half weight (the project's published constants).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moviegen_eval.adapters.base import External, Result, file_name, link_videos, write_commands
from moviegen_eval.arms import Arm
from moviegen_eval.files import read_json, write_atomically
from moviegen_eval.suites import Suite

CUSTOM = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
QUALITY = (*CUSTOM[:2], "temporal_flickering", *CUSTOM[2:])
SEMANTIC = (
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
RANGES = {  # what counts as 0 and as 1, where it is not 0 and 1
    "subject_consistency": (0.1462, 1.0),
    "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0),
    "motion_smoothness": (0.706, 0.9975),
    "scene": (0.0, 0.8222),
    "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0.0, 0.364),
    "overall_consistency": (0.0, 0.364),
}
WEIGHTS = {"dynamic_degree": 0.5}  # of a dimension; 1 where none is given
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4.0, 1.0
MAX_SECONDS = 5.0  # longer clips need VBench-Long
GROUPS_2 = {
    "creativity": ("Composition", "Diversity"),
    "commonsense": ("Instance_Preservation", "Motion_Rationality"),
    "controllability": (
        "Camera_Motion",
        "Complex_Landscape",
        "Complex_Plot",
        "Dynamic_Attribute",
        "Dynamic_Spatial_Relationship",
        "Human_Interaction",
        "Motion_Order_Understanding",
    ),
    "human_fidelity": ("Human_Anatomy", "Human_Clothes", "Human_Identity"),
    "physics": ("Material", "Mechanics", "Multi-View_Consistency", "Thermotics"),
}


def normalized(dimension: str, value: float) -> float:
    """A dimension's raw score on the scale where 0 is its worst and 1 its best."""
    low, high = RANGES.get(dimension, (0.0, 1.0))
    return (value - low) / (high - low)


def weighted(values: Mapping[str, float], dimensions: tuple[str, ...]) -> float | None:
    """The weighted mean of normalized dimensions; None unless all of them are there."""
    if any(name not in values for name in dimensions):
        return None
    weights = [WEIGHTS.get(name, 1.0) for name in dimensions]
    total = sum(w * normalized(name, values[name]) for name, w in zip(dimensions, weights, strict=True))
    return total / sum(weights)


def totals(values: Mapping[str, float]) -> dict[str, float]:
    """Quality, semantics and total, as far as their dimensions are there."""
    quality, semantic = weighted(values, QUALITY), weighted(values, SEMANTIC)
    found = {name: part for name, part in (("quality", quality), ("semantic", semantic)) if part is not None}
    if quality is not None and semantic is not None:
        whole = QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic
        found["total"] = whole / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    if quality is None and (six := weighted(values, CUSTOM)) is not None:
        found["custom_quality"] = six  # of six dimensions: not the leaderboard's quality score
    return found


class VBench:
    """VBench: all sixteen dimensions on its own prompts, six on others."""

    name = "vbench"

    def prepare(self, arm: Arm, suite: Suite, folder: Path, external: External) -> list[list[str]]:
        own = suite.name == "vbench"
        _check_length(arm)
        names, prompts = {}, {}
        for prompt in arm.videos:
            text, suffix = suite.by_id[prompt].text, arm.videos[prompt][0].path.suffix
            names[prompt] = file_name(text, f"-0{suffix}") if own else f"{prompt}{suffix}"
            prompts[str(folder.resolve() / "videos" / names[prompt])] = text
        link_videos(arm, folder / "videos", names)
        write_atomically(folder / "prompts.json", json.dumps(prompts, indent=1, ensure_ascii=False))
        dimensions = (*QUALITY, *SEMANTIC) if own else CUSTOM
        command = [external.python, "evaluate.py", "--videos_path", str(folder.resolve() / "videos")]
        command += ["--output_path", str(folder.resolve() / "results"), "--dimension", *dimensions]
        if not own:
            command += ["--mode=custom_input", "--prompt_file", str(folder.resolve() / "prompts.json")]
        write_commands(folder, [command], external.repository)
        return [command]

    def read(self, arm: Arm, suite: Suite, folder: Path) -> Result:
        del arm
        found = read_results(folder / "results")
        allowed = (*QUALITY, *SEMANTIC) if suite.name == "vbench" else CUSTOM
        refused = sorted(set(found) - set(allowed))
        values = {name: found[name][0] for name in allowed if name in found}
        samples: dict[str, dict[str, float]] = {}
        for name in values:
            for file, value in found[name][1].items():
                samples.setdefault(file, {})[name] = value
        said = (f"dimensions that make no sense on other prompts were not read: {', '.join(refused)}",)
        sums = totals(values) | {name: values[name] for name in values if not found[name][1]}
        return Result(samples, sums, {}, said if refused else ())


class VBench2:
    """VBench-2.0: eighteen dimensions in five groups on its own prompts; the total is the mean of the groups."""

    name = "vbench2"

    def prepare(self, arm: Arm, suite: Suite, folder: Path, external: External) -> list[list[str]]:
        if suite.name != "vbench":
            raise ValueError(
                "vbench2: its dimensions need its own prompts; open them with suite=vbench:<its json>"
            )
        names = {
            prompt: file_name(suite.by_id[prompt].text, f"-0{arm.videos[prompt][0].path.suffix}")
            for prompt in arm.videos
        }
        link_videos(arm, folder / "videos", names)
        dimensions = [name for group in GROUPS_2.values() for name in group]
        command = [external.python, "evaluate.py", "--videos_path", str(folder.resolve() / "videos")]
        command += ["--output_path", str(folder.resolve() / "results"), "--dimension", *dimensions]
        write_commands(folder, [command], external.repository)
        return [command]

    def read(self, arm: Arm, suite: Suite, folder: Path) -> Result:
        del arm, suite
        found = {name: value for name, (value, _) in read_results(folder / "results").items()}
        sums = dict(found)
        groups = {
            group: sum(found[name] for name in names) / len(names)
            for group, names in GROUPS_2.items()
            if all(name in found for name in names)
        }
        sums |= groups
        if len(groups) == len(GROUPS_2):
            sums["total"] = sum(groups.values()) / len(groups)
        said = "differs by up to 2.5 points between kinds of GPU (VBench issue 176)"
        return Result({}, sums, {}, (said,))


def _check_length(arm: Arm) -> None:
    long = [
        v.path.name
        for v in arm.all_videos()
        if v.info.num_frames / max(v.info.frame_rate, 1e-9) > MAX_SECONDS
    ]
    if long:
        raise ValueError(
            f"vbench: {len(long)} videos of {arm.name} are longer than {MAX_SECONDS:g} s ({long[0]}): they need "
            "VBench-Long, whose scores are others"
        )


def read_results(folder: Path) -> dict[str, tuple[float, dict[str, float]]]:
    """The newest `*_eval_results.json`: dimension -> (score, file name -> score)."""
    files = sorted(folder.glob("*_eval_results.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if not files:
        raise ValueError(f"{folder}: holds no *_eval_results.json; run command.sh first")
    values = read_json(files[-1])
    if not isinstance(values, dict):
        raise ValueError(f"{files[-1]}: expected an object of dimensions")
    return {name: _dimension(files[-1], name, row) for name, row in values.items()}


def _dimension(path: Path, name: str, row: Any) -> tuple[float, dict[str, float]]:
    """[score, [{video_path, video_results}, ...]] as VBench writes it."""
    if (
        not isinstance(row, list)
        or not row
        or isinstance(row[0], bool)
        or not isinstance(row[0], int | float)
    ):
        raise ValueError(f"{path}: {name} is no [score, clips]")
    clips: dict[str, float] = {}
    for clip in row[1] if len(row) > 1 and isinstance(row[1], list) else []:
        value = clip.get("video_results") if isinstance(clip, dict) else None
        if isinstance(value, int | float):  # dynamic degree writes booleans
            clips[Path(str(clip.get("video_path"))).name] = float(value)
    return float(row[0]), clips
