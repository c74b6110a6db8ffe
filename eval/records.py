"""Strict conversion of JSON objects to frozen dataclasses: no missing, unknown or mistyped key passes."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def parse_record(cls: type[Record], row: Mapping[str, Any], where: str) -> Record:
    """Build the dataclass `cls` from `row`; a ValueError starts with `where` and names the key at fault."""
    hints = get_type_hints(cls)
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in row:
        if key not in hints:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r}; {hint}")
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name not in row:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{where}: key {field.name!r} is missing; expected {', '.join(known)}")
            continue
        value = row[field.name]
        if not _fits(value, hints[field.name]):
            expected = _describe(hints[field.name])
            raise ValueError(f"{where}: key {field.name!r} is {value!r}; expected {expected}")
        values[field.name] = value
    return cls(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the annotated type; an int passes for a float, a bool for neither."""
    if hint is Any:
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in args)
    if origin is Literal:
        return value in args
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items()
        )
    if origin is list:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    args = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in args)
    return "null" if hint is types.NoneType else str(getattr(hint, "__name__", hint) if not args else hint)
