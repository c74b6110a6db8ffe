"""What the comparison part of a report is made from: study, votes, scores, cards and published figures, once read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moviegen_eval.agreement import Agreement, agreements
from moviegen_eval.arms import SettingsCard, read_card
from moviegen_eval.config import ReportConfig
from moviegen_eval.records import parse_record
from moviegen_eval.report.published import Published, read_published
from moviegen_eval.scores import SAMPLES, SCORES, SampleRow, Score, ScoreFile, check_comparable, read_scores
from moviegen_eval.study.analysis import Analysis, analyse
from moviegen_eval.study.built import MANIFEST, read_built, summary
from moviegen_eval.study.study import Study, load_study
from moviegen_eval.study.table import read_votes

NOT_STATED = "not stated"
PROTOCOL = (  # what a reader needs to repeat a study, beside what the study file declares
    "raters",
    "recruitment",
    "pay",
    "training",
    "interface",
    "ethics",
)


@dataclass(frozen=True)
class Comparison:
    """Everything read and computed; the same inputs give the same value."""

    study: Study | None = None
    analysis: Analysis | None = None
    scores: ScoreFile | None = None
    cards: dict[str, SettingsCard] = field(default_factory=dict)
    published: Published | None = None
    agreements: tuple[Agreement, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)  # file -> sha256
    protocol: dict[str, str] = field(default_factory=dict)
    form: str = ""  # of the videos that raters saw


def read_comparison(config: ReportConfig) -> Comparison:
    """Read and compute. Raises ValueError of one line for an input that is damaged or of another study."""
    study = load_study(config.study) if config.study else None
    analysis = None
    if study is not None and config.votes:
        analysis = analyse(study, read_votes(config.votes), resamples=config.resamples)
    scores = join_scores([read_scores(folder) for folder in score_folders(config)])
    published = read_published(config.published) if config.published else None
    found: tuple[Agreement, ...] = ()
    if study and analysis and scores:
        bounded = [one for one in scores.scores if not one.output.endswith("/floor")]
        directions = {one.output: one.higher_is_better for one in bounded}
        texts = scores.facts.get("texts", {})
        found = tuple(
            agreements(study, analysis, scores.samples, texts, directions, config.resamples, study.seed)
        )
    return Comparison(
        study,
        analysis,
        scores,
        _cards(config, study, scores),
        published,
        found,
        _inputs(config),
        {
            name: config.protocol.get(name, NOT_STATED)
            for name in dict.fromkeys([*PROTOCOL, *config.protocol])
        },
        _form(config, study),
    )


def _form(config: ReportConfig, study: Study | None) -> str:
    """How the videos that raters saw were made alike: how many pairs were changed, and in what."""
    if study is None or config.built is None:
        return f"{NOT_STATED}: built= names the folder of `eval study build`" if study else ""
    built = read_built(Path(config.built), study.digest)
    counts = summary(built)
    pairs = counts.pop("pairs")
    words = [f"{kind} in {count}" for kind, count in counts.items()] or ["nothing"]
    return (
        f"{pairs} pairs with gold items, both videos of each encoded anew in one size, frame rate and length; "
        f"changed for it: {', '.join(words)}"
    )


def _inputs(config: ReportConfig) -> dict[str, str]:
    """sha256 of every file that the comparison is computed from."""
    files = [Path(path) for path in (config.study, config.votes, config.published) if path]
    files += [Path(config.built) / MANIFEST] if config.built else []
    for folder in score_folders(config):
        files += [path for name in (SCORES, SAMPLES) if (path := folder / name).is_file()]
    found = {}
    for path in files:
        name = path.name if path.name not in found else f"{path.parent.name}/{path.name}"
        with path.open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def score_folders(config: ReportConfig) -> list[Path]:
    """The folders of scores that a config names."""
    given = [config.scores] if isinstance(config.scores, str) else config.scores or []
    return [Path(folder) for folder in given]


def join_scores(files: Sequence[ScoreFile]) -> ScoreFile | None:
    """Several folders of scores as one: the facts of the first, everybody's scores, problems and warnings."""
    if not files:
        return None
    facts = dict(files[0].facts)
    facts["problems"] = [row for file in files for row in file.facts.get("problems", [])]
    facts["warnings"] = [line for file in files for line in file.facts.get("warnings", [])]
    facts["skipped"] = {name: why for file in files for name, why in file.facts.get("skipped", {}).items()}
    scores = tuple(one for file in files for one in file.scores)
    rows: dict[tuple[str, str, int], SampleRow] = {}
    for row in (row for file in files for row in file.samples):
        key = row.arm, row.prompt, row.number
        rows[key] = replace(rows[key], scores=rows[key].scores | row.scores) if key in rows else row
    by_tag = tuple(one for file in files for one in file.by_tag)
    return ScoreFile(facts, scores, tuple(rows.values()), by_tag)


def _cards(config: ReportConfig, study: Study | None, scores: ScoreFile | None) -> dict[str, SettingsCard]:
    """The settings card of each arm: from `arms`, from the study's folders, else what `eval score` recorded."""
    cards: dict[str, SettingsCard] = {}
    recorded: Mapping = scores.facts.get("arms", {}) if scores else {}
    for name, facts in recorded.items():
        cards[name] = parse_record(SettingsCard, facts["card"], f"scores: arms.{name}.card")
    for arm in study.arms if study else ():
        if arm.name not in cards or not recorded:
            cards[arm.name] = read_card(study.root / arm.folder, arm.name) if study else cards[arm.name]
    for name, folder in config.arms.items():
        cards[name] = read_card(Path(folder), name)
    order = [arm.name for arm in study.arms] if study else list(recorded)
    return {name: cards[name] for name in dict.fromkeys([*order, *cards]) if name in cards}


def comparable_scores(scores: Sequence[Score]) -> dict[str, tuple[list[Score], str]]:
    """Output -> (scores of all arms, why they do not compare, or "")."""
    table: dict[str, tuple[list[Score], str]] = {}
    for output in dict.fromkeys(one.output for one in scores):
        own = [one for one in scores if one.output == output]
        reason = ""
        for other in own[1:]:
            try:
                check_comparable(own[0], other)
            except ValueError as error:
                reason = reason or str(error)
        table[output] = (own, reason)
    return table
