"""Training checkpoints: read whole and held against a task, or refused in one line before anything is written."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from moviegen.config import UserError
from moviegen.modelfile import check_architecture
from moviegen.tasks.base import Task

PARTS = ("state_dict", "callbacks", "global_step")  # what export reads; Lightning writes more


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What training saved, all tensors on the CPU; raises UserError for a damaged file or one of another kind.

    Its checksums are compared first, which torch does not do: a flipped bit would be trained on.
    """
    try:
        with zipfile.ZipFile(path) as file:
            wrong = file.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged bytes raise whatever the readers stumble over
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{path} is no readable checkpoint ({reason}); delete it to train anew, or use another run_dir"
        ) from error
    missing = [part for part in PARTS if not isinstance(saved, dict) or part not in saved]
    if missing:
        raise UserError(
            f"{path} is no checkpoint of moviegen train: it holds no {missing[0]}; "
            "delete it to train anew, or use another run_dir"
        )
    return saved


def check_checkpoint(path: Path, task: Task) -> dict[str, Any]:
    """Read a checkpoint and return it; raises UserError if it is unreadable or the task's tensors differ from its."""
    saved = read_checkpoint(path)
    check_architecture(saved["state_dict"], task.state_dict(), str(path), "use another run_dir")
    return saved


def check_optimizers(saved: dict[str, Any], task: Task, path: Path) -> None:
    """Raise UserError if the task's optimizers are of another kind than those whose state was saved."""
    optimizers = _optimizers(task.configure_optimizers())
    made = [_layout(optimizer.state_dict()) for optimizer in optimizers]
    if made != [_layout(state) for state in saved.get("optimizer_states", [])]:
        names = " and ".join(type(optimizer).__name__ for optimizer in optimizers)
        raise UserError(
            f"{path} was written with another optimizer than {names}; "
            f"choose the one in {path.parents[1] / 'config.yaml'}, or another run_dir"
        )


def _layout(state: dict[str, Any]) -> list[tuple[int, frozenset[str]]]:
    """Of each parameter group: how many tensors it has, and the names of its settings."""
    return [(len(group["params"]), frozenset(group) - {"params"}) for group in state["param_groups"]]


def _optimizers(configured: Any) -> list[torch.optim.Optimizer]:
    """The optimizers in what `configure_optimizers` returns."""
    if isinstance(configured, torch.optim.Optimizer):
        return [configured]
    each = [configured] if isinstance(configured, dict) else configured
    return [one["optimizer"] for one in each]
