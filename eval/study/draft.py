"""Draft a study file from folders of videos: the first arm against each of the others, with gold items of our own.

Videos belong together by their file names without suffix. Gold items have a known answer: a badly degraded copy
against its original (the original is better on every axis), and a video against itself (a tie).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from moviegen_eval.files import read_json_lines, read_text
from moviegen_eval.manifest import asked_for
from moviegen_eval.study.axes import AXES, Axis
from moviegen_eval.study.built import check_references
from moviegen_eval.study.check import SUFFIXES
from moviegen_eval.study.equalize import PICTURES
from moviegen_eval.study.settings import StudyBuildConfig
from moviegen_eval.study.study import Arm, ExclusionRules, Item, Study, save_study
from PIL import Image

from moviegen.media import probe, read_sound, stream_clip, write_video

BLOCK = 16  # pixels that become one in a degraded copy
HOLD = 8  # frames that become one
INSTRUCTIONS = (
    "You will see two videos and one question about them. Watch both to the end, as often as you like, "
    "then say which of the two is better in the sense of the question alone. If you see no difference in that sense, "
    "say so: that is an answer like the others. There is no time limit."
)
CONSENT = (
    "You take part in a scientific comparison of computer-generated videos. Taking part is voluntary, and you can stop "
    "at any time. Your answers will be analysed and may be published without any link to you."
)


def draft_study(config: StudyBuildConfig, path: Path) -> Study:
    """Write a study file for the videos of `config.arms`; says which videos have no partner."""
    root = path.parent
    videos = {name: videos_of(Path(folder)) for name, folder in config.arms.items()}
    names = list(videos)
    if len(names) < 2:
        raise ValueError(
            f"study build: arms has {names}; expected two or more, the first is compared with the others"
        )
    _say_unpaired(videos)
    references = references_of(Path(config.references)) if config.references else {}
    rows = _prompts(config, Path(config.arms[names[0]]))
    items = []
    for other in names[1:]:
        for stem in sorted(videos[names[0]].keys() & videos[other].keys()):
            key = stem if len(names) == 2 else f"{stem}.{other}"
            pair = [os.path.relpath(videos[arm][stem], root) for arm in (names[0], other)]
            prompt, tags = _prompt(rows, stem)
            reference = os.path.relpath(references[stem], root) if stem in references else None
            items.append(Item(_plain(key), prompt, names[0], other, *pair, tags=tags, reference=reference))
    if not items:
        raise ValueError(
            f"study build: no file name is in arm {names[0]!r} and in another; nothing to compare"
        )
    axes = tuple(_axis(key) for key in config.axes)
    items += _gold(config, items, path, any(axis.sound for axis in axes))
    study = Study(
        id=_plain(path.stem),
        title=config.title,
        axes=axes,
        arms=tuple(Arm(name, os.path.relpath(folder, root)) for name, folder in config.arms.items()),
        items=tuple(items),
        seed=config.seed,
        instructions=INSTRUCTIONS,
        consent=CONSENT,
        exclusion=ExclusionRules(min_gold_accuracy=0.6, max_side_bias=0.5),
        root=root,
    )
    check_references(study)
    save_study(study, path)
    print(
        f"wrote {path}: {len(items)} items. Read it and change it now; after the first vote it must stay as it is"
    )
    return study


def videos_of(folder: Path) -> dict[str, Path]:
    """Videos of a folder by their names without suffix. Raises ValueError for none, or a name that comes twice."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: is no folder of videos")
    found: dict[str, Path] = {}
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    for path in asked_for(folder, files):
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name}: two videos of one name")
        found[path.stem] = path
    if not found:
        raise ValueError(f"{folder}: holds no videos ({', '.join(sorted(SUFFIXES))})")
    return found


def references_of(folder: Path) -> dict[str, Path]:
    """Pictures and videos of a folder by their names without suffix. Raises ValueError where there are none."""
    kinds = SUFFIXES | PICTURES
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {path.stem: path for path in files if path.suffix.lower() in kinds and path.is_file()}
    if not found:
        raise ValueError(f"references={folder}: holds no pictures or videos ({', '.join(sorted(kinds))})")
    return found


def _say_unpaired(videos: dict[str, dict[str, Path]]) -> None:
    first = next(iter(videos))
    for name in list(videos)[1:]:
        for here, there in ((first, name), (name, first)):
            alone = sorted(videos[here].keys() - videos[there].keys())
            if alone:
                shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
                print(
                    f"left out: {len(alone)} videos of arm {here!r} that arm {there!r} does not have ({shown})"
                )


def _prompts(config: StudyBuildConfig, folder: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Prompt and tags by id: from .jsonl (id, prompt, tags), the lines of a .txt (0, 1, ...), or the manifest."""
    path = Path(config.prompts) if config.prompts else folder / "manifest.jsonl"
    if not config.prompts and not path.exists():
        return {}
    if path.suffix == ".txt":
        return {str(number): (line, {}) for number, line in enumerate(read_text(path).splitlines())}
    rows: dict[str, tuple[str, dict[str, str]]] = {}
    for where, row in read_json_lines(path):
        key = row.get("id", Path(str(row.get("path", ""))).stem)
        text = row.get("prompt", row.get("instruction"))  # moviegen edit writes instructions
        if not isinstance(text, str) or not str(key):
            raise ValueError(f"{where}: expected the keys id and prompt")
        tags = row.get("tags") if isinstance(row.get("tags"), dict) else {}
        rows[str(key)] = text, {str(name): str(value) for name, value in tags.items()}
    return rows


def _prompt(rows: dict[str, tuple[str, dict[str, str]]], stem: str) -> tuple[str, dict[str, str]]:
    if not rows:
        return "", {}
    for key in (stem, stem.lstrip("0") or "0"):
        if key in rows:
            return rows[key]
    raise ValueError(
        f"study build: video {stem!r} has no prompt with this id (or line number) among {len(rows)}"
    )


def _axis(key: str) -> Axis:
    if key not in AXES:
        raise ValueError(f"study build: axis {key!r} is none of {', '.join(AXES)}")
    return AXES[key]


def _gold(config: StudyBuildConfig, items: list[Item], path: Path, sound: bool) -> list[Item]:
    """Gold items from drawn items: in turn a degraded copy as b, as a, and a video against itself."""
    root, rng = path.parent, np.random.default_rng(config.seed)
    count = min(len(items), round(config.gold_share * len(items) + 0.49)) if config.gold_share else 0
    golds = []
    for number, position in enumerate(sorted(rng.choice(len(items), count, replace=False).tolist())):
        item = items[position]
        kind = ("a", "b", "tie")[number % 3]
        pair = [item.video_a, item.video_a]
        if kind != "tie":
            root.mkdir(parents=True, exist_ok=True)  # videos are named through it
            copy = root / f"{path.stem}-gold" / f"{number}.mp4"
            degrade(root / item.video_a, copy, sound)
            pair["ab".index(kind) ^ 1] = os.path.relpath(copy, root)
        sides = item.arm_a, item.arm_a, *pair
        golds.append(Item(f"gold-{number}", item.prompt, *sides, gold=kind, reference=item.reference))  # type: ignore[arg-type]
    return golds


def degrade(source: Path, target: Path, sound: bool) -> None:
    """Write a copy that is worse on every axis: blocks, frozen motion, and the sound shifted under noise."""
    info = probe(source)
    audio, rate = None, None
    if sound and info.has_audio:
        audio, rate = read_sound(source, 0.0, info.num_frames / info.frame_rate)
        noise = np.random.default_rng(0).normal(0, 0.1, audio.shape)
        audio = (0.3 * np.roll(audio, audio.shape[1] // 3, axis=1) + noise).astype(np.float32)[:2]
    write_video(target, _degraded(source), info.frame_rate, audio, rate)


def _degraded(source: Path) -> Iterator[np.ndarray]:
    with stream_clip(source) as (_, chunks):
        held, number = None, 0
        for chunk in chunks:
            for frame in chunk:
                if held is None or number % HOLD == 0:
                    height, width = (max(2, side // 2 * 2) for side in frame.shape[:2])
                    small = Image.fromarray(frame).resize((max(1, width // BLOCK), max(1, height // BLOCK)))
                    held = np.asarray(small.resize((width, height), Image.Resampling.NEAREST))
                yield held
                number += 1


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:100] or "unnamed"
