"""Scoring single clips: what a clip is given beside its frames, and every metric that its cache lacks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.arms import Arm, Normal, normalized
from moviegen_eval.bench_config import ScoreConfig
from moviegen_eval.files import inside, source_file
from moviegen_eval.manifest import asked_for
from moviegen_eval.metrics.registry import ENTRIES, MetricSet, code_digest, lacking
from moviegen_eval.metrics.sample import Clip, Sample
from moviegen_eval.score_cache import ScoreCache
from moviegen_eval.suites import SuitePrompt

from moviegen.media import Limits, MediaError, probe, read_clip, read_image

CLIP_LIMITS = Limits(max_frames=4096, max_bytes=2 << 30)
REFERENCE = "reference"


@dataclass(frozen=True)
class Job:
    """One clip to score: a video of an arm, or one of the reference folder (arm "reference", features only)."""

    arm: str
    prompt: SuitePrompt | None  # None: a reference clip of no prompt
    number: int
    path: Path
    has_audio: bool


@dataclass
class Outcome:
    """What a clip gave: scores by output, features by kind, and why a metric gave nothing."""

    scores: dict[str, float] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """All that scoring needs and that stays the same from clip to clip."""

    config: ScoreConfig
    metrics: MetricSet
    cache: ScoreCache
    normal: Normal
    form: str  # of all clips, in words
    reference: Arm | None
    specs: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # toyworld's, of the prompts by id

    def others(self, prompt: SuitePrompt) -> tuple[dict[str, Any], ...]:
        """The specs of all prompts but one."""
        return tuple(spec for name, spec in self.specs.items() if name != prompt.id)

    def with_audio(self) -> bool:
        """Whether any metric listens."""
        return any("audio" in ENTRIES[name].needs for name in (*self.metrics.samples, *self.metrics.sets))

    def feature_kinds(self) -> dict[str, str]:
        """Kind of features -> one of the metrics of sets that use it."""
        return {ENTRIES[name].features: name for name in reversed(list(self.metrics.sets))}

    def feature_manifest(self, name: str) -> dict[str, Any]:
        """What features depend on: the metric's manifest without its distance."""
        one, manifest = ENTRIES[name], self.metrics.manifests[name]
        code = code_digest(tuple(module for module in one.modules if not module.endswith(".frechet")))
        return {
            "features": one.features,
            "code": code,
            **{k: manifest[k] for k in ("preprocessing", "weights")},
        }


def all_jobs(arms: list[Arm], prompts: list[SuitePrompt], reference: Arm | None) -> list[Job]:
    """Every video of every arm for the prompts, then the reference's."""
    jobs = []
    for arm in [*arms, *([reference] if reference else [])]:
        for prompt in prompts:
            for video in arm.videos.get(prompt.id, ()):
                jobs.append(Job(arm.name, prompt, video.number, video.path, video.info.has_audio))
    return jobs


def loose_reference(folder: Path) -> list[Job]:
    """All videos of a folder, whatever their names, as reference clips of no prompt."""
    from moviegen_eval.arms.folder import SUFFIXES

    jobs = []
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in asked_for(folder, files):
        jobs.append(Job(REFERENCE, None, len(jobs), path, probe(path).has_audio))
    if not jobs:
        raise ValueError(f"reference={folder}: holds no videos")
    return jobs


def score_clip(bench: Bench, job: Job, compute: bool = True) -> Outcome | None:
    """The outcome of a clip, from the cache where it is there.

    Args:
        compute: False returns None instead of computing what is not in the cache.
    """
    extras = _extras(bench, job)
    outcome, todo = Outcome(), []
    for name, place, kind in _places(bench, job, extras):
        found = bench.cache.read_features(place) if kind else bench.cache.read_scores(place)
        reason = bench.cache.read_scores(place) if kind and found is None else None
        found = reason if found is None else found
        if found is None:
            todo.append((name, place, kind))
        else:
            _take(outcome, name, kind, found)
    if todo and not compute:
        return None
    if todo:
        _compute(bench, job, todo, outcome)
    return outcome


def _take(outcome: Outcome, name: str, kind: str, found: Any) -> None:
    if isinstance(found, np.ndarray):
        outcome.features[kind] = found
    elif "error" in found:
        outcome.failed[name] = str(found["error"])
    else:
        outcome.scores |= found


def _places(bench: Bench, job: Job, extras: Mapping[str, Any]) -> Iterator[tuple[str, Path, str]]:
    """(metric, where its result is kept, kind of features or "") of a clip."""
    base = {"file": bench.cache.file_sha256(job.path), "normal": bench.normal.to_dict()}
    text = job.prompt.text if job.prompt else ""
    if job.arm != REFERENCE:
        for name in bench.metrics.samples:
            needs = {need: extras[need] for need in ENTRIES[name].needs if need in extras}
            key = base | {"text": text, "needs": needs}
            yield name, bench.cache.path(name, bench.metrics.manifests[name], key), ""
    for kind, name in bench.feature_kinds().items():
        yield name, bench.cache.path(kind, bench.feature_manifest(name), base), kind


def _extras(bench: Bench, job: Job) -> dict[str, Any]:
    """What identifies a sample's other inputs: hashes of files, words."""
    if job.prompt is None or job.arm == REFERENCE:
        return {}
    found: dict[str, Any] = {
        key: job.prompt.fields[key]
        for key in ("spec", "source_text", "target_text")
        if key in job.prompt.fields
    }
    if others := bench.others(job.prompt):
        found["others"] = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
    for need, path in _files(bench, job.prompt).items():
        found[need] = bench.cache.file_sha256(path)
    return found


def _files(bench: Bench, prompt: SuitePrompt) -> dict[str, Path]:
    """Reference, source and face of a prompt, those that are there."""
    files = {}
    if bench.reference and (videos := bench.reference.videos.get(prompt.id)):
        files["reference"] = videos[0].path
    for need, folder, key, find in (
        ("source", bench.config.sources, "source_video", source_file),
        ("face", bench.config.faces, "face", inside),
    ):
        if folder and key in prompt.fields:
            path = find(Path(folder), str(prompt.fields[key]), f"prompt {prompt.id}: {key}")
            if path.is_file():
                files[need] = path
    return files


def _compute(bench: Bench, job: Job, todo: list[tuple[str, Path, str]], outcome: Outcome) -> None:
    """Run what the cache lacks, and keep each result at once. A fault of one metric does not end the others."""
    try:
        sample = _load(bench, job, {need for name, _, _ in todo for need in ENTRIES[name].needs})
    except MediaError as error:
        for name, place, kind in todo:
            bench.cache.write_scores(place, {"error": error.reason})
            _take(outcome, name, kind, {"error": error.reason})
        return
    for name, place, kind in todo:
        found = _run(bench, sample, name, kind)
        if kind and not isinstance(found, dict):
            bench.cache.write_features(place, found)
        else:
            bench.cache.write_scores(place, found)
        _take(outcome, name, kind, found)


def _run(bench: Bench, sample: Sample, name: str, kind: str) -> Any:
    """Scores, features, or {"error": why not}."""
    if reason := lacking(ENTRIES[name], sample):
        return {"error": reason}
    try:
        if kind:
            features = bench.metrics.sets[name].extractor.features(sample.clip)
            return features if len(features) else {"error": "too short for one row of features"}
        scores = bench.metrics.samples[name].scores(sample)
    except ValueError as error:
        return {"error": " ".join(str(error).split())}
    return {key: float(value) for key, value in scores.items() if math.isfinite(value)}


def _load(bench: Bench, job: Job, needs: set[str]) -> Sample:
    """Decode a clip and those of its other inputs that are asked for."""
    clip = load_clip(job.path, bench.normal, bench.with_audio() and job.has_audio)
    if job.prompt is None:
        return Sample("", clip)
    files = _files(bench, job.prompt)
    others: dict[str, Any] = {
        need: load_clip(files[need], bench.normal, f"{need}_audio" in needs)
        for need in ("reference", "source")
        if need in files and need in needs
    }
    if "face" in files and "face" in needs:
        others["face"] = read_image(files["face"])
    fields = {key: job.prompt.fields.get(key) for key in ("spec", "source_text", "target_text")}
    specs = bench.others(job.prompt) or None
    return Sample(job.prompt.text, clip, **others, **fields, others=specs)


def load_clip(path: Path, normal: Normal, with_audio: bool = False) -> Clip:
    """A clip brought to what all arms have in common; MediaError where it cannot be read."""
    decoded = read_clip(path, with_audio=with_audio, limits=CLIP_LIMITS, frame_rate=normal.frame_rate)
    frames, audio = normalized(decoded.frames, decoded.frame_rate, normal), decoded.audio
    if audio is not None and decoded.sample_rate_hz and normal.seconds is not None:
        audio = audio[:, : round(normal.seconds * decoded.sample_rate_hz)]
    return Clip(frames, decoded.frame_rate, audio, decoded.sample_rate_hz)
