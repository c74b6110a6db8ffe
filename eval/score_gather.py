"""From outcomes of clips to scores: means over prompts and distances of sets, with intervals and manifests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from moviegen_eval.metrics.accumulate import SampleScores, SetScores
from moviegen_eval.metrics.catalog import Output
from moviegen_eval.metrics.frechet import bootstrap_sets
from moviegen_eval.metrics.registry import ENTRIES, Entry
from moviegen_eval.score_clips import REFERENCE, Bench, Job, Outcome
from moviegen_eval.scores import Score
from moviegen_eval.stats import bootstrap_mean
from moviegen_eval.suites import SuitePrompt, prompts_digest

EDIT_TYPE = "edit_type"  # TGVE's tag: results by it are asked for wherever edits are judged
Done = Sequence[tuple[Job, Outcome]]


def gather(bench: Bench, done: Done, arms: Sequence[str], prompts: str) -> list[Score]:
    """Scores of every arm, by metric in the registry's order.

    Args:
        prompts: the digest of the prompts that were scored.
    """
    scores: list[Score] = []
    for name in ENTRIES:
        if name in bench.metrics.samples:
            scores += _sample_scores(bench, done, arms, ENTRIES[name], prompts)
        elif name in bench.metrics.sets:
            scores += _set_scores(bench, done, arms, ENTRIES[name], prompts)
    return scores


def tag_groups(prompts: Sequence[SuitePrompt], by: Sequence[str] | None) -> dict[str, list[SuitePrompt]]:
    """`<tag>/<value>`, as figures are named -> the prompts that carry it; one with several values is in each.

    Args:
        by: tags; None is `edit_type`, where prompts carry it.

    Raises ValueError for a tag that no prompt carries, and for two values that would have one name.
    """
    known = dict.fromkeys(kind for prompt in prompts for kind in prompt.tags)
    groups: dict[str, list[SuitePrompt]] = {}
    for kind in [kind for kind in (EDIT_TYPE,) if kind in known] if by is None else by:
        if kind not in known:
            raise ValueError(
                f"score: by={kind}: no prompt has this tag; there are: {', '.join(known) or 'none'}"
            )
        named: dict[str, str] = {}
        for value in sorted({value for prompt in prompts for value in prompt.tags.get(kind, ())}):
            name = f"{_word(kind)}/{_word(value)}"
            if (other := named.setdefault(name, value)) != value or name in groups:
                raise ValueError(f"score: by={kind}: {other!r} and {value!r} would both be called {name}")
            groups[name] = [prompt for prompt in prompts if value in prompt.tags.get(kind, ())]
    return groups


def _word(text: str) -> str:
    """A tag or its value as a part of a figure's name."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_") or "_"


def gather_by_tag(
    bench: Bench, done: Done, arms: Sequence[str], groups: Mapping[str, Sequence[SuitePrompt]]
) -> list[Score]:
    """Means over the prompts of each group, with outputs called `<tag>/<value>/<output>`; no distances of sets.

    Beside them, prompt by prompt, how far the first arm is above each other: `<tag>/<value>/<output>_minus_<arm>`.
    """
    scores: list[Score] = []
    for name, prompts in groups.items():
        own = {prompt.id for prompt in prompts}
        part = [(job, outcome) for job, outcome in done if job.prompt is not None and job.prompt.id in own]
        digest = prompts_digest([(prompt.id, prompt.text) for prompt in prompts])
        for metric in (metric for metric in ENTRIES if metric in bench.metrics.samples):
            found = _sample_scores(bench, part, arms, ENTRIES[metric], digest)
            found += _differences(bench, part, arms, ENTRIES[metric], digest)
            scores += [replace(one, output=f"{name}/{one.output}") for one in found]
    return scores


def _manifest(bench: Bench, one: Entry, prompts: str, **more: Any) -> dict[str, Any]:
    return bench.metrics.manifests[one.name] | {
        "prompts": prompts,
        "normal": bench.form,
        **more,
    }


def _sample_scores(bench: Bench, done: Done, arms: Sequence[str], one: Entry, prompts: str) -> list[Score]:
    """Means over the prompts for which every arm has the output, so that n is the same for all arms."""
    return [
        _mean(bench, one, output, arm, output.name, values, prompts)
        for output in one.outputs
        for arm, values in _values(done, arms, output.name).items()
    ]


def _differences(bench: Bench, done: Done, arms: Sequence[str], one: Entry, prompts: str) -> list[Score]:
    """How far the first arm is above each other, prompt by prompt."""
    scores = []
    for output in one.outputs:
        values = _values(done, arms, output.name)
        for arm in arms[1:] if values else ():
            name, above = f"{output.name}_minus_{arm}", values[arms[0]] - values[arm]
            scores.append(_mean(bench, one, output, arms[0], name, above, prompts))
    return scores


def _mean(
    bench: Bench, one: Entry, output: Output, arm: str, name: str, values: np.ndarray, prompts: str
) -> Score:
    """The mean of values [N] of prompts, with its interval."""
    bounds = bootstrap_mean(values, bench.config.bootstrap_count, bench.config.seed) or (None, None)
    manifest = _manifest(bench, one, prompts)
    return Score(arm, one.name, name, float(values.mean()), *bounds, len(values), output.unit,
                 output.higher_is_better, manifest)  # fmt: skip


def _values(done: Done, arms: Sequence[str], output: str) -> dict[str, np.ndarray]:
    """Arm -> an output's values [N] of the prompts that every arm has it for, in one order; nothing without such."""
    rows = {arm: _by_prompt(done, arm, output) for arm in arms}
    common = sorted(set.intersection(*(set(row) for row in rows.values())))
    values = {}
    for arm in arms if common else ():
        state = SampleScores([output])
        pairs = [(number, value) for number, prompt in enumerate(common) for value in rows[arm][prompt]]
        state.update(range(len(pairs)), [p for p, _ in pairs], [{output: v} for _, v in pairs])
        values[arm] = state.by_prompt(output)
    return values


def _by_prompt(done: Done, arm: str, output: str) -> dict[str, list[float]]:
    """Values of an output by prompt, one a try."""
    rows: dict[str, list[float]] = {}
    for job, outcome in done:
        if job.arm == arm and job.prompt is not None and output in outcome.scores:
            rows.setdefault(job.prompt.id, []).append(outcome.scores[output])
    return rows


def _set_scores(bench: Bench, done: Done, arms: Sequence[str], one: Entry, prompts: str) -> list[Score]:
    """The distance of each arm's features to the reference's, or the score of its own; nothing of too few rows."""
    wanted = _features(done, REFERENCE, one.features)
    metric = bench.metrics.sets[one.name]
    scores = []
    for arm in arms:
        made = _features(done, arm, one.features)
        given = made if one.alone else wanted
        if metric.paired:
            common = made.keys() & wanted.keys()
            made, given = ({key: side[key] for key in sorted(common)} for side in (made, wanted))
        rows = [sum(len(features) for features in side.values()) for side in (made, given)]
        if (len(made) if one.alone else min(rows)) < metric.least:
            continue
        state = SetScores(metric)
        numbers = {key: number for number, key in enumerate(sorted({*made, *given}))}
        for name, side in (("made", made), ("wanted", given)):
            for key in sorted(side):
                state.update(name, numbers[key], side[key])
        value = float(state.compute())
        sides, owners = state.sides()
        count = bench.config.set_bootstrap
        bounds = bootstrap_sets(metric.measure, sides, owners, metric.paired, count, bench.config.seed)
        low, high = bounds or (None, None)
        if low is not None and one.distance == "frechet":
            low = max(0.0, low)
        more = {} if one.alone else {"reference": _digest(bench, done), "reference_n": rows[1]}
        manifest = _manifest(bench, one, prompts, **more)
        output = one.outputs[0]
        scores.append(
            Score(arm, one.name, output.name, value, low, high, rows[0], output.unit, output.higher_is_better,
                  manifest)
        )  # fmt: skip
    return scores


def _features(done: Done, arm: str, kind: str) -> dict[str, np.ndarray]:
    """Features by prompt (or, of loose reference clips, by number), the tries of a prompt together."""
    rows: dict[str, list[np.ndarray]] = {}
    for job, outcome in done:
        if job.arm == arm and kind in outcome.features:
            key = job.prompt.id if job.prompt else f"#{job.number:06d}"
            rows.setdefault(key, []).append(outcome.features[kind])
    return {key: np.concatenate(parts) for key, parts in rows.items()}


def _digest(bench: Bench, done: Done) -> str:
    """A hash of the reference clips."""
    import hashlib

    hashes = sorted(bench.cache.file_sha256(job.path) for job, _ in done if job.arm == REFERENCE)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def score_table(scores: Sequence[Score], warnings: Sequence[str], skipped: Mapping[str, str]) -> str:
    """Markdown: a row an output, a column an arm; then warnings, and what was left out and why."""
    arms = list(dict.fromkeys(one.arm for one in scores))
    outputs = list(dict.fromkeys(one.output for one in scores))
    by_key = {(one.output, one.arm): one for one in scores}
    lines = ["| metric | n | " + " | ".join(arms) + " |", "|---|---|" + "---|" * len(arms)]
    for output in outputs:
        found = [by_key.get((output, arm)) for arm in arms]
        first = next(one for one in found if one is not None)
        arrow = "higher" if first.higher_is_better else "lower"
        counts = sorted({one.n for one in found if one is not None})
        cells = [f"{output} ({first.unit}, {arrow})", "/".join(map(str, counts)), *map(_cell, found)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"Warning: {line}" for line in warnings)]
    lines += [f"Left out: {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines) + "\n"


def _cell(one: Score | None) -> str:
    if one is None:
        return "-"
    text = f"{one.value:.4g}"
    return text if one.low is None or one.high is None else f"{text} [{one.low:.4g}, {one.high:.4g}]"
