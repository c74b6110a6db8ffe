"""`moviegen eval study draft`: a study file from arms and a suite, with the suite's prompts and tags.

What cannot be compared (missing, extra, corrupt, refused, unpaired) is counted, named and written beside the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_eval.arms import read_arm
from moviegen_eval.arms.folder import count_problems
from moviegen_eval.arms.items import Pair, pairs_of_arms
from moviegen_eval.bench_config import StudyDraftConfig
from moviegen_eval.config import parse_config
from moviegen_eval.files import inside, source_file, write_json_lines
from moviegen_eval.records import parse_record
from moviegen_eval.study.axes import AXES, Axis
from moviegen_eval.study.built import check_references
from moviegen_eval.study.draft import degrade
from moviegen_eval.study.study import Arm, ExclusionRules, Item, Study, save_study
from moviegen_eval.suites import Suite, open_suite
from omegaconf import DictConfig

INSTRUCTIONS = (
    "Two videos were made from the same text. Watch both to the end, then answer the question about them. If you see "
    "no difference in what is asked, answer that they are equal. Judge what you see, not what you think made it."
)
CONSENT = (
    "Taking part is voluntary; you may stop at any time. Your answers are kept under a random code, without your name "
    "or address."
)


def draft(cfg: DictConfig | Mapping[str, Any]) -> Study:
    """Write what `conf/study_draft.yaml` describes. Raises ValueError of one line for an input that cannot be used."""
    config = parse_config(StudyDraftConfig, cfg, "study draft")
    out = Path(config.out)
    if out.exists() and not config.overwrite:
        raise ValueError(
            f"{out}: is there already; overwrite=true replaces it (votes of before then count no more)"
        )
    suite = open_suite(config.suite)
    arms = [read_arm(name, folder, suite, config.rule) for name, folder in config.arms.items()]
    pairs, alone = pairs_of_arms(suite, arms)
    pairs = draw(pairs, config.max_items, config.seed)
    shown = _references(config, suite)
    items = [_item(pair, shown, out.parent) for pair in pairs]
    items += _gold(items, config, out)
    study = Study(
        id=config.id or out.stem,
        title=config.title,
        axes=tuple(_axis(row) for row in config.axes),
        arms=tuple(Arm(arm.name, os.path.relpath(arm.folder, out.parent)) for arm in arms),
        items=tuple(items),
        seed=config.seed,
        instructions=config.instructions or INSTRUCTIONS,
        consent=config.consent or CONSENT,
        exclusion=parse_record(ExclusionRules, config.exclusion, "study draft: exclusion"),
        level=suite.level,
        root=out.parent,
    )
    check_references(study)
    problems = [problem for arm in arms for problem in arm.problems] + alone
    write_json_lines(out.with_suffix(".problems.jsonl"), (asdict(problem) for problem in problems))
    save_study(study, out)
    print(f"{out}: {len(pairs)} items, {len(items) - len(pairs)} gold items, {len(study.axes)} axes")
    for arm, counts in count_problems(problems).items():
        print(f"{arm}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return study


def draw(pairs: Sequence[Pair], max_items: int | None, seed: int) -> list[Pair]:
    """At most so many pairs of each comparison, by a seeded draw of prompts that is the same for all opponents."""
    if max_items is None:
        return list(pairs)
    prompts = list(dict.fromkeys(pair.key for pair in pairs))
    order = [prompts[position] for position in np.random.default_rng(seed).permutation(len(prompts))]
    place = {prompt: number for number, prompt in enumerate(order)}
    kept: dict[str, list[Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: place[pair.key]):
        own = kept.setdefault(pair.arm_b, [])
        if len(own) < max_items:
            own.append(pair)
    chosen = {pair.id for own in kept.values() for pair in own}
    return [pair for pair in pairs if pair.id in chosen]


def _references(config: StudyDraftConfig, suite: Suite) -> dict[str, Path]:
    """The person's picture, or an edit's source video, of each prompt that names one."""
    found = {}
    for key, folder, find in (
        ("face", config.faces, inside),
        ("source_video", config.sources, source_file),
    ):
        for prompt in suite.prompts if folder else ():
            if key in prompt.fields and prompt.id not in found:
                found[prompt.id] = find(Path(folder), str(prompt.fields[key]), f"prompt {prompt.id}: {key}")
    lost = [name for name, path in found.items() if not path.is_file()]
    if lost:
        raise ValueError(f"prompt {lost[0]}: {found[lost[0]]} is not there ({len(lost)} such references)")
    return found


def _item(pair: Pair, shown: Mapping[str, Path], root: Path) -> Item:
    videos = [os.path.relpath(path, root) for path in (pair.video_a, pair.video_b)]
    reference = os.path.relpath(shown[pair.key], root) if pair.key in shown else None
    return Item(pair.id, pair.prompt, pair.arm_a, pair.arm_b, *videos, tags=pair.tags, reference=reference)


def _gold(items: Sequence[Item], config: StudyDraftConfig, out: Path) -> list[Item]:
    """Gold items, drawn by the seed, of both arms in turn: a video against itself, or against a degraded copy."""
    count = config.same_gold + config.degraded_gold
    if count > len(items):
        raise ValueError(f"study draft: {count} gold items are to be drawn from {len(items)} items")
    sound = any(_axis(row).sound for row in config.axes)
    golds = []
    for number, position in enumerate(np.random.default_rng(config.seed).permutation(len(items))[:count]):
        item = items[position]
        arm, video = ((item.arm_a, item.video_a), (item.arm_b, item.video_b))[number % 2]
        pair, answer = [video, video], "tie"
        if number >= config.same_gold:
            out.parent.mkdir(parents=True, exist_ok=True)  # videos are named through it
            copy = out.parent / f"{out.stem}-gold" / f"{number:03d}.mp4"
            degrade(out.parent / video, copy, sound)
            answer = "ab"[number // 2 % 2]
            pair["ba".index(answer)] = os.path.relpath(copy, out.parent)
        gold: Any = answer
        golds.append(
            Item(f"gold-{number:03d}", item.prompt, arm, arm, *pair, gold=gold, reference=item.reference)
        )
    return golds


def _axis(row: Any) -> Axis:
    """The paper's axis of a key, with other raters or another question where they are given."""
    values = {"key": row} if isinstance(row, str) else dict(row)
    known = AXES.get(str(values.get("key")))
    if known is None and "question" not in values:
        raise ValueError(
            f"study draft: axis {values.get('key')!r} has no question and is none of {', '.join(AXES)}"
        )
    return parse_record(Axis, {**(asdict(known) if known else {}), **values}, "study draft: axes")
