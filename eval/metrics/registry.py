"""The registry: every automatic metric by name, what it needs, and how to build it.

A metric is of one sample, or of a set against a set. What needs no weights works at once; the rest names the files
of `moviegen/weights.json` that it needs, which are given by path and never fetched.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.metrics import builders
from moviegen_eval.metrics.catalog import ENTRIES, FOLDER_WEIGHTS, Entry, Output
from moviegen_eval.metrics.frechet import frechet_distance, gaussian_mmd, polynomial_mmd
from moviegen_eval.metrics.sample import NEEDS, Extractor, SampleMetric

from moviegen.weights import check_weight, read_manifest

SPLITS = 10  # of the inception score, as av-benchmark has


def _inception(made: np.ndarray, _: np.ndarray) -> float:
    from moviegen_eval.metrics.sound import inception_score

    return inception_score(made, SPLITS)


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "frechet": frechet_distance,
    "polynomial": polynomial_mmd,
    "gaussian": gaussian_mmd,
    "inception": _inception,
}
__all__ = ["ENTRIES", "Entry", "FeatureDistance", "MetricSet", "Output", "entry", "names_for", "open_metrics"]


@dataclass(frozen=True)
class FeatureDistance:
    """A metric of sets: an extractor, and the distance of its features."""

    name: str
    extractor: Extractor
    measure: Callable[[np.ndarray, np.ndarray], float]
    paired: bool
    least: int = 2  # rows of either set, or prompts of the one set


@dataclass(frozen=True)
class MetricSet:
    """Metrics that were built, the manifest of each, and the reasons why others could not be."""

    samples: dict[str, SampleMetric]
    sets: dict[str, FeatureDistance]
    manifests: dict[str, dict[str, Any]]
    skipped: dict[str, str]

    def outputs(self, name: str) -> tuple[Output, ...]:
        """What a metric gives."""
        return ENTRIES[name].outputs


def entry(name: str) -> Entry:
    """The entry of a name; a ValueError suggests the nearest."""
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ENTRIES)}"
        raise ValueError(f"metric {name!r}: no such metric; {hint}")
    return ENTRIES[name]


def names_for(given: Iterable[str]) -> list[str]:
    """Metric names with `all` and `free` (of weights) spelled out, each once, in the order of the registry."""
    wanted: set[str] = set()
    for name in given:
        if name == "all":
            wanted |= ENTRIES.keys()
        elif name == "free":
            wanted |= {one.name for one in ENTRIES.values() if not one.weights}
        else:
            wanted.add(entry(name).name)
    return [name for name in ENTRIES if name in wanted]


def open_metrics(
    names: Iterable[str],
    weights: Mapping[str, str] | None = None,
    other_weights: bool = False,
    no_reference_audio: str = "",
) -> MetricSet:
    """Build metrics; what lacks weights or a package is left out with the reason.

    Args:
        names: names of the registry, "all" or "free".
        weights: name in `moviegen/weights.json` -> path of the file, or of the folder that holds it.
        other_weights: take files of another sha256 than the manifest's; their own is recorded either way.
        no_reference_audio: why there is no reference sound; metrics that need one are left out with this reason.

    Raises:
        ValueError: an unknown name, or a weights file that is not there or not the one that it should be.
    """
    built = MetricSet({}, {}, {}, {})
    files = {name: _weights_file(name, path, other_weights) for name, path in (weights or {}).items()}
    cache: dict[tuple[str, tuple[str, ...]], Any] = {}
    for name in names_for(names):
        one = entry(name)
        if no_reference_audio and one.hears_reference:
            built.skipped[name] = no_reference_audio
            continue
        lacking = [weight for weight in one.weights if weight not in files]
        if lacking:
            source = read_manifest()[lacking[0]].source
            built.skipped[name] = f"no weights: give weights.{lacking[0]}=path (from: {source})"
            continue
        key = (one.builder, one.weights)
        try:
            if key not in cache:
                cache[key] = getattr(builders, one.builder)(
                    *(files[weight]["path"] for weight in one.weights)
                )
        except (ImportError, FileNotFoundError, builders.UnavailableError) as error:
            built.skipped[name] = " ".join(str(error).split())
            continue
        if one.kind == "set":
            least = SPLITS if one.alone else 2
            distance = FeatureDistance(name, cache[key], DISTANCES[one.distance], one.paired, least)
            built.sets[name] = distance
        else:
            built.samples[name] = cache[key]
        built.manifests[name] = manifest(one, [files[weight] for weight in one.weights])
    return built


def _weights_file(name: str, path: str, other_weights: bool) -> dict[str, str]:
    """Name, path and sha256 of a file given by its own path or by its folder's."""
    known = read_manifest()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"weights.{name}: not in the manifest; {f'did you mean {near[0]!r}?' if near else ''}"
        )
    file = Path(path)
    if file.is_dir():
        found = [file / one for one in FOLDER_WEIGHTS if (file / one).is_file()]
        if not found:
            raise ValueError(f"weights.{name}={path}: holds none of {', '.join(FOLDER_WEIGHTS)}")
        file = found[0]
    if other_weights and file.is_file():
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"name": name, "path": str(file), "sha256": sha256}
    return check_weight(name, file)


def manifest(one: Entry, weights: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    """What a score of this metric depends on beside its samples: code, preprocessing and weights."""
    return {
        "metric": one.name,
        "code": code_digest(one.modules),
        "preprocessing": one.preprocessing,
        "weights": {weight["name"]: weight["sha256"] for weight in weights},
    }


@functools.cache
def code_digest(modules: tuple[str, ...]) -> str:
    """sha256, in hex and cut to 16 digits, of the source files that a metric is computed by."""
    digest = hashlib.sha256()
    for name in modules:
        file = importlib.util.find_spec(name)
        assert file is not None
        assert file.origin is not None
        digest.update(Path(file.origin).read_bytes())
    return digest.hexdigest()[:16]


def lacking(one: Entry, sample: Any) -> str | None:
    """Why a metric does not apply to a sample; None where it does."""
    absent = [need for need in one.needs if not sample.has(need)]
    return f"no {NEEDS[absent[0]]}" if absent else None
