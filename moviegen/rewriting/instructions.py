"""Instructions for back-translation (paper 5, stage III): one that changes a clip, and one that brings it back.

From a clip's caption, by rules (the default, which needs no model) or by a language model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moviegen.rewriting.base import Rewriter, one_line


class Task(NamedTuple):
    """An instruction and its edit task."""

    text: str
    name: str


@dataclass(frozen=True)
class RoundTrip:
    """A change and the way back."""

    forward: Task
    backward: Task
    caption: str | None = None  # of the changed clip, where it is known


class InstructionWriter:
    """Base class."""

    def write(self, captions: Sequence[str], choices: Sequence[float]) -> list[RoundTrip | None]:
        """A round trip for each caption, None where there is none. `choices` in [0, 1) pick among several."""
        raise NotImplementedError


class RuleInstructions(InstructionWriter):
    """Swaps words of a caption that are known: colors and kinds of things, and backgrounds.

    Removals, additions, backgrounds and changes of things are as likely as each other where a caption allows them.

    Args:
        colors, things: words; a thing is a color before a kind of thing, with a word of size before it or not.
        backgrounds: kinds of background with the phrases that name each.
        sizes: words of size.
    """

    def __init__(
        self,
        colors: Sequence[str],
        things: Sequence[str],
        backgrounds: Mapping[str, Sequence[str]] | None = None,
        sizes: Sequence[str] = (),
    ) -> None:
        if len(colors) < 2 or len(things) < 2:
            raise ValueError("instructions by rules need at least two colors and two kinds of things")
        self.colors, self.things, self.sizes = tuple(colors), tuple(things), tuple(sizes)
        self.backgrounds = {name: tuple(phrases) for name, phrases in (backgrounds or {}).items()}
        size = f"(?:(?P<size>{_any(self.sizes)}) )?" if self.sizes else "(?P<size>(?!))?"
        pattern = rf"\b{size}(?P<color>{_any(self.colors)}) (?P<thing>{_any(self.things)})\b"
        self.pattern = re.compile(pattern, re.IGNORECASE)

    def write(self, captions: Sequence[str], choices: Sequence[float]) -> list[RoundTrip | None]:
        return [self._one(caption, choice) for caption, choice in zip(captions, choices, strict=True)]

    def _one(self, caption: str, choice: float) -> RoundTrip | None:
        found = list(self.pattern.finditer(caption))
        kinds = [
            self._changes_of_things(caption, found),
            self._removals(found),
            self._additions(caption, found),
            self._backdrops(caption),
        ]
        kinds = [trips for trips in kinds if trips]
        if not kinds:
            return None
        place = choice * len(kinds)
        trips = kinds[int(place)]
        return trips[int((place - int(place)) * len(trips))]

    def _changes_of_things(self, caption: str, found: list[re.Match[str]]) -> list[RoundTrip]:
        """Every other color and kind of each thing."""
        used, trips = {match["color"].lower() for match in found}, []
        for match in found:
            color, thing = match["color"].lower(), match["thing"].lower()
            for other in (c for c in self.colors if c not in used):
                after = _swapped(caption, match, "color", other)
                there = Task(f"make the {color} {thing} {other}", "color")
                trips.append(RoundTrip(there, Task(f"make the {other} {thing} {color}", "color"), after))
            for other in (t for t in self.things if t != thing):
                after = _swapped(caption, match, "thing", other)
                there = Task(f"replace the {color} {thing} with {_a(other)}", "replace")
                trips.append(
                    RoundTrip(there, Task(f"replace the {color} {other} with {_a(thing)}", "replace"), after)
                )
        return trips

    def _removals(self, found: list[re.Match[str]]) -> list[RoundTrip]:
        """One of several things taken out and put back."""
        trips = []
        for match in found if len(found) > 1 else []:
            name = f"{match['color']} {match['thing']}".lower()
            back = f"{match['size'].lower()} {name}" if match["size"] else name
            trips.append(RoundTrip(Task(f"remove the {name}", "remove"), Task(f"add {_a(back)}", "add")))
        return trips

    def _additions(self, caption: str, found: list[re.Match[str]]) -> list[RoundTrip]:
        """A thing put in and taken out again."""
        used, trips = {match["color"].lower() for match in found}, []
        size = f"{self.sizes[0]} " if self.sizes else ""
        for color in (c for c in self.colors if found and c not in used):
            for thing in self.things:
                new = f"{size}{color} {thing}"
                after = f"{caption.rstrip('. ')}, and {_a(new)}."
                there = Task(f"add {_a(new)}", "add")
                trips.append(RoundTrip(there, Task(f"remove the {color} {thing}", "remove"), after))
        return trips

    def _backdrops(self, caption: str) -> list[RoundTrip]:
        for kind, phrases in self.backgrounds.items():
            said = next((phrase for phrase in phrases if phrase.lower() in caption.lower()), None)
            if said is None:
                continue
            trips = []
            for other in (name for name in self.backgrounds if name != kind):
                new = self.backgrounds[other][0]
                after = re.sub(re.escape(said), new.replace("\\", r"\\"), caption, flags=re.IGNORECASE)
                there = Task(f"change the backdrop to {new}", "background")
                trips.append(
                    RoundTrip(there, Task(f"change the backdrop to {phrases[0]}", "background"), after)
                )
            return trips
        return []


class LanguageModelInstructions(InstructionWriter):
    """Asks a language model (a rewriter) for the lines: task, instruction, task back, instruction back, new caption.

    Args:
        model: told in its own `instruction` to answer so, the lines divided by " | ".
        tasks: names that may be answered; another answer counts as none.
    """

    def __init__(self, model: Rewriter, tasks: Sequence[str]) -> None:
        self.model, self.tasks = model, tuple(tasks)

    def write(self, captions: Sequence[str], choices: Sequence[float]) -> list[RoundTrip | None]:  # noqa: ARG002
        return [self._read(answer) for answer in self.model.rewrite(list(captions))]

    def _read(self, answer: str) -> RoundTrip | None:
        parts = [one_line(part) for part in answer.split("|")]
        if len(parts) != 5 or not all(parts) or not {parts[0], parts[2]} <= set(self.tasks):
            return None
        return RoundTrip(Task(parts[1], parts[0]), Task(parts[3], parts[2]), parts[4])


def _any(words: Sequence[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"


def _swapped(caption: str, match: re.Match[str], part: str, word: str) -> str:
    return caption[: match.start(part)] + word + caption[match.end(part) :]
