"""`moviegen eval external`: another project's benchmark on our arms, in its own environment, through files.

`stage=prepare` writes inputs and command.sh, `stage=run` runs it, `stage=read` reads results into a folder of scores as
`moviegen eval score` writes them; `stage=all` does all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moviegen_eval.adapters.base import Adapter, External, Result, run_commands, to_scores
from moviegen_eval.adapters.sound import AvBenchmark
from moviegen_eval.adapters.vbench import VBench, VBench2
from moviegen_eval.adapters.videoscore import VideoScore
from moviegen_eval.arms import Arm, read_arm
from moviegen_eval.bench_config import ExternalConfig
from moviegen_eval.config import parse_config
from moviegen_eval.files import write_json, write_json_lines
from moviegen_eval.numbers import NUMBERS, write_numbers
from moviegen_eval.records import parse_record
from moviegen_eval.score_gather import score_table
from moviegen_eval.scores import SAMPLES, SCORES, SampleRow, Score, score_dicts
from moviegen_eval.suites import Suite, open_suite
from omegaconf import DictConfig

ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter for adapter in (VBench(), VBench2(), AvBenchmark(), VideoScore())
}


def external(cfg: DictConfig | Mapping[str, Any]) -> list[Score]:
    """Do what `conf/external.yaml` describes; returns the scores that were read."""
    config = parse_config(ExternalConfig, cfg, "external")
    if config.benchmark not in ADAPTERS:
        raise ValueError(f"external: no adapter {config.benchmark!r}; known: {', '.join(ADAPTERS)}")
    adapter, suite = ADAPTERS[config.benchmark], open_suite(config.suite)
    program = parse_record(External, config.external, "external: external")
    arms = [read_arm(name, folder, suite, config.rule) for name, folder in config.arms.items()]
    out = Path(config.out)
    for arm in arms if config.stage in ("prepare", "run", "all") else []:
        commands = adapter.prepare(arm, suite, out / arm.name, program)
        print(f"{arm.name}: {len(arm.videos)} videos, commands in {out / arm.name / 'command.sh'}")
        if config.stage != "prepare":
            run_commands(commands, program.repository, out / arm.name / "run.log")
    if config.stage not in ("read", "all"):
        return []
    results = {arm.name: adapter.read(arm, suite, out / arm.name) for arm in arms}
    scores = [
        score
        for arm in arms
        for score in to_scores(
            arm, suite, adapter.name, program, results[arm.name], config.bootstrap_count, config.seed
        )
    ]
    _write(out, suite, arms, scores, results, adapter.name)
    return scores


def _write(
    out: Path, suite: Suite, arms: list[Arm], scores: list[Score], results: Mapping[str, Result], name: str
) -> None:
    """The same files as `moviegen eval score` writes, so that a report takes them."""
    rows = []
    for arm in arms:
        prompts = _prompts_of(arm, suite)
        for file, values in results[arm.name].samples.items():
            if file in prompts:
                own = {f"{name}.{output}": value for output, value in values.items()}
                rows.append(SampleRow(arm.name, prompts[file], 0, file, own))
    warnings = [f"{arm}: {remark}" for arm, result in results.items() for remark in result.remarks]
    facts = {
        "suite": {"name": suite.name, "sha256": suite.digest, "prompts": len(suite.prompts)},
        "texts": {prompt.id: prompt.text for prompt in suite.prompts},
        "arms": {arm.name: {"card": asdict(arm.card)} for arm in arms},
        "problems": [asdict(problem) for arm in arms for problem in arm.problems],
        "skipped": {},
        "warnings": warnings,
    }
    write_json_lines(out / SAMPLES, (asdict(row) for row in rows))
    write_json(out / SCORES, {**facts, "scores": score_dicts(scores)})
    write_numbers(out / NUMBERS, [one.figure() for one in scores])
    print(score_table(scores, warnings, {}))


def _prompts_of(arm: Arm, suite: Suite) -> dict[str, str]:
    """Names under which programs saw the videos -> prompt ids."""
    from moviegen_eval.adapters.base import file_name

    names = {}
    for prompt, tries in arm.videos.items():
        suffix = tries[0].path.suffix
        names[f"{prompt}{suffix}"] = prompt
        names.setdefault(file_name(suite.by_id[prompt].text, f"-0{suffix}"), prompt)
    return names
