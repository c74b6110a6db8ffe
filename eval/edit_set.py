"""`moviegen eval edit_set`: what a model is asked to edit, and what should then be seen.

Toyworld scenes with combinations of attributes that training never shows: sources as videos with sound, one edit of
each, and the truth of both scenes for the judge; and pictures with edits of any kind, which the judge gives a row of
their own. Or a public set of edits (TGVE, TGVE+) whose table and videos lie in a folder. Either way `edits.jsonl` is
what `moviegen edit edits=` reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.edits import KINDS
from moviegen_data.toyworld.painting import segment_pair
from moviegen_data.toyworld.world import EditPair, ToyClip
from moviegen_eval.config import parse_config
from moviegen_eval.files import source_file, write_atomically, write_json_lines
from moviegen_eval.suites import open_suite
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen.conditioning.edit_tasks import task_named
from moviegen.media import encode_video, to_png_bytes

EDITS, TRUTHS = "edits.jsonl", "truths.jsonl"
TARGETS = "targets.jsonl"
TASKS = {"recolor": "color"}  # where the toy world's name of an edit is not the model's
SEGMENT, IMAGE = "segment", "image"
PICTURES_FROM = 1_000_000  # of the series: the edits of pictures are none of the videos'
MOST_DRAWS = 60  # pairs looked at for each that is wanted


@dataclass(frozen=True)
class EditSetConfig:
    """The keys of conf/edit_set.yaml, which says what they are."""

    out: str
    per_kind: int = 64
    level: int = 4
    seed: int = 300
    combos: str = "heldout"
    stills: bool = False
    suite: str | None = None
    videos: str | None = None
    crf: float = 14.0

    def __post_init__(self) -> None:
        if self.per_kind < 1 or self.seed < 0:
            raise ValueError(
                f"edit_set: per_kind={self.per_kind} must be at least 1, seed={self.seed} at least 0"
            )
        if (self.suite is None) != (self.videos is None):
            raise ValueError(
                "edit_set: a suite needs the folder of its videos: suite=tgve_plus:FILE videos=FOLDER"
            )


def edit_set(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Write edits.jsonl and, of toyworld, sources/ and truths.jsonl into `out`; of its true edits targets/ and
    targets.jsonl, which `moviegen edit baseline=copy` takes through the codec: the ceiling.

    Raises ValueError of one line for a table that cannot be read, or a video that is missing; nothing is written then.
    """
    config = parse_config(EditSetConfig, cfg, "edit_set")
    out = Path(config.out)
    if config.suite is not None:
        rows = list(_public(config))
        write_json_lines(out / EDITS, rows)
        print(f"{out}: {len(rows)} edits of {len({row['video'] for row in rows})} videos")
        return
    rows, truths = [], []
    for row, truth in _toyworld(config, out):
        rows.append(row)
        truths.append(truth)
    write_json_lines(out / TARGETS, [_of_target(row) for row in rows])
    write_json_lines(out / TRUTHS, truths)
    write_json_lines(out / EDITS, rows)
    kinds = [*KINDS, SEGMENT, *(() if config.stills else (f"{IMAGE} (pictures, of any kind)",))]
    print(f"{out}: {len(rows)} edits, {config.per_kind} of each of {', '.join(kinds)}")


def _of_target(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that names the true edit in the place of its source."""
    key = "image" if "image" in row else "video"
    return {**row, key: row[key].replace("sources/", "targets/")}


def _toyworld(config: EditSetConfig, out: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows and truths: so many of each kind, then of segmentation, then, beside videos, so many of pictures."""
    world = World(WorldConfig(level=config.level, combos=config.combos))
    count: Counter[str] = Counter()
    total = config.per_kind * len(KINDS)
    parts = (len(KINDS) + 1) if config.stills else (len(KINDS) + 2)
    with tqdm(total=config.per_kind * parts, desc="edits", unit="edit") as progress:
        for index in range(MOST_DRAWS * total):
            if sum(count.values()) == total:
                break
            pair = world.edit_pair(config.seed, index)
            if count[pair.kind] == config.per_kind:
                continue
            count[pair.kind] += 1
            progress.update()
            yield _rows(f"{pair.kind}-{count[pair.kind]:03d}", pair, index, config, out)
        else:
            raise ValueError(
                f"edit_set: only {dict(count)} in {MOST_DRAWS * total} pairs of level {config.level}"
            )
        for number, (index, pair) in enumerate(_segments(world, config), 1):
            progress.update()
            yield _rows(f"{SEGMENT}-{number:03d}", pair, index, config, out)
        for number in range(0 if config.stills else config.per_kind):
            index, pair = PICTURES_FROM + number, world.edit_pair(config.seed, PICTURES_FROM + number)
            progress.update()
            row, told = _rows(f"image-{number + 1:03d}", pair, index, replace(config, stills=True), out)
            yield row, told | {"row": IMAGE}


def counts(kind: str, row: str) -> bool:
    """Whether an edit of a kind counts for a row of the table: all of the videos for `all`, pictures for their own."""
    return kind == row or (row == "all" and kind != IMAGE)


def _segments(world: World, config: EditSetConfig) -> Iterator[tuple[int, EditPair]]:
    """Scenes of which a thing is painted over; as with edits, nothing in them acts on another."""
    found = 0
    for index in range(MOST_DRAWS * config.per_kind):
        if found == config.per_kind:
            return
        pair = judged_pair(world, SEGMENT, config.seed, index)
        if pair.before.truth["spec"]["interaction"] is None:
            found += 1
            yield index, pair


def judged_pair(world: World, kind: str, seed: int, index: int) -> EditPair:
    """The pair that a row of truths.jsonl was made of."""
    if kind == SEGMENT:
        return segment_pair(world, seed, index, np.random.default_rng((seed, index)))
    return world.edit_pair(seed, index)


def _rows(
    key: str, pair: EditPair, index: int, config: EditSetConfig, out: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the files of one edit: the line that asks for it, and its truth."""
    name = f"sources/{key}.png" if config.stills else f"sources/{key}.mp4"
    write_atomically(out / name, _coded(pair.before, config))
    write_atomically(out / name.replace("sources/", "targets/"), _coded(pair.after, config))
    task = TASKS.get(pair.kind, pair.kind)
    row = {"id": key, "image" if config.stills else "video": name, "instruction": pair.instruction}
    told = {"id": key, "kind": pair.kind, "seed": config.seed, "index": index, "combos": config.combos}
    told |= {"level": config.level, "before": pair.before.truth, "after": pair.after.truth, "source": name}
    return row | {"task": task, "caption": pair.after.caption}, told


def _coded(clip: ToyClip, config: EditSetConfig) -> bytes:
    """A clip as a file: a video with sound, or its first frame."""
    if config.stills:
        return to_png_bytes(clip.frames[0])
    return encode_video(clip.frames, clip.frame_rate, clip.audio, clip.sample_rate_hz, config.crf)


def _public(config: EditSetConfig) -> Iterator[dict[str, Any]]:
    """The rows of a public set, whose videos lie in the folder `videos`."""
    folder = Path(str(config.videos)).resolve()
    for prompt in open_suite(str(config.suite)).prompts:
        video = prompt.fields.get("source_video")
        if not video:
            raise ValueError(f"{config.suite}: {prompt.id} names no source video; this is no set of edits")
        found = source_file(folder, str(video), f"{config.suite}: {prompt.id}")
        if not found.is_file():
            raise ValueError(f"{config.suite}: {prompt.id} is an edit of {video}, which is not in {folder}")
        row = {"id": prompt.id, "video": str(found), "instruction": prompt.text}
        if task := task_named(" ".join(prompt.tags.get("edit_type", ()))):
            row["task"] = task
        target = prompt.fields.get("target_text")
        yield row | ({"caption": target} if target else {})
