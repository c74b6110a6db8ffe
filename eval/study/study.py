"""The study file: axes, arms, items, gold items and rules, declared before the first vote.

Its digest is stamped on every vote, so that a study changed afterwards takes none of the votes of before. Paths
are relative to the study file. Items may stand in the file, or one a line in a .jsonl file that it names.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from moviegen_eval.files import read_json_lines, read_text, write_atomically
from moviegen_eval.records import parse_record
from moviegen_eval.study.axes import AXES, Axis

Answer = Literal["a", "b", "tie"]
KEY = re.compile(r"[A-Za-z0-9_.+-]{1,100}")  # axes and arms name figures; items name files
Row = TypeVar("Row")


@dataclass(frozen=True)
class Arm:
    """One side of comparisons: a system's name and the folder of its videos."""

    name: str
    folder: str = ""


@dataclass(frozen=True)
class Item:
    """One pair of videos to compare. A gold item has an expected answer and is never counted in a result.

    A tag that lists several values with commas ("animal,scene") puts the item into the slice of each.
    """

    id: str
    prompt: str
    arm_a: str
    arm_b: str
    video_a: str
    video_b: str
    tags: dict[str, str] = field(default_factory=dict)
    gold: Answer | None = None
    reference: str | None = None  # a picture, or a video before its edit, that both are held against

    @property
    def cluster(self) -> str:
        """What the intervals resample: the prompt (its text), or the item itself where there is no text."""
        return " ".join(self.prompt.split()) or f"item {self.id}"


@dataclass(frozen=True)
class ExclusionRules:
    """Which votes and raters are left out. None: the rule does not apply."""

    min_gold_accuracy: float | None = None  # of a rater, over all axes
    min_gold_votes: int = 3  # answers to gold items before the rule above judges a rater
    min_watch_seconds: float = 0.0  # of each of the two videos; a vote below it is left out
    max_side_bias: float | None = None  # of a rater: |left - right| / (left + right) of the answers but ties
    max_side_p: float = 0.01  # and the binomial test against no bias must also be below this
    min_votes: int = 0  # of a rater, all axes together

    def __post_init__(self) -> None:
        for name in ("min_gold_accuracy", "max_side_bias", "max_side_p"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"exclusion: {name} is {value}; expected 0 to 1")
        for name in ("min_gold_votes", "min_watch_seconds", "min_votes"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"exclusion: {name} is {getattr(self, name)}; expected 0 or more")


@dataclass(frozen=True)
class Study:
    """A declared study. Raises ValueError of one line for a name given twice or one that nothing defines."""

    id: str
    title: str
    axes: tuple[Axis, ...]
    arms: tuple[Arm, ...]
    items: tuple[Item, ...]
    seed: int = 0
    instructions: str = ""
    consent: str = ""
    exclusion: ExclusionRules = ExclusionRules()
    level: int | None = None  # of toyworld, where the videos are of it: named with every figure
    root: Path = field(default=Path(), compare=False)  # folder of the study file; not part of the digest

    def __post_init__(self) -> None:
        where = f"study {self.id!r}"
        if not KEY.fullmatch(self.id):
            raise ValueError(f"{where}: an id has 1 to 100 letters, digits and _.+-")
        for what, names in (
            ("axis", [axis.key for axis in self.axes]),
            ("arm", [arm.name for arm in self.arms]),
            ("item", [item.id for item in self.items]),
        ):
            _check_names(where, what, names)
        arms = {arm.name for arm in self.arms}
        for item in self.items:
            _check_item(f"{where}: item {item.id!r}", item, arms)

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of the study's canonical json."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def canonical_json(self) -> str:
        """Everything but where the file lies, keys sorted, no blanks."""
        return json.dumps(
            self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )

    def to_dict(self) -> dict[str, Any]:
        """The study as plain values, as `load_study` reads them."""
        parts = {name: [_row(row) for row in getattr(self, name)] for name in ("axes", "arms", "items")}
        plain = {name: getattr(self, name) for name in ("id", "title", "seed", "instructions", "consent")}
        drawn = {} if self.level is None else {"level": self.level}  # others keep the digest that they had
        return {**plain, **parts, "exclusion": asdict(self.exclusion), **drawn}

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs of arms that items compare, each in the order of `arms`; gold items do not count."""
        order = {arm.name: position for position, arm in enumerate(self.arms)}
        found = {
            tuple(sorted((item.arm_a, item.arm_b), key=order.__getitem__))
            for item in self.items
            if item.gold is None
        }
        return tuple(sorted(found, key=lambda pair: (order[pair[0]], order[pair[1]])))  # type: ignore[return-value]

    def video(self, item: Item, side: Literal["a", "b"]) -> Path:
        """Where a video of the item lies."""
        return self.root / (item.video_a if side == "a" else item.video_b)

    def reference(self, item: Item) -> Path | None:
        """Where the picture or video lies that the item's two are held against."""
        return self.root / item.reference if item.reference else None

    def without_reference(self) -> tuple[Axis | None, list[str]]:
        """The first axis that is judged against a reference, and the items that have none."""
        axis = next((axis for axis in self.axes if axis.reference), None)
        return axis, [item.id for item in self.items if axis and not item.reference]


def _row(row: Any) -> dict[str, Any]:
    """A row's values; `reference` only where there is one, so that studies without have the digest they had."""
    return {key: value for key, value in vars(row).items() if key != "reference" or value}


def _check_names(where: str, what: str, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"{where}: has no {what}; expected at least one")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: {what} {twice[0]!r} is given twice ({len(twice)} such names)")
    wrong = [name for name in names if not KEY.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"{where}: {what} {wrong[0]!r}: a name has 1 to 100 letters, digits and _.+- ({len(wrong)} such names)"
        )


def _check_item(where: str, item: Item, arms: set[str]) -> None:
    if item.gold not in (None, "a", "b", "tie"):
        raise ValueError(f"{where}: gold is {item.gold!r}; expected a, b, tie or null")
    if item.gold is not None:
        return  # its two sides may be anything, also twice the same arm
    for arm in (item.arm_a, item.arm_b):
        if arm not in arms:
            raise ValueError(f"{where}: arm {arm!r} is none of {', '.join(sorted(arms))}")
    if item.arm_a == item.arm_b:
        raise ValueError(
            f"{where}: both arms are {item.arm_a!r}; only a gold item may compare an arm with itself"
        )


def load_study(path: Path | str) -> Study:
    """Read and check a study file (yaml or json). Raises ValueError of one line that names file and key."""
    path = Path(path)
    values = _load_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of a study's keys, got {type(values).__name__}")
    try:
        return _study(values, path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _study(given: Mapping[str, Any], root: Path) -> Study:
    values = dict(given)
    if "root" in values:
        raise ValueError("unknown key 'root'; paths are relative to the study file")
    if isinstance(values.get("items"), str):
        values["items"] = [row for _, row in read_json_lines(root / values["items"])]
    values["axes"] = tuple(_axis(row, f"axes[{n}]") for n, row in enumerate(_rows(values, "axes")))
    values["arms"], values["items"] = _records(Arm, values, "arms"), _records(Item, values, "items")
    if isinstance(values.get("exclusion"), Mapping):
        values["exclusion"] = parse_record(ExclusionRules, values["exclusion"], "exclusion")
    return parse_record(_StudyRow, values, "study").study(root)


def save_study(study: Study, path: Path | str) -> None:
    """Write the study so that `load_study` gives it back with the same digest; json for .json, else yaml."""
    path = Path(path)
    if path.suffix == ".json":
        write_atomically(path, json.dumps(study.to_dict(), indent=1, ensure_ascii=False) + "\n")
    else:
        write_atomically(
            path, yaml.safe_dump(study.to_dict(), sort_keys=False, allow_unicode=True, width=110)
        )


@dataclass(frozen=True)
class _StudyRow:
    """The keys of a study file."""

    id: str
    title: str
    axes: tuple
    arms: tuple
    items: tuple
    seed: int = 0
    instructions: str = ""
    consent: str = ""
    exclusion: ExclusionRules = ExclusionRules()
    level: int | None = None

    def study(self, root: Path) -> Study:
        return Study(**self.__dict__, root=root)


def _rows(values: Mapping[str, Any], key: str) -> list[Any]:
    rows = values.get(key, [])
    if not isinstance(rows, list):
        raise ValueError(f"{key} is {type(rows).__name__}; expected a list")
    return rows


def _records(cls: type[Row], values: Mapping[str, Any], key: str) -> tuple[Row, ...]:
    found = []
    for number, row in enumerate(_rows(values, key)):
        place = f"{key}[{number}]"
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: is {row!r}; expected a mapping")
        found.append(parse_record(cls, row, place))
    return tuple(found)


def _axis(row: Any, where: str) -> Axis:
    """An axis written out, or the key of one of the paper's, alone or with another number of raters."""
    if isinstance(row, str):
        row = {"key": row}
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: is {row!r}; expected a key or a mapping")
    known = AXES.get(row.get("key", ""))
    if "question" not in row and known is None:
        raise ValueError(f"{where}: {row.get('key')!r} has no question and is none of {', '.join(AXES)}")
    return parse_record(Axis, {**(asdict(known) if known else {}), **row}, where)


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.load(read_text(path), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}: is not yaml ({getattr(error, 'problem', error)}{line})") from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe loading that refuses a key given twice, of which yaml would keep the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} twice", problem_mark=key_node.start_mark)
            seen.add(key if isinstance(key, str) else id(key))
        return super().construct_mapping(node, deep)
