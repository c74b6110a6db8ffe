"""`moviegen eval study check`: the videos of a study before anybody votes on them; each fault counted and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moviegen_eval.study.equalize import PICTURES
from moviegen_eval.study.study import Item, Study
from moviegen_eval.study.table import LeftOut
from tqdm import tqdm

from moviegen.media import MediaError, MediaInfo, probe, read_image

SUFFIXES = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"}
Difference = tuple[str, Callable[[MediaInfo, MediaInfo], str | None]]


def _unlike(name: str, unit: str, tolerance: float) -> Callable[[MediaInfo, MediaInfo], str | None]:
    def compare(a: MediaInfo, b: MediaInfo) -> str | None:
        left, right = float(getattr(a, name)), float(getattr(b, name))
        unlike = abs(left - right) > tolerance * max(left, right)
        return f"{left:g} and {right:g} {unit}" if unlike else None

    return compare


def _size(a: MediaInfo, b: MediaInfo) -> str | None:
    sizes = [(info.width, info.height) for info in (a, b)]
    return f"{sizes[0][0]}x{sizes[0][1]} and {sizes[1][0]}x{sizes[1][1]}" if sizes[0] != sizes[1] else None


def _sound(a: MediaInfo, b: MediaInfo) -> str | None:
    return "one of them" if a.has_audio != b.has_audio else None


# What the two videos of an item should share; `study build` makes them alike, or refuses.
DIFFERENCES: tuple[Difference, ...] = (
    ("other lengths", _unlike("duration_seconds", "seconds", 0.02)),
    ("other frame rates", _unlike("frame_rate", "frames/s", 0.001)),
    ("other sizes", _size),
    ("sound in one video only", _sound),
)


def check_videos(study: Study) -> tuple[LeftOut, ...]:
    """Missing, unreadable, unlike and extra videos of a study."""
    found: dict[str, list[str]] = {}
    infos: dict[Path, MediaInfo | None] = {}
    for item in tqdm(study.items, "videos", unit="item"):
        pair = [_probe(study, item, side, infos, found) for side in ("a", "b")]
        if pair[0] and pair[1]:
            for reason, compare in DIFFERENCES:
                difference = compare(pair[0], pair[1])
                if difference:
                    found.setdefault(reason, []).append(f"item {item.id}: {difference}")
    _check_references(study, found)
    for path in _extra(study, set(infos)):
        found.setdefault("extra video that no item names", []).append(str(path))
    return tuple(LeftOut(reason, tuple(places)) for reason, places in found.items())


def _check_references(study: Study, found: dict[str, list[str]]) -> None:
    """References that are missing or cannot be read, each file once, and items without one that an axis asks for."""
    axis, alone = study.without_reference()
    if axis and alone:
        reason = f"no reference, against which axis {axis.key} is judged"
        found[reason] = [f"item {name}" for name in alone]
    paths = {path.resolve(): item.id for item in study.items if (path := study.reference(item))}
    for path, name in paths.items():
        if not path.is_file():
            found.setdefault("missing reference", []).append(f"item {name}: {path}")
            continue
        try:
            (read_image if path.suffix.lower() in PICTURES else probe)(path)
        except (MediaError, OSError) as error:
            found.setdefault("reference that cannot be read", []).append(f"item {name}: {error}")


def _probe(
    study: Study, item: Item, side: str, infos: dict[Path, MediaInfo | None], found: dict[str, list[str]]
) -> MediaInfo | None:
    path = study.video(item, "a" if side == "a" else "b").resolve()
    if path in infos:
        return infos[path]
    infos[path] = None
    if not path.is_file():
        found.setdefault("missing video", []).append(f"item {item.id}: {path}")
        return None
    try:
        infos[path] = probe(path)
    except (MediaError, OSError) as error:
        found.setdefault("video that cannot be read", []).append(f"item {item.id}: {error}")
    return infos[path]


def _extra(study: Study, used: set[Path]) -> list[Path]:
    folders = {(study.root / arm.folder).resolve() for arm in study.arms if arm.folder}
    videos = {
        path.resolve()
        for folder in folders
        if folder.is_dir()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    }
    return sorted(videos - used)
