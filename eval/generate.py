"""`moviegen eval generate`: a suite's prompts through `moviegen generate`, as a process; an arm comes out.

The arm's folder holds one folder a part and seed, a manifest over all of them and the settings card. A run that broke
off goes on, clip by clip; the part of a job array that finds all parts finished writes manifest and card.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moviegen_eval.arms import SettingsCard, write_card
from moviegen_eval.bench_config import SuiteGenerateConfig, flat
from moviegen_eval.config import parse_config
from moviegen_eval.files import read_json, write_json, write_json_lines
from moviegen_eval.manifest import MANIFEST, GeneratedSample, read_manifest, write_manifest
from moviegen_eval.records import parse_record
from moviegen_eval.suites import Suite, SuitePrompt, open_suite
from omegaconf import DictConfig

from moviegen import interrupts

PLAN = "suite.json"


def generate(cfg: DictConfig | Mapping[str, Any]) -> Path | None:
    """Generate what `conf/suite_generate.yaml` names. Returns the manifest; None while other parts are not finished.

    Raises ValueError for a suite that cannot be read, a folder of another suite or model, or with the reason for which
    `moviegen generate` ended, whose progress is shown.
    """
    config = parse_config(SuiteGenerateConfig, cfg, "generate")
    suite, out = open_suite(config.suite), Path(config.out)
    prompts = suite.prompts[: config.max_prompts]
    parse_record(SettingsCard, {"name": config.name, **config.card}, "generate: card")
    _claim(out, config, suite, len(prompts))
    mine = prompts[config.part :: config.num_parts]
    for number, seed in enumerate(config.seeds if mine else []):
        folder = out / _folder(config.part, config.num_parts, number)
        write_json_lines(folder.with_suffix(".jsonl"), map(_row, mine))
        _run(config, folder.with_suffix(".jsonl"), folder, seed)
    return _finish(out, config, prompts)


def _claim(out: Path, config: SuiteGenerateConfig, suite: Suite, num_prompts: int) -> None:
    """Note what the folder is for, or refuse one that is for something else."""
    plan = {
        "suite": suite.name,
        "suite_sha256": suite.digest,
        "model": config.model,
        "seeds": config.seeds,
        "settings": config.settings,
        "prompts": num_prompts,
        "num_parts": config.num_parts,
    }
    file = out / PLAN
    if not file.is_file():
        write_json(file, plan)
        return
    found = read_json(file)
    unlike = [key for key in plan if not isinstance(found, dict) or found.get(key) != plan[key]]
    if unlike:
        was = found.get(unlike[0]) if isinstance(found, dict) else None
        raise ValueError(f"{out}: is of {unlike[0]} {was!r}, not {plan[unlike[0]]!r}; choose another out")


def _folder(part: int, num_parts: int, number: int) -> str:
    return f"parts/{part:04d}-of-{num_parts:04d}-try{number}"


def _row(prompt: SuitePrompt) -> dict[str, Any]:
    """A prompt as `moviegen generate` reads it."""
    spec = prompt.fields.get("spec")
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "set": prompt.fields.get("set", "free") if spec else "free",
        "spec": spec,
    }


def _run(config: SuiteGenerateConfig, prompts: Path, folder: Path, seed: int) -> None:
    command = [sys.executable, "-m", "moviegen.cli", "generate"]
    for key, value in (("prompts", prompts), ("run_dir", folder), ("model", config.model)):
        command.append(f"{key}='{_quoted(str(value))}'")
    command += [
        f"sampler.seed={seed}",
        *(f"{key}={_word(value)}" for key, value in flat(config.settings).items()),
    ]
    done = interrupts.run_shown(command)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise ValueError(
            f"moviegen generate: {lines[-1].removeprefix('error: ')} (exit code {done.returncode})"
        )


def _word(value: Any) -> str:
    """A value as Hydra reads it back."""
    if isinstance(value, list):
        return "[" + ",".join(map(_word, value)) + "]"
    if isinstance(value, str):
        return f"'{_quoted(value)}'"
    return json.dumps(value)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _finish(out: Path, config: SuiteGenerateConfig, prompts: tuple[SuitePrompt, ...]) -> Path | None:
    """Write manifest and card when every part has its own manifest."""
    samples: list[GeneratedSample] = []
    for number in range(len(config.seeds)):
        for part in range(min(config.num_parts, len(prompts))):
            name = _folder(part, config.num_parts, number)
            if not (out / name / MANIFEST).is_file():
                print(f"part {config.part} of {config.num_parts} is finished; part {part} is not")
                return None
            for sample in read_manifest(out / name):
                key = sample.id if number == 0 else f"{sample.id}-{number}"
                samples.append(replace(sample, id=key, path=f"{name}/{sample.path}"))
    place = {prompt.id: row for row, prompt in enumerate(prompts)}
    samples.sort(key=lambda s: (place.get(s.id, place.get(s.id.rpartition("-")[0], 0)), s.id))
    write_card(out, _card(config, samples[0]))
    write_manifest(out, samples)
    print(f"{out}: {len(samples)} clips of {len(prompts)} prompts")
    return out / MANIFEST


def _card(config: SuiteGenerateConfig, sample: GeneratedSample) -> SettingsCard:
    """The settings card: what this run knows, and what `card` adds or says otherwise."""
    known = {
        "name": config.name,
        "model": sample.checkpoint,
        "version": sample.commit,
        "access": "weights",
        "prompt_rewriting": "none",
        "seeds": list(config.seeds),
        "steps": sample.steps,
        "guidance": sample.guidance,
        "frame_rate": sample.frame_rate,
        "tries_per_prompt": len(config.seeds),
        "selection": "none: every try counts" if len(config.seeds) > 1 else "first",
        "post_processing": "none",
    }
    return parse_record(SettingsCard, known | config.card, "generate: card")
