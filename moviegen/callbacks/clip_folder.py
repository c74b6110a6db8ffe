"""At the end of a contrastive training: its model as an open-clip folder, which text conditioners load."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as L

from moviegen.conditioning.clip import save_clip
from moviegen.tasks.contrastive_task import ContrastiveTask


class ClipFolder(L.Callback):
    """Write `folder` when training ends, with the weights as they were trained, not their average."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ContrastiveTask)
        if trainer.is_global_zero:
            save_clip(self.folder, pl_module.clip, pl_module.config)
