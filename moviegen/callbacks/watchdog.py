"""A training that hangs says where, and ends, so that whoever started it can start it again."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path
from typing import Any, TextIO

import lightning.pytorch as L


class Watchdog(L.Callback):
    """Where no step ends for `seconds`, write the stacks of all threads to a file, and end the process.

    The clock is Python's faulthandler, a thread outside the interpreter: it also runs while a library holds the
    interpreter's lock. With several ranks each has its own; the one that all others wait for shows another stack. A
    process that was stopped (SIGSTOP) for longer counts as one that hung.

    Args:
        folder: of the files `stacks-rank-00000.txt`; one that stayed empty is removed.
        seconds: must cover the longest of a step, a validation batch, the samples of a validation and a save.
        end: end the process (exit code 1), or go on waiting.
    """

    def __init__(self, folder: str, seconds: float = 1800.0, end: bool = True):
        if seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {seconds}")
        self.folder, self.seconds, self.end = Path(folder), seconds, end
        self._file: TextIO | None = None

    def _live(self) -> None:
        if self._file is not None:
            faulthandler.dump_traceback_later(
                self.seconds, repeat=not self.end, file=self._file, exit=self.end
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"stacks-rank-{trainer.global_rank:05d}.txt"
        self._file = path.open("w", encoding="utf-8")
        self._live()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self._live()

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        self._live()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        self._live()

    def on_validation_end(self, *_: Any, **__: Any) -> None:
        self._live()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._live()  # a last checkpoint is written after this

    def on_fit_end(self, *_: Any, **__: Any) -> None:
        self.close()

    def on_exception(
        self,
        trainer: L.Trainer,  # noqa: ARG002
        pl_module: L.LightningModule,  # noqa: ARG002
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        self._live()  # saving, and waiting for ranks that may be gone, may hang as well; the process ends soon

    def close(self) -> None:
        """Stop the clock; whoever calls `fit` does so where it failed."""
        faulthandler.cancel_dump_traceback_later()
        if self._file is None:
            return
        path = Path(self._file.name)
        self._file.close()
        self._file = None
        if path.stat().st_size == 0:
            path.unlink()
        else:
            sys.stderr.write(f"a step took longer than {self.seconds:g} s: see {path}\n")
