"""`moviegen eval study build`: from the arms' folders to pairs of equal form under names that say nothing.

Where the study file does not exist yet it is drafted first (draft.py). A build that was broken off goes on where it
stood; a pair is built anew when a source file or a setting changed.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moviegen_eval.config import parse_config
from moviegen_eval.files import write_json_lines
from moviegen_eval.study.built import (
    MANIFEST,
    Built,
    BuiltPair,
    check_references,
    read_built,
    summary,
    write_built,
)
from moviegen_eval.study.draft import draft_study
from moviegen_eval.study.equalize import EqualizeRules, write_pair, write_reference
from moviegen_eval.study.settings import StudyBuildConfig
from moviegen_eval.study.study import Item, Study, load_study
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import interrupts
from moviegen.media import MediaError, check_readable

OPAQUE = re.compile(r"[0-9a-f]{32}\.(mp4|png)")


def build(cfg: DictConfig | Mapping[str, Any]) -> Built:
    """Build what `conf/study_build.yaml` describes. Raises ValueError that counts and names what cannot be built."""
    config = parse_config(StudyBuildConfig, cfg, "study build")
    path = Path(config.study)
    if not path.exists():
        if not config.arms:
            raise ValueError(f"{path}: no such file; give arms.<name>=folder to draft it from videos")
        draft_study(config, path)
    elif config.arms:
        print(f"{path} exists and is used as it is; `arms` is for drafting one")
    study = load_study(path)
    rules = EqualizeRules(
        config.max_side,
        config.max_length_ratio,
        config.max_rate_ratio,
        config.max_size_ratio,
        config.loudness_lufs,
        config.crf,
    )
    built = build_pairs(study, Path(config.out), rules)
    print(json.dumps(summary(built)))
    return built


def build_pairs(study: Study, out: Path, rules: EqualizeRules) -> Built:
    """Write every pair and build.json. What cannot be built is listed in `problems.jsonl`, and raises ValueError."""
    check_references(study)
    sound = any(axis.sound for axis in study.axes)
    before = read_built(out).items if (out / MANIFEST).exists() else {}
    built, problems, hashes = Built(out, {}), [], {}
    (out / "media").mkdir(parents=True, exist_ok=True)
    try:
        for item in tqdm(study.items, "pairs", unit="pair"):
            interrupts.check()
            try:
                built.items[item.id] = _build_pair(study, item, out, rules, sound, before, hashes)
            except (MediaError, ValueError) as error:
                problems.append({"item": item.id, "problem": str(error)})
    finally:
        write_built(built, study.digest)
    for path in (out / "media").iterdir():
        if OPAQUE.fullmatch(path.name) and path.name not in built.files:
            path.unlink()
    (out / "problems.jsonl").unlink(missing_ok=True)
    if problems:
        write_json_lines(out / "problems.jsonl", problems)
        shown = "; ".join(f"item {row['item']}: {row['problem']}" for row in problems[:3])
        raise ValueError(
            f"{len(problems)} of {len(study.items)} items cannot be built: {shown}"
            + (f"; all in {out / 'problems.jsonl'}" if len(problems) > 3 else "")
        )
    return built


def _build_pair(
    study: Study,
    item: Item,
    out: Path,
    rules: EqualizeRules,
    sound: bool,
    before: Mapping[str, BuiltPair],
    hashes: dict[Path, str],
) -> BuiltPair:
    sources, shown = (study.video(item, "a"), study.video(item, "b")), study.reference(item)
    parts = [_sha256(path, hashes) for path in (*sources, *([shown] if shown else []))]
    settings = json.dumps([parts, asdict(rules), sound], sort_keys=True)
    source = hashlib.sha256(settings.encode()).hexdigest()
    old = before.get(item.id)
    if old and old.source == source and all((out / "media" / name).is_file() for name in old.names):
        return old
    names = [f"{secrets.token_hex(16)}.mp4" for _ in sources]
    targets = out / "media" / names[0], out / "media" / names[1]
    reference = write_reference(shown, out / "media" / secrets.token_hex(16), rules) if shown else None
    form, loudness = write_pair(sources, targets, rules, sound)
    return BuiltPair(
        a=names[0],
        b=names[1],
        width=form.width,
        height=form.height,
        frame_rate=form.frame_rate,
        num_frames=form.num_frames,
        duration_seconds=form.duration_seconds,
        sound=sound,
        loudness_lufs=loudness,
        source=source,
        notes=list(form.notes),
        reference=reference.name if reference else None,
    )


def _sha256(path: Path, known: dict[Path, str]) -> str:
    if path not in known:
        check_readable(path)
        with path.open("rb") as file:
            known[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[path]
