"""Keep what an interrupted or finished run has learned: stop between two steps and write the last checkpoint."""

from __future__ import annotations

import functools
import os
import signal
import threading
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveAtEnd(Checkpoint):
    """Write `path` after the last step, on Ctrl-C and on SIGTERM.

    Either ends training with the step that is under way; during validation at once, or after its batch where several
    ranks must agree. Ctrl-C twice ends training at once and leaves the checkpoint before this step as it is.

    Lightning calls a `Checkpoint` after all other callbacks, wherever a config names it: the averaged weights are up
    to date, and out of the model, before this one writes.
    """

    def __init__(self, path: str):
        self.path = path
        self._asked = False  # Ctrl-C was given
        self._terminated = False  # SIGTERM came
        self._whole = False  # weights, optimizer and progress are of the same step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._asked, self._terminated, self._whole = False, False, True
        # where a shell has Ctrl-C ignored, it stays so; Lightning's teardown puts the handler before this one back
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and _in_main_thread():
            signal.signal(signal.SIGINT, functools.partial(self._interrupt, trainer))
        # not Lightning's, under which ranks that are all told at once may end after different steps and wait for ever
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN and _in_main_thread():
            signal.signal(signal.SIGTERM, functools.partial(self._terminate, trainer))

    def _interrupt(self, trainer: L.Trainer, *signal_and_frame: Any) -> None:
        if self._asked:
            self._whole = False  # and if it were, the other ranks might not come to save it
            signal.default_int_handler(*signal_and_frame)
        if not trainer.training and trainer.world_size == 1:
            signal.default_int_handler(*signal_and_frame)
        self._asked = True
        if trainer.is_global_zero:  # not by print: the signal may have come within one
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")

    def _terminate(self, trainer: L.Trainer, *signal_and_frame: Any) -> None:  # noqa: ARG002
        self._terminated = True
        if not trainer.training and trainer.world_size == 1:
            raise SIGTERMException

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        """Raise on all ranks if one of them was asked to stop: they save together."""
        agreed = functools.partial(trainer.strategy.reduce_boolean_decision, all=False)
        if agreed(self._asked or self._terminated):
            raise SIGTERMException if agreed(self._terminated) else KeyboardInterrupt

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self._whole = False

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._whole = True
        self._stop_if_asked(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        trainer.save_checkpoint(self.path)

    def on_exception(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        exception: BaseException,
    ) -> None:
        asked = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if asked and self._whole and trainer.global_step > 0:
            trainer.save_checkpoint(self.path)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
