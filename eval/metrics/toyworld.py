"""The toyworld oracle as a metric: does the clip show what its prompt's spec states?"""

from __future__ import annotations

from collections.abc import Mapping

from moviegen_data.toyworld import oracle
from moviegen_eval.metrics.sample import Sample


class OracleScores:
    """`oracle_<attribute>`: 1 where the oracle sees what the spec states, else 0; `oracle_all`: all of them."""

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.spec is not None
        clip = sample.clip
        seen = oracle.observe(clip.frames, clip.frame_rate, clip.audio, clip.sample_rate_hz)
        answers = oracle.verdict(sample.spec, seen)
        scores = {f"oracle_{name}": float(right) for name, right in answers.items()}
        return scores | {"oracle_all": float(all(answers.values()))} if answers else {}


class OracleFloor:
    """`oracle_<attribute>/floor`: the same clip held against every other prompt's spec, mean over those that state it.

    What a model that ignores its prompt, but makes clips like these, would score.
    """

    def scores(self, sample: Sample) -> Mapping[str, float]:
        assert sample.others is not None
        clip = sample.clip
        seen = oracle.observe(clip.frames, clip.frame_rate, clip.audio, clip.sample_rate_hz)
        found: dict[str, list[float]] = {}
        for spec in sample.others:
            answers = oracle.verdict(spec, seen)
            for name, right in (answers | {"all": all(answers.values())} if answers else {}).items():
                found.setdefault(f"oracle_{name}/floor", []).append(float(right))
        return {name: sum(values) / len(values) for name, values in found.items()}
