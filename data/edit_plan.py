"""From sources of edit pairs to units of work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from moviegen_data.config import ClipSpec, PairSource, ToyEditSource
from moviegen_data.edit_lists import list_pairs
from moviegen_data.edit_pairs import EditUnit, PairFile
from moviegen_data.edit_samples import PICTURES
from moviegen_data.files import file_sha256
from moviegen_data.outcomes import FileOutcome
from moviegen_data.splits import one_split, together

from moviegen.conditioning.edit_tasks import OF_EDITS, recognised, task_named


def plan_edits(
    node: str, source: ToyEditSource | PairSource, clip: ClipSpec, splits: dict[str, tuple[str, str]]
) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    """The samples of a source, each of the next of its forms, and what is counted for them.

    A pair whose task cannot be known is dropped: a model could not be trained on it.

    Args:
        splits: split and source of each file that other sources ask for, by its hash; those of this one are added.

    Raises ValueError for a table that cannot be read, too few pairs to hold some out, or a file in two splits.
    """
    return _toy(node, source) if isinstance(source, ToyEditSource) else _files(node, source, clip, splits)


def _toy(node: str, source: ToyEditSource) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    indices = range(source.first_index, source.first_index + source.count)
    title = f"toyworld edits level {source.world.level} seed {source.seed} [{indices.start}, {indices.stop})"
    outcome = FileOutcome(node, title, source.split, has_caption=True, is_series=True)
    origin, world = f"{node}|{title}", source.world
    units = []
    for index in indices:
        form = source.forms[index % len(source.forms)]
        units.append(
            EditUnit(
                origin,
                f"{source.name}-l{world.level}-s{source.seed}-{index:06d}-{form}",
                source.name,
                source.split,
                form,
                (1 if form == "frame" else world.num_frames, world.size, world.size),
                world,
                source.seed,
                index,
                frame_rate=world.frame_rate,
                sound=source.sound and form == "video",
            )
        )
    return units, {origin: outcome}


def _files(
    node: str, source: PairSource, clip: ClipSpec, splits: dict[str, tuple[str, str]]
) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    pairs = list_pairs(Path(source.pairs), things=source.forms == ("segment",))
    usable, outcomes = _told(node, source, pairs)
    if len(usable) <= source.holdout:
        lost = [f"{o.file}: {o.detail} ({o.rule})" for o in outcomes.values() if o.rule]
        because = f" with a task of {len(pairs)}, dropped: {lost[0]}" if lost else ""
        raise ValueError(
            f"source {node}: needs at least {source.holdout + 1} pairs, of which the last {source.holdout} are "
            f"held out; {source.pairs} has {len(usable)}{because}"
        )
    contents = _contents(usable)
    held, units = _held_out(node, source, contents), []
    for number, pair in usable.items():
        split = source.holdout_split if number in held else source.split
        for path, content in zip((pair.before, pair.after), contents[number], strict=True):
            one_split(content, split, node, str(path), splits)
        form = source.forms[number % len(source.forms)]
        if form == "video" and pair.before.suffix.lower() in PICTURES:
            form = "frame"
        origin = _origin(node, number, pair)
        outcomes[origin].split = split
        units.append(
            EditUnit(
                origin,
                f"{source.name}-{number:06d}-{form}",
                source.name,
                split,
                form,
                (1 if form == "frame" else clip.num_frames, clip.height, clip.width),
                pair=pair,
                frame_rate=clip.frame_rate,
                licence=(str(source.licence), source.licence_url, source.consent),
                finders=(source.detector, source.segmenter) if source.detector and source.segmenter else None,
            )
        )
    return units, outcomes


def _contents(pairs: Mapping[int, PairFile]) -> dict[int, tuple[str, str]]:
    """The hashes of the two files of each pair, by its number."""
    paths = {path for pair in pairs.values() for path in (pair.before, pair.after)}
    known = {path: _content(path) for path in paths}
    return {number: (known[pair.before], known[pair.after]) for number, pair in pairs.items()}


def _content(path: Path) -> str:
    """A file's hash; the name of one that cannot be read, whose pair is dropped when it is made."""
    with suppress(OSError):
        if path.is_file():
            return file_sha256(path)
    return str(path)


def _held_out(node: str, source: PairSource, contents: Mapping[int, tuple[str, str]]) -> set[int]:
    """Numbers of the last pairs, and of all that share a file, or a copy of one, with them.

    Raises ValueError where nothing would be left to train on.
    """
    numbers, held = list(contents), set[int]()
    for group in reversed(together(list(contents.values()))):
        if len(held) >= source.holdout:
            break
        held |= {numbers[place] for place in group}
    if held and len(held) == len(numbers):
        raise ValueError(
            f"source {node}: holdout {source.holdout} would hold all {len(numbers)} pairs of {source.pairs} out, for "
            "they share files; add pairs of other files"
        )
    return held


def _origin(node: str, number: int, pair: PairFile) -> str:
    return f"{node}|{number:06d} {pair.before}"


def _told(
    node: str, source: PairSource, pairs: list[PairFile]
) -> tuple[dict[int, PairFile], dict[str, FileOutcome]]:
    """The pairs whose task is known, by their number in the list, and an outcome for each pair."""
    usable, outcomes = {}, {}
    for number, pair in enumerate(pairs):
        outcome = FileOutcome(node, str(pair.before), source.split, has_caption=True)
        outcomes[_origin(node, number, pair)] = outcome
        try:
            usable[number] = replace(pair, task=_task(pair, source.task))
        except ValueError as error:
            outcome.drop("no task", str(error))
    return usable, outcomes


def _task(pair: PairFile, default: str | None) -> str:
    """What the list names, else what the instruction's words ask for, else the source's; ValueError for none."""
    if pair.task:
        if found := task_named(pair.task):
            return found
        raise ValueError(f"{pair.task!r} is the name of no edit task; known are {', '.join(OF_EDITS)}")
    try:
        return recognised(pair.instruction)
    except ValueError:
        if default is None:
            raise
        return default
