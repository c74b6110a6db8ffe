"""What makes arms comparable: one length, frame rate and size for all of them, or a refusal that says why not.

The longest, smoothest and sharpest arm is brought down to the others, never the other way round: frames nearest in
time at the lowest rate, the first seconds of the shortest arm, and the smallest width and height by an area-averaging
resize of the centered crop.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from moviegen_eval.arms.folder import Arm, ArmVideo, Problem, shown_path

PROPERTIES = ("frame_rate", "seconds", "width", "height")
RATE_SLACK, SECONDS_SLACK = 0.02, 0.06  # relative: 23.976 and 24 frames/s, 4.0 and 4.2 s count as equal
POLICIES = ("normalize", "refuse", "as_they_are")


@dataclass(frozen=True)
class Normal:
    """What every clip is brought to. None: left as it is, because the arms agree."""

    frame_rate: float | None = None
    seconds: float | None = None
    width: int | None = None
    height: int | None = None

    def is_empty(self) -> bool:
        return all(getattr(self, name) is None for name in PROPERTIES)

    def describe(self) -> str:
        """In words, for manifests and reports."""
        words = []
        if self.frame_rate is not None:
            words.append(f"{self.frame_rate:g} frames/s")
        if self.seconds is not None:
            words.append(f"the first {self.seconds:g} s")
        if self.width is not None and self.height is not None:
            words.append(f"{self.width}x{self.height} pixels")
        return ", ".join(words) or "as they are"

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


def typical(arm: Arm) -> dict[str, float]:
    """The median frame rate, length and size of an arm's videos."""
    infos = [video.info for video in arm.all_videos()]
    return {
        "frame_rate": float(statistics.median(info.frame_rate for info in infos)),
        "seconds": float(statistics.median(seconds_of(video) for video in arm.all_videos())),
        "width": float(statistics.median_low([info.width for info in infos])),
        "height": float(statistics.median_low([info.height for info in infos])),
    }


def seconds_of(video: ArmVideo) -> float:
    """The length by frames, which containers round less than their own duration."""
    return video.info.num_frames / video.info.frame_rate if video.info.frame_rate > 0 else 0.0


def _values(arm: Arm, name: str) -> list[float]:
    """A property of each of the arm's videos."""
    videos = arm.all_videos()
    return [seconds_of(v) if name == "seconds" else float(getattr(v.info, name)) for v in videos]


def differences(arms: Sequence[Arm]) -> dict[str, dict[str, str]]:
    """Properties in which the arms' typical videos differ, or an arm's own: property -> arm -> value, or its range."""
    unlike = {}
    for name in PROPERTIES:
        values = {arm.name: _values(arm, name) for arm in arms}
        # A few videos that are shorter than the rest of their arm are no reason to cut all: they are named instead.
        ends = {arm: (float(statistics.median_low(own)), max(own)) for arm, own in values.items()}
        if name != "seconds":
            ends = {arm: (min(own), max(own)) for arm, own in values.items()}
        lows, highs = zip(*ends.values(), strict=True)
        slack = {"frame_rate": RATE_SLACK, "seconds": SECONDS_SLACK}.get(name, 0.0)
        if max(highs) - min(lows) > slack * max(highs):
            unlike[name] = {arm: _range(low, high, slack) for arm, (low, high) in ends.items()}
    return unlike


def _range(low: float, high: float, slack: float) -> str:
    return f"{low:g}" if high - low <= slack * high else f"{low:g} to {high:g}"


def as_they_are(arms: Sequence[Arm]) -> str:
    """The form of arms that nothing was done to, for manifests: scores of unlike clips must not pass for alike."""
    if unlike := differences(arms):
        words = (f"{name} {', '.join(map(': '.join, row.items()))}" for name, row in unlike.items())
        return f"unlike: {'; '.join(words)}"
    one = typical(arms[0])
    return f"as they are: {one['frame_rate']:.3g} frames/s, {one['seconds']:.1f} s, {one['width']:g}x{one['height']:g}"


def fair_plan(arms: Sequence[Arm], policy: str = "normalize") -> Normal:
    """What all clips must be brought to so that no arm gains by its length, frame rate or size.

    Args:
        policy: "normalize"; "refuse" raises where they differ; "as_they_are" leaves them, and reports say so.

    Raises:
        ValueError: the policy is "refuse" and the arms differ; one line with every difference.
    """
    if policy not in POLICIES:
        raise ValueError(f"unlike is {policy!r}; expected one of {', '.join(POLICIES)}")
    unlike = differences(arms) if len(arms) > 1 else {}
    if not unlike or policy == "as_they_are":
        return Normal()
    if policy == "refuse":
        words = [
            f"{name} " + ", ".join(f"{arm} {value}" for arm, value in values.items())
            for name, values in unlike.items()
        ]
        raise ValueError(
            f"arms differ: {'; '.join(words)}; unlike=normalize brings them to the least of each"
        )
    low = {name: min(typical(arm)[name] for arm in arms) for name in PROPERTIES}
    sized = "width" in unlike or "height" in unlike
    return Normal(
        frame_rate=low["frame_rate"] if "frame_rate" in unlike else None,
        seconds=low["seconds"] if "seconds" in unlike else None,
        width=int(low["width"]) if sized else None,
        height=int(low["height"]) if sized else None,
    )


def unfit_videos(arms: Sequence[Arm], normal: Normal, policy: str = "normalize") -> list[Problem]:
    """Videos that cannot be brought to the common form, because they are shorter, slower or smaller than it."""
    problems = []
    for arm in arms if policy != "as_they_are" else ():
        wanted = normal.seconds if normal.seconds is not None else typical(arm)["seconds"]
        for video in arm.all_videos():
            if fault := _fault(video, normal, wanted):
                problems.append(Problem(arm.name, fault[0], shown_path(arm.folder, video.path), fault[1]))
    return problems


def _fault(video: ArmVideo, normal: Normal, wanted: float) -> tuple[str, str] | None:
    """What a video lacks for the common form, and by how much."""
    seconds, info = seconds_of(video), video.info
    if seconds < wanted * (1 - SECONDS_SLACK) - 1e-6:
        return "short", f"{seconds:.2f} s, the comparison needs {wanted:.2f} s"
    if normal.frame_rate is not None and info.frame_rate < normal.frame_rate * (1 - RATE_SLACK):
        return "slow", f"{info.frame_rate:g} frames/s, the comparison needs {normal.frame_rate:g}"
    if info.width < (normal.width or 0) or info.height < (normal.height or 0):
        return "small", f"{info.width}x{info.height}, the comparison needs {normal.width}x{normal.height}"
    return None


def normalized(frames: np.ndarray, frame_rate: float, normal: Normal) -> np.ndarray:
    """Cut and resize frames uint8 [T, H, W, 3] that are at the common frame rate already."""
    if normal.seconds is not None:
        frames = frames[: max(1, round(normal.seconds * frame_rate))]
    if normal.width is None or normal.height is None or frames.shape[1:3] == (normal.height, normal.width):
        return frames
    return resized(cropped(frames, normal.width / normal.height), normal.width, normal.height)


def cropped(frames: np.ndarray, aspect: float) -> np.ndarray:
    """The largest centered part of frames [T, H, W, 3] with this width by height."""
    height, width = frames.shape[1:3]
    wide, tall = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - tall) // 2, (width - wide) // 2
    return frames[:, top : top + max(tall, 1), left : left + max(wide, 1)]


def resized(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames [T, H, W, 3] resized with antialiasing, uint8."""
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    small = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def by_arm(problems: Sequence[Problem]) -> Mapping[str, list[Problem]]:
    """Problems by arm."""
    table: dict[str, list[Problem]] = {}
    for problem in problems:
        table.setdefault(problem.arm, []).append(problem)
    return table
