"""From sources of edit pairs to units of work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moviegen_data.config import ClipSpec, PairSource, ToyEditSource
from moviegen_data.edit_lists import list_pairs
from moviegen_data.edit_pairs import EditUnit, PairFile
from moviegen_data.edit_samples import PICTURES
from moviegen_data.outcomes import FileOutcome

from moviegen.conditioning.edit_tasks import OF_EDITS, recognised, task_named


def plan_edits(
    node: str, source: ToyEditSource | PairSource, clip: ClipSpec
) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    """The samples of a source, each of the next of its forms, and what is counted for them.

    A pair whose task cannot be known is dropped: a model could not be trained on it.

    Raises ValueError for a table that cannot be read, or too few pairs to hold some out.
    """
    return _toy(node, source) if isinstance(source, ToyEditSource) else _files(node, source, clip)


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


def _files(node: str, source: PairSource, clip: ClipSpec) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    pairs = list_pairs(Path(source.pairs), things=source.forms == ("segment",))
    usable, outcomes = _told(node, source, pairs)
    if len(usable) <= source.holdout:
        lost = [f"{o.file}: {o.detail} ({o.rule})" for o in outcomes.values() if o.rule]
        because = f" with a task of {len(pairs)}, dropped: {lost[0]}" if lost else ""
        raise ValueError(
            f"source {node}: needs at least {source.holdout + 1} pairs, of which the last {source.holdout} are "
            f"held out; {source.pairs} has {len(usable)}{because}"
        )
    units = []
    for place, (number, pair) in enumerate(usable.items()):
        split = source.holdout_split if place >= len(usable) - source.holdout else source.split
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
