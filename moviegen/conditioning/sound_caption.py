"""The structured caption of a sound: four parts in one text, as training and prompts both have it (paper 6).

    Quality: 8.0. Speech: no. Singing: no. Music: 0.00. Sound: a ball bounces. Music style: calm piano.

Quality runs from 1 to 10; Movie Gen asks for 7.0 of sound effects and 8.0 of those with music.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORM = re.compile(
    r"Quality: (?P<quality>[\d.]+)\. Speech: (?P<speech>yes|no)\. Singing: (?P<singing>yes|no)\. "
    r"Music: (?P<music>[\d.]+)\. Sound: (?P<description>.*?)\.(?: Music style: (?P<style>.*)\.)?",
    re.DOTALL,
)
QUALITY_SOUND, QUALITY_MUSIC = 7.0, 8.0  # that inference asks for (paper 6)


@dataclass(frozen=True)
class SoundCaption:
    """What a sound is, and how good.

    Raises:
        ValueError: a quality outside of 1 to 10, or a likelihood outside of 0 to 1.
    """

    description: str
    music_description: str = ""
    quality: float = QUALITY_SOUND
    speech: bool = False
    singing: bool = False
    music: float = 0.0  # likelihood

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 10:
            raise ValueError(f"the quality of a sound is from 1 to 10, got {self.quality}")
        if not 0 <= self.music <= 1:
            raise ValueError(f"the likelihood of music is from 0 to 1, got {self.music}")

    @classmethod
    def of(cls, record: Mapping[str, Any], text: str) -> SoundCaption:
        """The caption of a sample: what predictors wrote under `sound` of its json record, else its text alone."""
        found = record.get("sound") or {}
        names = ("quality", "speech", "singing", "music", "music_description")
        said = {name: found[name] for name in names if name in found}
        return cls(found.get("description", text), **said)

    @classmethod
    def prompt(cls, description: str, music: str = "") -> SoundCaption:
        """What inference asks for: sound effects, or those with music (paper 6)."""
        if not music:
            return cls(description)
        return cls(description, music, QUALITY_MUSIC, music=1.0)

    @property
    def text(self) -> str:
        """The caption as the text encoder reads it."""
        flags = f"Speech: {_word(self.speech)}. Singing: {_word(self.singing)}."
        text = (
            f"Quality: {self.quality:.1f}. {flags} Music: {self.music:.2f}. Sound: {_bare(self.description)}."
        )
        return text + (f" Music style: {_bare(self.music_description)}." if self.music_description else "")

    @classmethod
    def parse(cls, text: str) -> SoundCaption:
        """The inverse of `text`; raises ValueError for another form."""
        match = FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no structured caption of a sound; it begins with 'Quality: 7.0. Speech: '"
            )
        return cls(
            match["description"],
            match["style"] or "",
            float(match["quality"]),
            match["speech"] == "yes",
            match["singing"] == "yes",
            float(match["music"]),
        )


def _word(flag: bool) -> str:
    return "yes" if flag else "no"


def _bare(text: str) -> str:
    return text.strip().rstrip(".")
