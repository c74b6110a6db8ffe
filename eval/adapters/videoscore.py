"""VideoScore (TIGER-AI-Lab) through files: five scores of 1 to 4 a clip from a large model.

The project ships an example for one clip and no command for many, so that `prepare` writes a list of clips and `read`
takes one json object a line: `{"file": name, "scores": [five numbers]}`. `videoscore_run.py`, which `prepare` writes
beside them, makes that file in the project's environment.
"""

from __future__ import annotations

import json
from pathlib import Path

from moviegen_eval.adapters.base import External, Result, link_videos, write_commands
from moviegen_eval.arms import Arm
from moviegen_eval.files import read_json_lines, write_atomically
from moviegen_eval.suites import Suite

OUTPUTS = (
    "visual_quality",
    "temporal_consistency",
    "dynamic_degree",
    "text_alignment",
    "factual_consistency",
)
RESULTS = "videoscore.jsonl"
TEMPLATE = Path(__file__).with_name(
    "videoscore_runner.txt"
)  # text here: its imports are of another environment
RUNNER = "videoscore_run.py"


class VideoScore:
    """VideoScore 1.1: trained on systems of 2024, so an old distribution."""

    name = "videoscore"

    def prepare(self, arm: Arm, suite: Suite, folder: Path, external: External) -> list[list[str]]:
        names = {prompt: f"{prompt}{tries[0].path.suffix}" for prompt, tries in arm.videos.items()}
        link_videos(arm, folder / "videos", names)
        rows = [{"file": names[prompt], "prompt": suite.by_id[prompt].text} for prompt in arm.videos]
        write_atomically(folder / "clips.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write_atomically(folder / RUNNER, TEMPLATE.read_text(encoding="utf-8"))
        command = [external.python, str(folder.resolve() / RUNNER), str(folder.resolve())]
        write_commands(folder, [command], external.repository)
        return [command]

    def read(self, arm: Arm, suite: Suite, folder: Path) -> Result:
        del suite
        path = folder / RESULTS
        if not path.is_file():
            raise ValueError(f"{path}: is not there; run command.sh first")
        samples: dict[str, dict[str, float]] = {}
        for where, row in read_json_lines(path):
            scores = row.get("scores")
            if not isinstance(scores, list) or len(scores) != len(OUTPUTS):
                raise ValueError(f"{where}: scores is {scores!r}; expected {len(OUTPUTS)} numbers")
            samples[str(row.get("file"))] = dict(zip(OUTPUTS, map(float, scores), strict=True))
        missing = len(arm.videos) - len(samples)
        said = (f"{missing} clips have no scores",) if missing else ()
        return Result(samples, {}, {name: ("1 to 4", True) for name in OUTPUTS}, said)
