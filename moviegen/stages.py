"""Stages of one recipe: each starts from the output of the one before, and no other model will do (paper 3.2.2).

A stage is a config with a name, `stage`, and the name of the stage `after` which it comes. Its model and its
checkpoints carry the name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moviegen.backbone.positions import grown
from moviegen.config import UserError
from moviegen.modelfile import load_weights, locate
from moviegen.tasks.base import Task


def start_from(task: Task, init_from: str | None, stage: str | None, after: str | None) -> None:
    """Load the weights that a run starts with, widened for conditions that they lack (`Task.adopted`).

    With `after` they must be that stage's output, and their position tables grow. Raises UserError where they are not.
    """
    check_parent(init_from, stage, after)
    if after is not None and init_from:
        load_weights(task, init_from, fit=lambda weights: task.adopted(grown(weights, task.exported())))
    elif init_from:
        load_weights(task, init_from, fit=task.adopted)


def check_parent(init_from: str | None, stage: str | None, after: str | None) -> None:
    """Raise UserError where the model to start from is missing, or is not the output of the stage `after`.

    Reads no weight, so that a wrong one is refused before a large model is built.
    """
    if after is None:
        if init_from:
            locate(init_from)
        return
    name = stage or "this run"
    if not init_from:
        raise UserError(f"{name} starts from the output of {after}: give its model as init_from=...")
    try:
        file = locate(init_from)
    except UserError as error:
        raise UserError(f"{name} starts from the output of {after}, train that first: {error}") from None
    found = _stage_of(file.with_name(file.name + ".json"))
    if found != after:
        raise UserError(
            f"{init_from} is the output of {found or 'no stage'}; {name} starts from that of {after}"
        )


def _stage_of(file: Path) -> str | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["info"].get("stage")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def check_stage(saved: dict[str, Any], stage: str | None, path: Path) -> None:
    """Raise UserError if a checkpoint that a run would go on from is of another stage."""
    found = saved.get("stage")
    if found != stage:
        raise UserError(
            f"{path} is a checkpoint of {found or 'no stage'}, this run is {stage or 'no stage'}: use another run_dir"
        )
