"""The settings card of an arm, `arm.yaml` beside its videos: how they came about, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from moviegen_eval.files import read_text, write_atomically
from moviegen_eval.records import parse_record

CARD = "arm.yaml"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class SettingsCard:
    """What an arm's maker says of it. None is "not stated", which is printed as such and never guessed."""

    name: str
    model: str | None = None
    version: str | None = None
    date: str | None = None  # when the videos were made
    access: str | None = None  # weights, an API, a web page
    source: str | None = None  # where the videos come from
    licence: str | None = None
    prompt_rewriting: str | None = None  # "none", or which model rewrote the prompts
    seeds: list[int] | None = None
    steps: int | None = None
    guidance: float | None = None
    frame_rate: float | None = None  # frames per second
    duration_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    tries_per_prompt: int | None = None
    selection: str | None = None  # how one of several tries was chosen: "first", "best of 5 by hand"
    refusals: list[str] = field(default_factory=list)  # ids of prompts that the system refused
    post_processing: str | None = None
    has_audio: bool | None = None
    watermark: str | None = None  # visible marks on the picture
    notes: str | None = None

    def __post_init__(self) -> None:
        for name in ("frame_rate", "duration_seconds", "width", "height", "tries_per_prompt", "steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; expected more than 0, or null where it is not known")


def read_card(folder: Path, name: str) -> SettingsCard:
    """The card in an arm's folder, or an empty one; a ValueError names file and key."""
    path = folder / CARD
    if not path.is_file():
        return SettingsCard(name)
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}: is not yaml{line}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(values).__name__}")
    values = {"name": name, **{key: _plain(key, value) for key, value in values.items()}}
    try:
        return parse_record(SettingsCard, values, str(path))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def write_card(folder: Path, card: SettingsCard) -> None:
    """Write `arm.yaml`, stated values only, atomically."""
    stated = {key: value for key, value in asdict(card).items() if value not in (None, [])}
    write_atomically(folder / CARD, yaml.safe_dump(stated, sort_keys=False, allow_unicode=True, width=110))


def _plain(key: str, value: Any) -> Any:
    """yaml reads an unquoted date or version as a date or number; both are text here."""
    if key in ("date", "version", "name") and value is not None:
        return str(value)
    return value


SETTINGS = tuple(f.name for f in fields(SettingsCard) if f.name not in ("name", "refusals", "notes"))


def shown_setting(card: SettingsCard, name: str) -> str:
    """A setting as a table shows it."""
    value = getattr(card, name)
    if value is None:
        return NOT_STATED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value[:12])) + (", ..." if len(value) > 12 else "") if value else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def unlike_settings(cards: Mapping[str, SettingsCard]) -> dict[str, dict[str, str]]:
    """Settings that are not the same in all arms, "not stated" included: setting -> arm -> value."""
    unlike = {}
    for setting in SETTINGS:
        values = {name: shown_setting(card, setting) for name, card in cards.items()}
        if len(set(values.values())) > 1:
            unlike[setting] = values
    return unlike
