"""From sources of edit pairs to units of work."""

from __future__ import annotations

from pathlib import Path

from moviegen_data.config import ClipSpec, PairSource, ToyEditSource
from moviegen_data.edit_lists import list_pairs
from moviegen_data.edit_pairs import EditUnit
from moviegen_data.edit_samples import PICTURES
from moviegen_data.outcomes import FileOutcome


def plan_edits(
    node: str, source: ToyEditSource | PairSource, clip: ClipSpec
) -> tuple[list[EditUnit], dict[str, FileOutcome]]:
    """The samples of a source, each of the next of its forms, and what is counted for them.

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
    if len(pairs) <= source.holdout:
        raise ValueError(
            f"source {node}: needs at least {source.holdout + 1} pairs, of which the last {source.holdout} are "
            f"held out; {source.pairs} has {len(pairs)}"
        )
    units, outcomes = [], {}
    for number, pair in enumerate(pairs):
        split = source.holdout_split if number >= len(pairs) - source.holdout else source.split
        form = source.forms[number % len(source.forms)]
        if form == "video" and pair.before.suffix.lower() in PICTURES:
            form = "frame"
        origin = f"{node}|{number:06d} {pair.before}"
        outcomes[origin] = FileOutcome(node, str(pair.before), split, has_caption=True)
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
