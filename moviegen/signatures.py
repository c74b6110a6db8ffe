"""What a config may say about a target: find it, list its parameters, hold a value against an annotation."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import types
import typing
from collections import abc
from pathlib import Path
from typing import Any


def locate(dotted: str) -> Any:
    """Import a class or function by its dotted name. A module's imports cannot be reached through it.

    Raises AttributeError or ImportError when there is none of that name, or when it is something else.
    """
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
            continue
        for part in parts[cut:]:
            if inspect.ismodule(found) and inspect.ismodule(getattr(found, part, None)):
                raise AttributeError(f"{dotted} reaches through the module {part}")
            found = getattr(found, part)
        if not (inspect.isclass(found) or inspect.isroutine(found)):
            raise AttributeError(f"{dotted} is neither a class nor a function")
        return found
    raise ImportError(f"no module named {parts[0]}")


def parameters(target: Any) -> tuple[list[str], dict[str, Any], bool]:
    """Parameter names of a class or function, their type hints, and whether it takes any further keyword."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # a builtin without a signature
        return [], {}, True
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    is_open = inspect.Parameter.VAR_KEYWORD in kinds.values()
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that exist for the type checker only
        hints = {}
    return [name for name, kind in kinds.items() if kind not in variadic], hints, is_open


def convert(value: Any, hint: Any) -> Any:
    """The value as its annotation wants it: int to float, list to tuple, str to Path or to an enum's member.

    A node with `_target_` is left as it is, whatever the annotation; a plain mapping where a dataclass is
    wanted becomes the node of that dataclass. Raises TypeError with what was expected.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if _is_anything(value, hint):
        return value
    if origin is typing.Annotated:
        return convert(value, args[0])
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, args)
    if origin is typing.Literal:
        if value in args:
            return value
        raise TypeError(f"expected one of {', '.join(map(str, args))}")
    if (origin or hint) in _CONTAINERS:
        return _convert_container(value, origin or hint, args)
    return _convert_simple(value, hint)


def _is_anything(value: Any, hint: Any) -> bool:
    if hint is Any or hint is object or hint is inspect.Parameter.empty or isinstance(hint, typing.TypeVar):
        return True
    return isinstance(value, dict) and "_target_" in value


def _convert_union(value: Any, hint: Any, args: tuple[Any, ...]) -> Any:
    exact = [arg for arg in args if type(value) is arg or (value is None and arg is type(None))]
    for arg in exact or args:
        try:
            return convert(value, arg)
        except TypeError:
            continue
    raise TypeError(f"expected {_name(hint)}, not {_kind(value)}")


_SEQUENCES = {list, tuple, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection}
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}
_CONTAINERS = _SEQUENCES | _MAPPINGS


def _convert_container(value: Any, kind: Any, args: tuple[Any, ...]) -> Any:
    if kind in _MAPPINGS:
        if not isinstance(value, dict):
            raise TypeError(f"expected a mapping, not {_kind(value)}")
        return {key: convert(item, args[1] if len(args) == 2 else Any) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list, not {_kind(value)}")
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise TypeError(f"expected {len(args)} values, not {len(value)}")
        return tuple(convert(item, arg) for item, arg in zip(value, args, strict=True))
    items = [convert(item, args[0] if args else Any) for item in value]
    return tuple(items) if kind is tuple else items


def _convert_simple(value: Any, hint: Any) -> Any:
    if isinstance(value, dict) and inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        return {"_target_": f"{hint.__module__}.{hint.__qualname__}", **value}
    if isinstance(value, bool) and hint in (int, float):  # bool is a subclass of int
        raise TypeError(f"expected {_name(hint)}, not {_kind(value)}")
    if hint is float and isinstance(value, int | float):
        return float(value)
    if inspect.isclass(hint) and isinstance(value, str | Path):
        if issubclass(hint, enum.Enum) and value in hint.__members__:
            return hint[str(value)]
        if issubclass(hint, Path):
            return Path(value)
    if _fits(value, hint):
        return value
    raise TypeError(f"expected {_name(hint)}, not {_kind(value)}")


def _fits(value: Any, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if not inspect.isclass(hint) or getattr(hint, "_is_protocol", False) or hint is abc.Callable:
        return not isinstance(value, bool | int | float | str)  # only a node can build one
    return isinstance(value, hint)


_PLAIN = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
_PLAIN |= {list: "a list", tuple: "a list", dict: "a mapping"}


def _kind(value: Any) -> str:
    return _PLAIN.get(type(value), type(value).__name__)


def _name(hint: Any) -> str:
    args = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_name(arg) for arg in args)
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, args))}"
    if hint is Path:
        return "a path"
    if hint in _PLAIN:
        return _PLAIN[hint]
    if inspect.isclass(hint):
        return f"a `_target_` node that builds {hint.__name__}" if not issubclass(hint, enum.Enum) else (
            "one of " + ", ".join(hint.__members__)
        )  # fmt: skip
    return str(hint)
