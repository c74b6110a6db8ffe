"""What both tasks share: optimizer and schedule, and the rule that frozen parts stay out of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch

from moviegen.fields import Field

OptimizerFactory = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[int], float]


class Task(L.LightningModule):
    """A model with its objective. Built without an optimizer, it is a model to sample from.

    Subclasses give `fields`, `training_step` and `validation_step`.
    """

    def __init__(
        self, optimizer: OptimizerFactory | None = None, schedule: Schedule | None = None, seed: int = 0
    ):
        super().__init__()
        self.optimizer_factory, self.schedule, self.seed = optimizer, schedule, seed

    @property
    def fields(self) -> dict[str, Field]:
        """The files of a sample that training reads: "media" and one per condition."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        if self.optimizer_factory is None:
            raise ValueError("this task was built without an optimizer; give one to train it")
        optimizer = self.optimizer_factory([p for p in self.parameters() if p.requires_grad])
        if self.schedule is None:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
