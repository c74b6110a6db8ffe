"""av-benchmark (hkchengrex) through files: FD, KL, IS, CLAP, ImageBind and DeSync of sound for video.

Frechet distances and KL need reference sound: on generated videos, such as Movie Gen Audio Bench, there is none, and
only ImageBind, DeSync and CLAP mean something.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from moviegen_eval.adapters.base import External, Result, link_videos, write_commands
from moviegen_eval.arms import Arm
from moviegen_eval.files import read_text, write_atomically
from moviegen_eval.suites import Suite

from moviegen.media import read_sound, write_flac

LINE = re.compile(
    r"^\W*(?P<name>[A-Za-z][\w-]*)\s*[:=]\s*(?P<value>[-+]?[\d.]+(e[-+]?\d+)?)\s*$", re.MULTILINE
)
HIGHER = ("ISC", "IB", "CLAP")  # all others are distances
NEED_REFERENCE = ("FD", "KL")
KNOWN = (*NEED_REFERENCE, "ISC", "IB", "DeSync", "LAION", "MS")  # what its scores' names begin with


class AvBenchmark:
    """Needs `seconds` (its --audio_length), and `reference/` with sound of the same names where there is any."""

    name = "av_benchmark"

    def prepare(self, arm: Arm, suite: Suite, folder: Path, external: External) -> list[list[str]]:
        if external.seconds is None:
            raise ValueError("av_benchmark: give external.seconds, the length of sound that is compared")
        silent = [prompt for prompt, tries in arm.videos.items() if not tries[0].info.has_audio]
        if silent:
            raise ValueError(f"av_benchmark: {len(silent)} videos of {arm.name} have no sound ({silent[0]})")
        names = {prompt: f"{prompt}{tries[0].path.suffix}" for prompt, tries in arm.videos.items()}
        link_videos(arm, folder / "videos", names)
        for prompt, tries in arm.videos.items():
            sound, rate = read_sound(tries[0].path, 0.0, external.seconds)
            write_flac(folder / "audio" / f"{prompt}.flac", sound, rate)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["name", "caption"])
        writer.writerows([prompt, suite.by_id[prompt].text] for prompt in arm.videos)
        write_atomically(folder / "captions.csv", out.getvalue())
        commands = self._commands(folder.resolve(), external)
        write_commands(folder, commands, external.repository)
        return commands

    def _commands(self, folder: Path, external: External) -> list[list[str]]:
        """Two stages of features, then the scores; their output goes to `results/scores.txt`."""
        cache, length = str(folder / "gt_cache"), f"--audio_length={external.seconds:g}"
        reference = folder / "reference"
        python, gt_audio = external.python, str(reference if reference.is_dir() else folder / "audio")
        video = ["--video_path", str(folder / "videos"), "--gt_batch_size", "8", length]
        predicted = [
            "--pred_audio",
            str(folder / "audio"),
            "--pred_cache",
            str(folder / "pred_cache"),
            length,
        ]
        captions = ["--text_csv", str(folder / "captions.csv"), "--output_cache_path", cache]
        return [
            [python, "extract_video.py", "--gt_cache", cache, *video],
            [python, "extract_text.py", *captions],
            [python, "evaluate.py", "--gt_audio", gt_audio, "--gt_cache", cache, *predicted],
        ]

    def read(self, arm: Arm, suite: Suite, folder: Path) -> Result:
        """Read `results/scores.txt` or the log of the run: lines of `NAME: value`."""
        del arm, suite
        files = [path for path in (folder / "results" / "scores.txt", folder / "run.log") if path.is_file()]
        if not files:
            raise ValueError(f"{folder}: holds neither results/scores.txt nor run.log; run command.sh first")
        values = {match["name"]: float(match["value"]) for match in LINE.finditer(read_text(files[0]))}
        known = {name: value for name, value in values.items() if name.split("-")[0] in KNOWN}
        if not known:
            raise ValueError(f"{files[0]}: holds no score of av-benchmark")
        remarks = []
        if not (folder / "reference").is_dir():
            left = sorted(name for name in known if name.split("-")[0] in NEED_REFERENCE)
            known = {name: value for name, value in known.items() if name not in left}
            remarks.append("no reference sound: Frechet distances and KL were not read")
        units = {name: _unit(name) for name in known}
        return Result({}, known, units, tuple(remarks))


def _unit(name: str) -> tuple[str, bool]:
    if name == "DeSync":
        return "seconds", False
    return "score", any(word in name for word in HIGHER)
