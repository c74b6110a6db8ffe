"""Generated sound on the page: what `moviegen eval sound` measured, and some sounds to listen to."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from moviegen_eval.files import inside, read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.report.clips import Budget
from moviegen_eval.report.figures import ENDS
from moviegen_eval.report.markup import note, section, table, tag, text

MAX_SOUNDS = 8
WORDS = {
    "sync": "impacts within 0.1 s of the true ones",
    "timbre": "of these, named after the right shape",
    "false_impacts": "impacts that belong to nothing",
    "silence": "tenths of a second that are silent",
    "seam_level_excess": "how much larger jumps of level are at seams than elsewhere",
    "seam_spectrum_excess": "the same of the spectrum",
}
CHANCE = " (chance: events at random times)"
BOUNDS = (
    "Floor: the same sounds held against the events of another clip. Ceiling: the clips' own sounds after the sound "
    "codec."
)


def sound_section(figures: list[Figure], sounds: Path | None, budget: Budget) -> str:
    """A table of the figures of sound, each with its bounds, and the first few sounds of a folder."""
    by_name = {figure.name: figure for figure in figures}
    rows = [_row(figure, by_name) for figure in figures if not figure.name.endswith(ENDS)]
    head = ["figure", "value", "95 % interval", "floor", "ceiling", "clips", "unit"]
    parts = [table(head, rows), tag("p", text(BOUNDS), class_="caption")]
    parts += [_player(path, budget) for path in _files(sounds)] if sounds else []
    return section("Sound", *parts, id_="sound")


def _row(figure: Figure, by_name: Mapping[str, Figure]) -> list[str]:
    name = figure.name.removesuffix("/chance")
    label = WORDS.get(name.rpartition("/")[2], name) + (CHANCE if name != figure.name else "")
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    ends = [by_name.get(f"{figure.name}{end}") for end in ENDS]
    bounds = [text(f"{end.value:.3f}") if end else "" for end in ends]
    return [
        text(label),
        text(f"{figure.value:.3f}"),
        text(interval),
        *bounds,
        text(figure.n),
        text(figure.unit),
    ]


def _files(sounds: Path) -> list[Path]:
    manifest = sounds / "sounds.jsonl"
    if not manifest.is_file():
        return []
    return [inside(sounds, row["file"], where) for where, row in read_json_lines(manifest)][:MAX_SOUNDS]


def _player(path: Path, budget: Budget) -> str:
    data = path.read_bytes()
    if len(data) > budget.left:
        budget.num_left_out += 1
        return note(f"{path.name} was left out for its size.")
    budget.left -= len(data)
    source = f"data:audio/flac;base64,{base64.b64encode(data).decode()}"
    return tag("p", text(path.stem), " ", tag("audio", src=source, controls=True))
