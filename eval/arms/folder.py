"""Reading an arm: which video belongs to which prompt, and what is missing, extra or cannot be read.

A folder holds a `manifest.jsonl` (`manifest.py`), or files named by one rule: the prompt's id (`own-001.mp4`,
further tries `own-001-1.mp4`), its row in the suite counted from 0 (`0.mp4`, `0000.mp4`, `0000-1.mp4`), or its text
(`a red star.mp4`, `a red star-0.mp4`, as VBench names files). Nothing is dropped without being counted and named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moviegen_eval.arms.card import SettingsCard, read_card
from moviegen_eval.manifest import MANIFEST, asked_for, read_listing
from moviegen_eval.suites import Suite
from tqdm import tqdm

from moviegen.media import MediaError, MediaInfo, probe

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".m4v")
RULES = ("manifest", "id", "row", "prompt")
TRY = re.compile(r"(.+)[-_](\d{1,3})")


@dataclass(frozen=True)
class Problem:
    """Something of an arm that keeps a video or prompt out: counted in every report."""

    arm: str
    kind: str  # missing, refused, extra, corrupt, no frames, short, slow, small
    name: str  # the prompt's id, or the file in the arm's folder
    reason: str


@dataclass(frozen=True)
class ArmVideo:
    """One video of an arm. `number` counts the tries of a prompt from 0."""

    prompt: str  # the prompt's id
    number: int
    path: Path
    info: MediaInfo


@dataclass(frozen=True)
class Arm:
    """A readable arm: its card, videos by prompt in the suite's order, and what is wrong with the rest."""

    name: str
    folder: Path
    card: SettingsCard
    rule: str  # how files were matched to prompts
    videos: dict[str, tuple[ArmVideo, ...]]
    problems: tuple[Problem, ...]

    def all_videos(self) -> list[ArmVideo]:
        return [video for videos in self.videos.values() for video in videos]


def read_arm(name: str, folder: Path | str, suite: Suite, rule: str | None = None) -> Arm:
    """Match a folder's files to a suite's prompts and probe each of them in the sandbox.

    Args:
        rule: one of RULES; None takes a manifest where there is one, else the rule that fits most files.

    Raises:
        ValueError: no such folder, or not one of its files belongs to a prompt of the suite.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"arm {name}: {folder} is not a folder")
    if rule is not None and rule not in RULES:
        raise ValueError(f"arm {name}: rule is {rule!r}; expected one of {', '.join(RULES)}")
    card = read_card(folder, name)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    rule, matched, extra = _match(folder, files, suite, rule)
    if not matched:
        raise ValueError(
            f"arm {name}: none of the {len(files)} videos in {folder} is named after a prompt of suite "
            f"{suite.name}, such as {suite.prompts[0].id}.mp4"
        )
    problems = [Problem(name, "extra", shown_path(folder, path), "belongs to no prompt") for path in extra]
    videos, broken = _probe(name, folder, matched)
    problems += broken
    refused = set(card.refusals)
    unknown = sorted(refused - suite.by_id.keys())
    problems += [Problem(name, "extra", one, "refused, but no prompt of the suite") for one in unknown]
    for prompt in suite.prompts:
        if prompt.id in refused:
            problems.append(Problem(name, "refused", prompt.id, "refused by the system"))
        elif prompt.id not in matched:
            problems.append(Problem(name, "missing", prompt.id, "no video"))
    ordered = {prompt.id: videos[prompt.id] for prompt in suite.prompts if prompt.id in videos}
    return Arm(name, folder, card, rule, ordered, tuple(problems))


Matches = dict[str, list[tuple[int, Path]]]


def _match(
    folder: Path, files: Sequence[Path], suite: Suite, rule: str | None
) -> tuple[str, Matches, list[Path]]:
    """(rule, prompt id -> [(try, file)], files of no prompt)."""
    if rule == "manifest" or (rule is None and (folder / MANIFEST).is_file()):
        return "manifest", *_by_manifest(folder, files, suite)
    own = asked_for(folder, files)
    candidates = {}
    for one in ("id", "row", "prompt") if rule is None else (rule,):
        candidates[one] = _by_name(own, _names(suite, one))
    best = max(candidates, key=lambda one: len(candidates[one][0]))
    if best == "row":
        _check_rows(folder, suite, *candidates[best])
    matched, extra = candidates[best]
    return best, matched, [*extra, *(path for path in files if path not in own)]


def _check_rows(folder: Path, suite: Suite, matched: Matches, extra: Sequence[Path]) -> None:
    """Refuse files that are counted from 1: each would be taken for the video of the prompt after its own."""
    end = len(suite.prompts)
    last = [path for path in extra if path.stem.isdigit() and int(path.stem) == end]
    if last and suite.prompts[0].id not in matched:
        raise ValueError(
            f"{folder}: holds {last[0].name} but no video of row 0, so its files seem to be counted from 1; rows count "
            f"from 0 to {end - 1}: rename the files, or name them in a manifest.jsonl"
        )


def _by_manifest(folder: Path, files: Sequence[Path], suite: Suite) -> tuple[Matches, list[Path]]:
    matched: Matches = {}
    listed = set()
    for name, file in read_listing(folder):
        path = folder / file
        listed.add(path)
        key = name if name in suite.by_id else _without_try(name)
        if key in suite.by_id:
            matched.setdefault(key, []).append((len(matched.get(key, [])), path))
    known = {path for tries in matched.values() for _, path in tries}
    return matched, [path for path in (*files, *sorted(listed - set(files))) if path not in known]


def _without_try(name: str) -> str:
    found = TRY.fullmatch(name)
    return found[1] if found else name


def _names(suite: Suite, rule: str) -> dict[str, str]:
    """File stems without the number of a try -> prompt ids; prompts that share a text share the first's files."""
    names: dict[str, str] = {}
    width = max(4, len(str(len(suite.prompts))))
    for row, prompt in enumerate(suite.prompts):
        if rule == "id":
            names[prompt.id] = prompt.id
        elif rule == "row":
            for text in {str(row), *(str(row).zfill(size) for size in range(2, width + 2))}:
                names[text] = prompt.id
        else:
            names.setdefault(prompt.text.strip(), prompt.id)
            names.setdefault(prompt.text.strip()[:180], prompt.id)
    return names


def _by_name(files: Iterable[Path], names: dict[str, str]) -> tuple[Matches, list[Path]]:
    matched: Matches = {}
    extra = []
    for path in files:
        prompt, number = names.get(path.stem), 0
        if prompt is None and (found := TRY.fullmatch(path.stem)):
            prompt, number = names.get(found[1]), int(found[2])
        if prompt is None or any(number == other for other, _ in matched.get(prompt, [])):
            extra.append(path)
        else:
            matched.setdefault(prompt, []).append((number, path))
    return {key: sorted(tries) for key, tries in matched.items()}, extra


def _probe(
    name: str, folder: Path, matched: Matches
) -> tuple[dict[str, tuple[ArmVideo, ...]], list[Problem]]:
    """Describe every file; what cannot be read becomes a problem."""
    videos, problems = {}, []
    for prompt, tries in tqdm(matched.items(), f"{name}: videos", unit="prompt"):
        readable = []
        for number, path in tries:
            try:
                info = probe(path)
            except MediaError as error:
                problems.append(Problem(name, "corrupt", shown_path(folder, path), error.reason))
                continue
            if info.num_frames < 1 or info.width < 1:
                problems.append(Problem(name, "no frames", shown_path(folder, path), "holds no picture"))
            else:
                readable.append(ArmVideo(prompt, number, path, info))
        if readable:
            videos[prompt] = tuple(readable)
    return videos, problems


def shown_path(folder: Path, path: Path) -> str:
    """A file's path in its arm's folder."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def count_problems(problems: Iterable[Problem]) -> dict[str, dict[str, int]]:
    """arm -> kind -> how many."""
    table: dict[str, Counter[str]] = {}
    for problem in problems:
        table.setdefault(problem.arm, Counter())[problem.kind] += 1
    return {arm: dict(sorted(counts.items())) for arm, counts in table.items()}
