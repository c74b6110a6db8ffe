"""Stages of one recipe: each starts from the output of the one before, and no other model will do (paper 3.2.2).

A stage is a config with a name, `stage`, and the name of the stage `after` which it comes. Its model and its
checkpoints carry the name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from moviegen.backbone.positions import grown
from moviegen.conditioning.editing import OfTask
from moviegen.config import UserError
from moviegen.modelfile import Weights, condition_nodes, load_weights, locate
from moviegen.tasks.base import Task


def start_from(
    task: Task, init_from: str | None, stage: str | None, after: str | None, frozen: bool = False
) -> None:
    """Load the weights that a run starts with, widened for conditions and edit tasks that they lack (`Task.adopted`).

    With `after` they must be that stage's output, and their position tables grow. Raises UserError where they are not,
    and, where they stay `frozen` beside an adapter, if any of them had to be added or changed.
    """
    check_parent(init_from, stage, after)
    if not init_from:
        return

    def fit(weights: Weights) -> Weights:
        own = with_tasks(weights, task, str(init_from))
        found = task.adopted(own if after is None else grown(own, task.exported()))
        if frozen:
            _check_own(weights, found, init_from)
        return found

    load_weights(task, init_from, fit=fit)


def with_tasks(weights: Weights, task: Task, path: str) -> Weights:
    """Weights of the model at `path` with a row for each of a task's edit tasks: that of its name, else a new one."""
    result, nodes = dict(weights), condition_nodes(path)
    for name, module in task.named_modules():
        known = nodes.get(name.rpartition(".")[2], {}).get("tasks")
        table = weights.get(f"{name}.table.weight")
        if isinstance(module, OfTask) and table is not None and known and len(known) == len(table):
            own = [row.detach().to(table) for row in module.table.weight]
            rows = [table[known.index(one)] if one in known else own[i] for i, one in enumerate(module.tasks)]
            result[f"{name}.table.weight"] = torch.stack(rows)
    return result


def _check_own(weights: Weights, fitted: Weights, path: str) -> None:
    """Raise UserError for a model whose weights had to be made to fit: what is new in them would never be trained."""
    shapes = {name: list(value.shape) for name, value in weights.items()}
    new = [name for name, value in fitted.items() if shapes.get(name) != list(value.shape)]
    if new:
        there, here = shapes.get(new[0], "absent"), list(fitted[new[0]].shape)
        raise UserError(
            f"{path} is no base for this adapter, which trains none of the model's own weights: {new[0]} is {there} "
            f"there and {here} here; finetune it without adapter first, and give that model as init_from=..."
        )


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
