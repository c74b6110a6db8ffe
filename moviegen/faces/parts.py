"""Parts of a command that a `_target_` node describes, for the packages beside this one, which do not know Hydra."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

FINDERS = ("moviegen.faces.dlib_faces.DlibFaces", "moviegen.faces.insight_faces.InsightFaces")


def build_part(node: Any, names: Iterable[str]) -> Any:
    """Build a node and those inside it; ValueError for a `_target_` that is none of `names`, or a wrong setting."""
    if isinstance(node, list | tuple):
        return tuple(build_part(item, names) for item in node)
    if not isinstance(node, Mapping):
        return node
    values = {key: build_part(value, names) for key, value in node.items() if key != "_target_"}
    target = str(node.get("_target_"))
    if target not in names:
        raise ValueError(f"_target_ {target} is none of {', '.join(sorted(names))}")
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**values)
    except TypeError as error:
        raise ValueError(f"{target}: {error}") from None
