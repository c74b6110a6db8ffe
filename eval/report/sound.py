"""Generated sound on the page: what `moviegen eval sound` measured, and some sounds to listen to."""

from __future__ import annotations

import base64
from pathlib import Path

from moviegen_eval.files import inside, read_json_lines
from moviegen_eval.numbers import Figure
from moviegen_eval.report.clips import Budget
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
CONTROLS = {
    "": "",
    "shuffled": " (control: events of another clip)",
    "chance": " (control: events at random times)",
}


def sound_section(figures: list[Figure], sounds: Path | None, budget: Budget) -> str:
    """A table of the figures of sound, each with its controls, and the first few sounds of a folder."""
    rows = [_row(figure) for figure in figures]
    parts = [table(["figure", "value", "95 % interval", "clips", "unit"], rows)]
    parts += [_player(path, budget) for path in _files(sounds)] if sounds else []
    return section("Sound", *parts, id_="sound")


def _row(figure: Figure) -> list[str]:
    words = figure.name.split("/")
    control = words[-1] if words[-1] in CONTROLS else ""
    name = words[-2] if control else words[-1]
    bounds = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    label = f"{WORDS.get(name, name)}{CONTROLS[control]}"
    return [text(label), text(f"{figure.value:.3f}"), text(bounds), text(figure.n), text(figure.unit)]


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
