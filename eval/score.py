"""`moviegen eval score`: automatic metrics of arms on a suite, each with interval and manifest.

All arms are scored on the prompts that all of them have, so that every score has the same n. Results of single clips
are cached: a run goes on where it broke off, and the parts of a job array share one cache; the part that finds it
complete writes the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moviegen_eval.arms import Arm, Normal, Problem, fair_plan, read_arm, unlike_settings
from moviegen_eval.arms.fair import as_they_are, differences, typical, unfit_videos
from moviegen_eval.arms.folder import count_problems, shown_path
from moviegen_eval.bench_config import ScoreConfig
from moviegen_eval.config import parse_config
from moviegen_eval.files import write_atomically, write_json, write_json_lines
from moviegen_eval.metrics.registry import ENTRIES, open_metrics
from moviegen_eval.numbers import NUMBERS, write_numbers
from moviegen_eval.score_cache import ScoreCache
from moviegen_eval.score_clips import REFERENCE, Bench, Job, Outcome, all_jobs, loose_reference, score_clip
from moviegen_eval.score_gather import gather, gather_by_tag, score_table, tag_groups
from moviegen_eval.scores import SAMPLES, SCORES, SampleRow, Score, score_dicts
from moviegen_eval.suites import Suite, SuitePrompt, open_suite, prompts_digest
from omegaconf import DictConfig
from tqdm import tqdm


def score(cfg: DictConfig | Mapping[str, Any]) -> list[Score]:
    """Score what `conf/score.yaml` names. Returns the scores; empty while other parts are not finished.

    Raises ValueError of one line for a suite, arm or weights file that cannot be used, or for arms that differ where
    the config says to refuse.
    """
    config = parse_config(ScoreConfig, cfg, "score")
    _limit_threads(config.num_threads)
    suite = open_suite(config.suite)
    metrics = open_metrics(config.metrics, config.weights, config.other_weights, suite.no_reference_audio)
    if not metrics.manifests:
        raise ValueError(f"score: no metric can be computed: {metrics.skipped}")
    groups = tag_groups(suite.prompts, config.by)
    arms = [read_arm(name, folder, suite, config.rule) for name, folder in config.arms.items()]
    reference, loose = _reference(config, suite)
    normal = fair_plan(arms, config.unlike)
    arms, problems = _without_unfit(arms, normal, config.unlike)
    prompts = [prompt for prompt in suite.prompts if all(prompt.id in arm.videos for arm in arms)]
    if not prompts:
        raise ValueError(f"score: no prompt has a readable video in every arm ({', '.join(config.arms)})")
    cache = ScoreCache(Path(config.cache or Path(config.out) / "cache"))
    form = as_they_are(arms) if normal.is_empty() else normal.describe()
    specs = {prompt.id: prompt.fields["spec"] for prompt in prompts if prompt.fields.get("spec")}
    bench = Bench(config, metrics, cache, normal, form, reference, specs)
    jobs = [*all_jobs(arms, prompts, reference), *loose]
    _compute(bench, jobs)
    outcomes = [score_clip(bench, job, compute=config.num_parts == 1) for job in jobs]
    if any(outcome is None for outcome in outcomes):
        left = sum(outcome is None for outcome in outcomes)
        print(f"part {config.part} of {config.num_parts} is finished; other parts have {left} clips to go")
        return []
    done = [(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True) if outcome is not None]
    names, ids = [arm.name for arm in arms], {prompt.id for prompt in prompts}
    scores = gather(bench, done, names, prompts_digest([(p.id, p.text) for p in prompts]))
    scored = {name: [p for p in group if p.id in ids] for name, group in groups.items()}
    by_tag = gather_by_tag(bench, done, names, scored)
    if level := suite.level:
        scores, by_tag = ([replace(one, unit=f"{one.unit}, toyworld level {level}") for one in part]
                          for part in (scores, by_tag))  # fmt: skip
    facts = _facts(bench, suite, arms, prompts, problems, done)
    facts["skipped"] |= _without_scores(bench, scores, done)
    _write(Path(config.out), scores, by_tag, facts, done)
    print(score_table([*scores, *by_tag], facts["warnings"], facts["skipped"]))
    return scores


def _limit_threads(num_threads: int | None) -> None:
    if num_threads:
        import torch

        torch.set_num_threads(num_threads)


def _reference(config: ScoreConfig, suite: Suite) -> tuple[Arm | None, list[Job]]:
    """The reference as an arm where its files are named after prompts, else as clips of no prompt."""
    if config.reference is None:
        return None, []
    try:
        return read_arm(REFERENCE, config.reference, suite, config.rule), []
    except ValueError as error:
        if not Path(config.reference).is_dir():
            raise ValueError(f"reference={config.reference}: is not a folder") from error
        return None, loose_reference(Path(config.reference))


def _without_unfit(arms: Sequence[Arm], normal: Normal, policy: str) -> tuple[list[Arm], list[Problem]]:
    """The arms without videos that cannot be brought to the common form, and all problems of all arms."""
    unfit = unfit_videos(arms, normal, policy)
    names = {(problem.arm, problem.name) for problem in unfit}
    kept = []
    for arm in arms:
        videos = {
            prompt: tuple(v for v in tries if (arm.name, shown_path(arm.folder, v.path)) not in names)
            for prompt, tries in arm.videos.items()
        }
        kept.append(replace(arm, videos={prompt: tries for prompt, tries in videos.items() if tries}))
    return kept, [problem for arm in arms for problem in arm.problems] + unfit


def _compute(bench: Bench, jobs: Sequence[Job]) -> None:
    """Fill the cache with this part's share of the clips."""
    mine = jobs[bench.config.part :: bench.config.num_parts]
    for job in tqdm(mine, "score", unit="clip"):
        score_clip(bench, job)


def _facts(
    bench: Bench,
    suite: Suite,
    arms: Sequence[Arm],
    prompts: Sequence[SuitePrompt],
    problems: Sequence[Problem],
    done: Sequence[tuple[Job, Outcome]],
) -> dict[str, Any]:
    """All that a report says beside the scores."""
    cards = {arm.name: arm.card for arm in arms}
    everything = [*problems, *_later_problems(arms, prompts, done)]
    return {
        "suite": {
            "name": suite.name,
            "sha256": suite.digest,
            "prompts": len(suite.prompts),
            "unique": suite.num_unique(),
            "licence": suite.licence,
            "sources": [asdict(source) for source in suite.sources],
            "remarks": list(suite.remarks),
        },
        "prompts_scored": [prompt.id for prompt in prompts],
        "texts": {prompt.id: prompt.text for prompt in prompts},
        "normal": bench.normal.to_dict(),
        "normal_words": bench.normal.describe(),
        "differences": differences(arms) if len(arms) > 1 else {},
        "policy": bench.config.unlike,
        "arms": {
            arm.name: {
                "card": asdict(arm.card),
                "rule": arm.rule,
                "videos": len(arm.all_videos()),
                "prompts": len(arm.videos),
                "typical": typical(arm),
            }
            for arm in arms
        },
        "unlike_settings": unlike_settings(cards),
        "problems": [asdict(problem) for problem in everything],
        "problem_counts": count_problems(everything),
        "skipped": dict(bench.metrics.skipped),
        "warnings": _warnings(bench, done),
    }


def _without_scores(
    bench: Bench, scores: Sequence[Score], done: Sequence[tuple[Job, Outcome]]
) -> dict[str, str]:
    """Metrics that could be built but gave no score, and why: most often what all clips lack."""
    given, found = {one.metric for one in scores}, {}
    kinds = bench.feature_kinds()  # failures of features are kept under one of the metrics that share them
    for name in (*bench.metrics.samples, *bench.metrics.sets):
        if name not in given:
            key = kinds[ENTRIES[name].features] if name in bench.metrics.sets else name
            reasons = Counter(outcome.failed[key] for _, outcome in done if key in outcome.failed)
            plain = "no reference= to compare with" if name in bench.metrics.sets else "no clip gave a value"
            if ENTRIES[name].alone:
                plain = f"fewer than {bench.metrics.sets[name].least} prompts gave features"
            found[name] = reasons.most_common(1)[0][0] if reasons else plain
    return found


def _later_problems(
    arms: Sequence[Arm], prompts: Sequence[SuitePrompt], done: Sequence[tuple[Job, Outcome]]
) -> list[Problem]:
    """Videos without a partner, and those that a metric could not score."""
    scored, folders = {prompt.id for prompt in prompts}, {arm.name: arm.folder for arm in arms}
    unused = [
        Problem(arm.name, "unpaired", prompt, "another arm has no video of it")
        for arm in arms
        for prompt in arm.videos
        if prompt not in scored
    ]
    failed = [
        Problem(
            job.arm,
            "unscored",
            shown_path(folders.get(job.arm, job.path.parent), job.path),
            f"{name}: {reason}",
        )
        for job, outcome in done
        for name, reason in outcome.failed.items()
        if not reason.startswith("no ")
    ]
    return unused + failed


def _warnings(bench: Bench, done: Sequence[tuple[Job, Outcome]]) -> list[str]:
    """What a reader must know of the scores."""
    from moviegen_eval.metrics.frechet import MIN_SAMPLES

    warnings = []
    for name in bench.metrics.sets:
        one = ENTRIES[name]
        if one.distance != "frechet":
            continue
        rows: dict[str, int] = {}
        for job, outcome in done:
            rows[job.arm] = rows.get(job.arm, 0) + len(outcome.features.get(one.features, ()))
        small = {arm: count for arm, count in rows.items() if 0 < count < MIN_SAMPLES}
        if small:
            counts = ", ".join(f"{arm} {count}" for arm, count in small.items())
            warnings.append(
                f"{name}: fewer than {MIN_SAMPLES} samples ({counts}): a Frechet distance of so few is mostly bias"
            )
    if not bench.normal.is_empty():
        warnings.append(f"arms differ; all clips were brought to {bench.normal.describe()}")
    return warnings


def _write(
    out: Path,
    scores: Sequence[Score],
    by_tag: Sequence[Score],
    facts: Mapping[str, Any],
    done: Sequence[tuple[Job, Outcome]],
) -> None:
    """Write all outputs, numbers.json last."""
    rows = [
        SampleRow(job.arm, job.prompt.id, job.number, str(job.path), outcome.scores)
        for job, outcome in done
        if job.prompt is not None and job.arm != REFERENCE
    ]
    write_json_lines(out / SAMPLES, (asdict(row) for row in rows))
    write_json(out / SCORES, {**facts, "scores": score_dicts(scores), "by_tag": score_dicts(by_tag)})
    write_atomically(out / "table.md", score_table([*scores, *by_tag], facts["warnings"], facts["skipped"]))
    write_numbers(out / NUMBERS, [one.figure() for one in (*scores, *by_tag)])
