"""Stopping between two steps: a signal sets a flag, all ranks agree, and the run ends after the same step everywhere.

Nothing is saved in a signal handler: a handler may run in the middle of a backward pass, and what it waits for may be
what it has interrupted. `Checkpoints` writes the state on the exception that is raised here, between two steps.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from moviegen.callbacks.agreement import agreed

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # of schedulers, which mean the same by them


class Preempted(SIGTERMException):
    """The run was told to go, and has; `exit_code` is 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.signal, self.exit_code = signal.Signals(number), 128 + number


class Abandoned(KeyboardInterrupt):
    """Ctrl-C for the second time: nothing is saved, for the other ranks might not come to save."""


class Preemption(Checkpoint):
    """End training with the step that is under way on Ctrl-C, and on SIGTERM, SIGUSR1 or SIGUSR2 to any rank.

    During validation it ends at once, or after its batch where several ranks must agree; they finish a validation whose
    last batch is over, and one more step. Ctrl-C twice ends training at once and leaves the checkpoint before this step
    as it is. A second signal of a scheduler changes nothing.

    A `Checkpoint`, so that it is called after all other callbacks; in a config it stands after `Checkpoints`, which so
    has written the state when `requeue` is called.

    Args:
        requeue: called by the first rank once the state is saved, where a scheduler has asked for the place, not
            after Ctrl-C; `callbacks.requeue` may hold one for a scheduler. None: the same command goes on later.
    """

    def __init__(self, requeue: Callable[[], None] | None = None):
        self.requeue = requeue
        self._interrupted = False
        self._signal = 0  # the number of the first that came
        self._begun = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._interrupted, self._signal = False, 0
        if threading.current_thread() is not threading.main_thread():
            return
        # where a shell has Ctrl-C ignored, it stays so; Lightning's teardown puts the handlers before these back
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, functools.partial(self._interrupt, trainer))
        # not Lightning's, which under SLURM saves within the handler, and else may stop ranks after different steps
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, functools.partial(self._told_to_go, trainer))

    def _interrupt(self, trainer: L.Trainer, *signal_and_frame: Any) -> None:
        if self._interrupted:
            raise Abandoned
        if not trainer.training and trainer.world_size == 1:
            signal.default_int_handler(*signal_and_frame)
        self._interrupted = True
        if trainer.is_global_zero:  # not by print: the signal may have come within one
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    def _told_to_go(self, trainer: L.Trainer, number: int, *_: Any) -> None:
        if self._signal:
            return
        self._signal = number
        if not trainer.training and trainer.world_size == 1:
            raise Preempted(number)

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        """Raise on all ranks if one of them was asked to stop: they save together."""
        asked = (self._signal == number for number in SIGNALS)
        interrupted, *told = agreed(trainer, self._interrupted, *asked)
        for number, one in zip(SIGNALS, told, strict=True):
            if one:
                raise Preempted(number)
        if interrupted:
            raise KeyboardInterrupt

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._begun = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step > self._begun:  # not within an accumulation of gradients
            self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._stop_if_asked(trainer)

    def on_exception(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        exception: BaseException,
    ) -> None:
        if isinstance(exception, Preempted) and self.requeue is not None and trainer.is_global_zero:
            self.requeue()
