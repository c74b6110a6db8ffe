"""Keep what an interrupted or finished run has learned: write the last checkpoint when training stops."""

from __future__ import annotations

import lightning.pytorch as L


class SaveAtEnd(L.Callback):
    """Write `path` after the last step, and on Ctrl-C."""

    def __init__(self, path: str):
        self.path = path

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        trainer.save_checkpoint(self.path)

    def on_exception(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002
        exception: BaseException,
    ) -> None:
        if isinstance(exception, KeyboardInterrupt) and trainer.global_step > 0:
            trainer.save_checkpoint(self.path)
