"""Training checkpoints held against a task, or refused in one line, before anything is written.

A small checkpoint is read whole here. A large one is not: its digests are compared where it is loaded, by all ranks
together, and only its manifest is read here.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moviegen.callbacks import states
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import CheckpointError, Manifest, read_manifest
from moviegen.callbacks.storage import load, verify
from moviegen.config import UserError
from moviegen.modelfile import check_architecture
from moviegen.tasks.base import Task

READ_WHOLE = 4 << 30  # bytes; some seconds of reading
ADVICE = "delete it to train anew, or use another run_dir"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that can be gone on from."""

    path: Path
    manifest: Manifest

    @property
    def stage(self) -> str | None:
        return self.manifest.state.get("more", {}).get("stage")


def resumable(folder: Path, task: Task) -> Saved | None:
    """The checkpoint in `folder` that a run goes on from: the latest, or the newest that is whole; None if it is empty.

    Raises UserError if there are damaged ones only, or ones of a former version, or if it is of another architecture,
    optimizer or schedule.
    """
    saved = _newest_whole(folder)
    if saved is not None:
        _check_model(saved, task)
        _check_optimizers(saved, task)
        _check_schedule(saved, task)
    return saved


def _newest_whole(folder: Path) -> Saved | None:
    folders = Folders(folder)
    candidates, errors = folders.candidates(), []
    if not candidates and (folder / "last.ckpt").is_file():
        raise UserError(
            f"{folder / 'last.ckpt'} was written by a former version of moviegen: use another run_dir"
        )
    for path, sha256 in candidates:
        try:
            manifest = read_manifest(path, sha256)
            if manifest.num_bytes <= READ_WHOLE:
                verify(path, sha256)
            return Saved(path, manifest)
        except CheckpointError as error:
            errors.append(error)
    if errors:
        raise UserError(f"there is no readable checkpoint: {errors[0]}; {ADVICE}") from errors[0]
    return None


def load_averages(run_checkpoints: Path, name: str, task: Task) -> Saved:
    """Put a checkpoint's weights into a task, the averaged ones where it has them; `name` may be "latest".

    Raises UserError where it is damaged, or of another model.
    """
    try:
        path, sha256 = Folders(run_checkpoints).named(name)
        saved = Saved(path, read_manifest(path, sha256))
        _check_model(saved, task)
        load(states.model_tensors(task), path, saved.manifest)
        averages = _averages(saved)
        own = {name: p.detach() for name, p in states.named_parameters(task).items()}
        load({where: own[name] for name, where in averages.items()}, path, saved.manifest)
    except CheckpointError as error:
        raise UserError(f"there is no readable checkpoint: {error}") from error
    return saved


def _averages(saved: Saved) -> dict[str, str]:
    """Averaged parameters by name, and where the checkpoint has them."""
    callbacks = saved.manifest.state.get("callbacks", {})
    found = next((state for key, state in callbacks.items() if key.startswith("EMA")), {"average": {}})
    return {states.plain_name(name): node["__tensor__"] for name, node in found["average"].items()}


def _check_model(saved: Saved, task: Task) -> None:
    theirs = {
        name.removeprefix(states.MODEL): torch.empty(entry.shape, device="meta")
        for name, entry in saved.manifest.tensors.items()
        if name.startswith(states.MODEL)
    }
    own = {states.plain_name(name): value for name, value in task.state_dict().items()}
    check_architecture(theirs, own, str(saved.path), "use another run_dir")


def _check_optimizers(saved: Saved, task: Task) -> None:
    """Raise UserError if the task's optimizers are of another kind than those whose state was saved."""
    optimizers = _optimizers(task.configure_optimizers())
    made = [[_layout(group) for group in optimizer.param_groups] for optimizer in optimizers]
    kept = [[_layout(group) for group in one["groups"]] for one in saved.manifest.state["optimizers"]]
    if made != kept:
        names = " and ".join(type(optimizer).__name__ for optimizer in optimizers)
        raise UserError(
            f"{saved.path} was written with another optimizer than {names}; "
            f"choose the one in {saved.path.parents[1] / 'config.yaml'}, or another run_dir"
        )


def _check_schedule(saved: Saved, task: Task) -> None:
    """Raise UserError if the task's schedule is of another kind than the one that the checkpoint is in the midst of."""
    theirs = saved.manifest.state["more"].get("schedule")
    if theirs not in (None, task.schedule_name):  # a former version did not say
        raise UserError(
            f"{saved.path} was written with another schedule, {theirs}, than {task.schedule_name}; "
            f"choose the one in {saved.path.parents[1] / 'config.yaml'}, or another run_dir"
        )


def _layout(group: dict[str, Any]) -> tuple[int, frozenset[str]]:
    """Of a parameter group: how many tensors it has, and the names of its settings."""
    return len(group["params"]), frozenset(group) - {"params", "initial_lr"}


def _optimizers(configured: Any) -> list[torch.optim.Optimizer]:
    """The optimizers in what `configure_optimizers` returns."""
    if isinstance(configured, torch.optim.Optimizer):
        return [configured]
    each = [configured] if isinstance(configured, dict) else configured
    return [one["optimizer"] for one in each]


def check_room(folder: Path, task: Task, keep: int) -> None:
    """Refuse an output folder that cannot be written, or a disk without room for the checkpoints of a task.

    Raises UserError that says how much is needed, and what would fit. Quotas are not seen.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {there} ({error.strerror}): give a run_dir in a folder that can be written"
        ) from error
    one = checkpoint_bytes(task)
    written = sum(file.stat().st_size for path in Folders(folder).whole() for file in path.iterdir())
    free = shutil.disk_usage(there).free
    if free + written < (keep + 1) * one:
        fits = (free + written) // one - 1
        instead = f"callbacks.checkpoint.keep={fits} fits" if fits >= 1 else "not even one fits"
        raise UserError(
            f"{there} has {_size(free)} free; a checkpoint takes {_size(one)}, and {keep + 1} are there at a time: "
            f"{instead}; make room, or give another run_dir"
        )


def checkpoint_bytes(task: Task) -> int:
    """About the size of a checkpoint: weights, their averages, and two values an optimizer keeps for each parameter."""
    model = sum(value.numel() * value.element_size() for value in task.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in task.parameters() if p.requires_grad)
    return model + 3 * trained


def _size(num_bytes: int) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1000  # type: ignore[assignment]
    return f"{num_bytes:.4g} GB"
