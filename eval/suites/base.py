"""A suite: prompts with ids and tags, and how tags are counted.

A tag kind may hold several values, repeated as the source repeats them, so that both counting rules can be told
apart: `prompts` counts each prompt once a value, `occurrences` every mention.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

CONCEPT, FAMILY, MOTION = "concept", "concept_family", "motion_level"
MOTION_LEVELS = ("low", "medium", "high")
CountingRule = Literal["prompts", "occurrences"]
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class SuitePrompt:
    """One prompt. `fields` holds what else its source says: a spec, a source video and its caption, a sound."""

    id: str
    text: str
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def families(self, kind: str = CONCEPT) -> tuple[str, ...]:
        """The values of a tag kind without what follows " - ", each once: "human - hand" is of family "human"."""
        return tuple(dict.fromkeys(value.split(" - ")[0] for value in self.tags.get(kind, ())))

    def study_tags(self) -> dict[str, str]:
        """The tags as a study file keeps them: the values of a kind joined with commas, each once.

        Where concepts have families, these stand beside them as `concept_family`.
        """
        tags = {kind: ",".join(dict.fromkeys(values)) for kind, values in self.tags.items() if values}
        if CONCEPT in tags:
            tags[FAMILY] = ",".join(self.families())
        return tags


@dataclass(frozen=True)
class SourceFile:
    """A file that a suite was read from."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Suite:
    """Prompts of one benchmark. Raises ValueError of one line for no prompts, an odd id or one given twice."""

    name: str
    prompts: tuple[SuitePrompt, ...]
    licence: str
    sources: tuple[SourceFile, ...] = ()
    remarks: tuple[str, ...] = ()  # what is odd in the files: counted and said, never mended without a word
    level: int | None = None  # of toyworld: named with every score
    no_reference_audio: str = (
        ""  # why there is no sound to compare with: metrics that need one are refused with it
    )

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError(f"suite {self.name}: holds no prompt")
        for prompt in self.prompts:
            if not ID.fullmatch(prompt.id):
                raise ValueError(
                    f"suite {self.name}: id {prompt.id!r}: letters, digits, - and _, at most 100, a letter or "
                    "digit first"
                )
            if not prompt.text.strip():
                raise ValueError(f"suite {self.name}: prompt {prompt.id!r} is empty")
        twice = [name for name, count in Counter(p.id for p in self.prompts).items() if count > 1]
        if twice:
            raise ValueError(f"suite {self.name}: id {twice[0]!r} is given twice ({len(twice)} such ids)")

    @cached_property
    def digest(self) -> str:
        """sha256, in hex, of ids and texts in order: what scores of two suites are told apart by."""
        return prompts_digest([(prompt.id, prompt.text) for prompt in self.prompts])

    @cached_property
    def by_id(self) -> dict[str, SuitePrompt]:
        return {prompt.id: prompt for prompt in self.prompts}

    def num_unique(self) -> int:
        """How many different texts there are."""
        return len({prompt.text for prompt in self.prompts})


def prompts_digest(pairs: Sequence[tuple[str, str]]) -> str:
    """sha256, in hex, of (id, text) pairs in order."""
    return hashlib.sha256(json.dumps([list(pair) for pair in pairs], ensure_ascii=False).encode()).hexdigest()


def file_source(path: Path) -> SourceFile:
    """The file's name and sha256."""
    with path.open("rb") as file:
        return SourceFile(path.name, hashlib.file_digest(file, "sha256").hexdigest())


def count_tags(
    suite: Suite, kind: str = CONCEPT, rule: CountingRule = "prompts", family: bool = False
) -> dict[str, int]:
    """How often each value of a tag kind stands in the suite, most frequent first.

    Args:
        rule: "prompts" counts a prompt once however often it repeats the value; "occurrences" counts repeats.
        family: count what stands before " - ".
    """
    counts: Counter[str] = Counter()
    for prompt in suite.prompts:
        values: Sequence[str] = prompt.tags.get(kind, ())
        if family:
            values = [value.split(" - ")[0] for value in values]
        counts.update(list(dict.fromkeys(values)) if rule == "prompts" else values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def cross_counts(suite: Suite) -> dict[str, dict[str, int]]:
    """Prompts by concept family and motion level: family -> level -> prompts."""
    table: dict[str, Counter[str]] = {}
    for prompt in suite.prompts:
        level = (prompt.tags.get(MOTION) or ("?",))[0]
        for family in prompt.families():
            table.setdefault(family, Counter())[level] += 1
    order = count_tags(suite, family=True)
    return {family: dict(table[family]) for family in order}
