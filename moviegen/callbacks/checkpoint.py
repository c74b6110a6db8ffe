"""Checkpoints of a training that loses nothing: sharded, in the background, whole or not there, restored bit by bit.

Lightning's own are written by one call in one process, inside a signal handler under SLURM, and unpickled when they are
read. This callback needs nothing of the strategy but tensors, so one format serves one process, DDP and any mesh.
"""

from __future__ import annotations

import logging
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from moviegen.callbacks import states
from moviegen.callbacks.agreement import agreed
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import CheckpointError, read_manifest
from moviegen.callbacks.preemption import Abandoned
from moviegen.callbacks.storage import Writer, cause, load, save, save_in_background

log = logging.getLogger(__name__)
UNHAPPY_SECONDS = (
    60  # how long a failed run waits for a save in the background that its failure may have broken
)


class Checkpoints(Checkpoint):
    """Save every so many steps, at the end, and where training is stopped between two steps; go on from `latest`.

    A checkpoint of the same layout continues bit by bit: weights, averages, optimizers, random numbers, samples. On
    other layouts the tensors are sharded anew, and samples and their noise stay the same, for they belong to the step.
    The random numbers of training are a stream of their own, which validation and loaders do not disturb. A validation
    that was due at the step, and not over when the checkpoint was written, is run whole before training goes on.

    Lightning calls a `Checkpoint` after all other callbacks, wherever a config names it: averaged weights are up to
    date, and out of the model, before this one writes.

    Args:
        folder: where they lie (`folders.Folders`).
        every_n_train_steps: the most steps that a crash loses. In the foreground one is saved every so many steps.
        keep: how many of the newest stay.
        background: write while training goes on, from a copy of the state in host memory; a crash loses the steps of
            that time as well. So one is begun twice in every_n_train_steps, and is on the disk before the next is
            begun: training waits for a disk that takes longer. Every single step is saved in the foreground.
    """

    def __init__(self, folder: str, every_n_train_steps: int = 200, keep: int = 2, background: bool = True):
        if every_n_train_steps < 1 or keep < 1:
            raise ValueError(
                f"every_n_train_steps and keep must be at least 1, got {every_n_train_steps} and {keep}"
            )
        self.folders = Folders(Path(folder), keep)
        self.background = background and every_n_train_steps > 1
        self._begins = 2 if self.background else 1, every_n_train_steps  # so many in so many steps
        self.resumed: Path | None = None  # what this run went on from
        self.saved_step = -1  # of the newest checkpoint on the disk
        self._group: dist.ProcessGroup | None = None
        self._pending: tuple[int, Future] | None = None
        self._rng: dict[str, Tensor] = {}
        self._begun = 0  # global step when the batch began
        self._whole = False  # weights, optimizer and progress are of the same step

    # -- the training's hooks

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if dist.is_initialized():  # a group of its own: saves in the background talk beside the training
            self._group = dist.new_group(backend="gloo")  # type: ignore[assignment]
        self._restore(trainer, pl_module)
        if trainer.is_global_zero:
            self.folders.clean()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._whole = True
        if self.resumed is not None:
            states.validate_first(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._whole, self._begun = False, trainer.global_step
        if self._rng:
            states.set_rng_state(self._rng)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        self._rng = states.rng_state()
        step = trainer.global_step
        self._whole = step > self._begun  # not within an accumulation of gradients
        self._check_pending(trainer, pl_module)
        count, steps = self._begins
        if self._whole and count * step // steps > count * self._begun // steps:
            self.save(trainer, pl_module, self.background)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_last(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if stopped and not isinstance(exception, Abandoned) and self._whole and trainer.global_step > 0:
            self._save_last(trainer, pl_module)
        elif self._pending is not None:
            try:
                self._pending[1].exception(timeout=UNHAPPY_SECONDS)
            except TimeoutError:
                log.warning("the checkpoint of step %s was not finished", self._pending[0])

    # -- saving

    def save(self, trainer: L.Trainer, pl_module: L.LightningModule, background: bool = False) -> None:
        """Write a checkpoint of this step; all ranks together. Raises what the writing raised, on all ranks.

        After one in the background that failed, this one is written in the foreground: a second failure ends the run.
        """
        background = self._finished() and background
        tensors, state = states.collect(trainer, pl_module)
        rank, _ = states.rank_and_world()
        tensors |= {f"rng/{rank}/{name}": value for name, value in (self._rng or states.rng_state()).items()}
        step = trainer.global_step
        writer = Writer(self.folders, step, state)
        if background:
            self._pending = (step, save_in_background(tensors, writer, self._group))
        else:
            save(tensors, writer, self._group)
            self.saved_step = step

    def _save_last(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What is under way is finished; if it was of this step, there is nothing more to write."""
        self._finished()
        if self.saved_step != trainer.global_step:
            self.save(trainer, pl_module)

    def _check_pending(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take notice of a save in the background that ended, on all ranks in one step; write again if it failed."""
        if self._pending is None:
            return
        future = self._pending[1]
        going, failed = agreed(trainer, not future.done(), future.done() and future.exception() is not None)
        if going:
            return
        if failed and self._whole:
            self.save(trainer, pl_module)
        elif not failed:
            self._finished()

    def _finished(self) -> bool:
        """Wait for a save in the background; whether it went well, on all ranks alike, or there was none."""
        if self._pending is None:
            return True
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except CheckpointException as error:
            log.warning(
                "the checkpoint of step %s failed (%s); this step's is written instead", step, cause(error)
            )
            return False
        self.saved_step = step
        return True

    # -- going on

    def _restore(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the latest checkpoint, or the newest that is whole; CheckpointError if all are damaged."""
        found, errors = [self.folders.candidates()], []
        if self._group is not None:  # the first rank's view: folders of a network appear late on some
            dist.broadcast_object_list(found, group=self._group)
        for folder, sha256 in found[0]:
            try:
                self._load(trainer, pl_module, folder, sha256)
            except CheckpointError as error:
                errors.append(error)
                if trainer.is_global_zero:
                    sys.stderr.write(f"warning: {error}\n")
                continue
            self.resumed, self.saved_step = folder, trainer.global_step
            if errors and trainer.is_global_zero:
                sys.stderr.write(f"warning: going on from {folder}, the newest checkpoint that is whole\n")
            return
        if errors:
            raise errors[0]

    def _load(
        self, trainer: L.Trainer, pl_module: L.LightningModule, folder: Path, sha256: str | None
    ) -> None:
        rank, world = states.rank_and_world()
        manifest, tensors, error = None, {}, None
        try:
            manifest = read_manifest(folder, sha256)
            tensors = states.targets(trainer, pl_module, manifest.tensors, rank)
        except CheckpointError as found:
            error = found
        if agreed(trainer, error is not None)[0] or manifest is None:  # or some ranks would load alone
            raise error or CheckpointError(f"{folder} cannot be read by all ranks")
        load(tensors, folder, manifest, self._group)
        states.restore(trainer, pl_module, manifest.state, tensors)
        own = {name.removeprefix(f"rng/{rank}/"): t for name, t in tensors.items() if name.startswith("rng/")}
        if manifest.num_ranks == world and own:
            self._rng = own
        else:
            states.seed_anew(getattr(pl_module, "seed", 0), manifest.step, rank)
            self._rng = states.rng_state()
