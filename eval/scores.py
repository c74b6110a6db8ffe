"""Scores with their manifests: what a value depends on, and the refusal to compare what is not alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moviegen_eval.files import read_json, read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.records import parse_record

SCORES, SAMPLES = "scores.json", "samples.jsonl"


@dataclass(frozen=True)
class Score:
    """One metric of one arm, with its 95 % interval and all that it depends on."""

    arm: str
    metric: str  # of the registry, or of an adapter
    output: str  # the number of the metric that this is; of some prompts alone `<tag>/<value>/<number>`
    value: float
    low: float | None
    high: float | None
    n: int  # prompts; of a distance of sets, rows of features
    unit: str
    higher_is_better: bool
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256, in hex, of the manifest: equal digests and n mean comparable scores."""
        return manifest_digest(self.manifest)

    def figure(self) -> Figure:
        """The score as a line of numbers.json."""
        name = f"score/{self.arm}/{self.output}"
        return Figure(name, self.value, self.low, self.high, self.n, self.unit, self.higher_is_better)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """sha256, in hex, of a manifest's canonical json."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_comparable(first: Score, second: Score) -> None:
    """Raise ValueError, naming the first thing that differs, unless two scores may stand side by side."""
    where = f"{first.output} of {first.arm} and of {second.arm} do not compare"
    if first.output != second.output:
        raise ValueError(f"{where}: one is {first.output}, the other {second.output}")
    for key in dict.fromkeys([*first.manifest, *second.manifest]):
        one, other = first.manifest.get(key), second.manifest.get(key)
        if one != other:
            raise ValueError(f"{where}: {key} is {_short(one)} in the one, {_short(other)} in the other")
    if first.n != second.n:
        raise ValueError(f"{where}: n is {first.n} in the one, {second.n} in the other")


def compare_scores(first: Score, second: Score) -> float:
    """How far the first is ahead of the second, in the metric's own direction; see `check_comparable`."""
    check_comparable(first, second)
    return (first.value - second.value) * (1 if first.higher_is_better else -1)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class SampleRow:
    """The scores of one clip: one line of samples.jsonl."""

    arm: str
    prompt: str
    number: int  # of the try
    path: str
    scores: dict[str, float]


@dataclass(frozen=True)
class ScoreFile:
    """What `moviegen eval score` wrote."""

    facts: dict[str, Any]  # suite, normal, arms, problems, skipped, warnings
    scores: tuple[Score, ...]
    samples: tuple[SampleRow, ...]
    by_tag: tuple[Score, ...] = ()  # of the prompts with one value of a tag


def read_scores(folder: Path | str) -> ScoreFile:
    """Read a folder of scores; a ValueError names the file and the entry."""
    path = Path(folder) / SCORES
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("scores"), list):
        raise ValueError(f"{path}: expected an object with a list `scores`")
    scores, by_tag = (
        tuple(
            parse_record(Score, row, f"{path}: {key}[{number}]")
            for number, row in enumerate(values.pop(key, ()))
        )
        for key in ("scores", "by_tag")
    )
    file = Path(folder) / SAMPLES
    rows = (
        [parse_record(SampleRow, row, where) for where, row in read_json_lines(file)]
        if file.is_file()
        else []
    )
    return ScoreFile(values, scores, tuple(rows), by_tag)


def score_dicts(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """Scores as json values."""
    return [asdict(score) for score in scores]
