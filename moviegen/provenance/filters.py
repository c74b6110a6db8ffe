"""Hooks that may refuse a prompt or a picture before anything leaves: interfaces, and one real example of each.

Both run on a CPU without weights. `Terms` refuses prompts by words that stand together; it is a floor, which anybody
who wants to gets round, not a moderation model. `Flashes` refuses what may cause seizures, by the general flash
threshold of WCAG 2.3.1: more than three flashes within a second, on a quarter of the picture. Training uses neither.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from moviegen.config import UserError

TERMS = Path(__file__).with_name("terms.json")

Frame = NDArray[np.uint8]


class PromptFilter(Protocol):
    """Looks at one prompt."""

    def refusal(self, prompt: str) -> str | None:
        """Why it is refused; None where it is not."""
        ...


class OutputFilter(Protocol):
    """Looks at the frames of one clip after the other."""

    def begin(self, frame_rate: float) -> None: ...

    def refusal(self, frame: Frame) -> str | None:
        """Why the clip is refused, up to this frame, uint8 [H, W, 3]; None where it is not."""
        ...


@dataclass(frozen=True)
class Filters:
    """What prompts and pictures must pass: the keys of conf/filters/default.yaml."""

    prompt: tuple[PromptFilter, ...] = ()
    output: tuple[OutputFilter, ...] = ()

    def check_prompts(self, prompts: dict[str, str]) -> None:
        """Raises UserError for the first prompt, of those by id, that is refused; says how many others are."""
        refused = [
            (name, why)
            for name, text in prompts.items()
            if (why := next(filter(None, (one.refusal(text) for one in self.prompt)), None))
        ]
        if refused:
            name, why = refused[0]
            more = f"; so are {len(refused) - 1} others" if len(refused) > 1 else ""
            raise UserError(f"prompt {name} is refused: {why}{more}")

    def passed(self, name: str, frames: Iterable[Frame], frame_rate: float) -> Iterator[Frame]:
        """The frames as they come, until a filter refuses the clip: then UserError, and nothing of it is written."""
        for one in self.output:
            one.begin(frame_rate)
        for frame in frames:
            for one in self.output:
                if why := one.refusal(frame):
                    raise UserError(f"{name} is withheld: {why}")
            yield frame


class Terms:
    """Refuses prompts that hold a word of each group of a rule, whole words, in any order and case."""

    def __init__(self, path: str | None = None) -> None:
        """`path`: a json list of {"reason", "words": [[group], ...]}, None for the shipped one. May raise UserError."""
        file = Path(path) if path else TERMS
        try:
            rules = json.loads(file.read_text(encoding="utf-8"))
            self.rules = [
                (
                    rule["reason"],
                    [re.compile(rf"\b(?:{'|'.join(map(re.escape, g))})\b", re.I) for g in rule["words"]],
                )
                for rule in rules
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            example = '[{"reason": "...", "words": [["a"], ["b"]]}]'
            raise UserError(f"{file} is no list of rules; write {example}") from error

    def refusal(self, prompt: str) -> str | None:
        for reason, groups in self.rules:
            if all(group.search(prompt) for group in groups):
                return f"{reason} (rule of words; filters=none switches it off)"
        return None


class Flashes:
    """Refuses clips that flash: pairs of opposing changes of relative luminance by a tenth, the darker below 0.8."""

    MOST, AREA = 3, 0.25  # flashes within a second, part of the picture
    CHANGE, DARKER = 0.1, 0.8
    SIDE = 32  # pixels of the picture as it is looked at

    def begin(self, frame_rate: float) -> None:
        self.window = max(1, round(frame_rate))
        self.extreme: NDArray[np.float32] | None = None  # luminance at each pixel's last turn
        self.direction: NDArray[np.int8] | None = None
        self.turns: deque[NDArray[np.bool_]] = deque(maxlen=self.window)

    def refusal(self, frame: Frame) -> str | None:
        small = np.asarray(Image.fromarray(frame).resize((self.SIDE, self.SIDE), Image.Resampling.BOX))
        light = ((small / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])).astype(np.float32)
        if self.extreme is None or self.direction is None:
            self.extreme, self.direction = light, np.zeros(light.shape, np.int8)
            return None
        step = light - self.extreme
        # A change counts once it has gone far enough against the last one.
        enough = (np.abs(step) >= self.CHANGE) & (np.minimum(light, self.extreme) < self.DARKER)
        turned = enough & (np.sign(step) != self.direction)
        self.direction = np.where(turned, np.sign(step), self.direction).astype(np.int8)
        further = np.sign(step) == self.direction
        self.extreme = np.where(turned | further, light, self.extreme)
        self.turns.append(turned)
        flashes = np.sum(self.turns, axis=0) / 2  # up and down again is one
        part = float((flashes > self.MOST).mean())
        if part >= self.AREA:
            flashes = f"more than {self.MOST} flashes within a second on {part:.0%} of the picture"
            return f"{flashes}, which can cause seizures"
        return None
