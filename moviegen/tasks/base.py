"""What both tasks share: optimizer and schedule, and the rule that frozen parts stay out of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from moviegen.fields import Field
from moviegen.types import Batch

OptimizerFactory = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[int], float]


class NotFiniteError(ArithmeticError):
    """A loss that is no number; raised before any weight is touched."""

    @classmethod
    def check(cls, losses: Tensor, batch: Batch, step: int) -> None:
        """Raise for the first of the losses [B] that is not finite, naming its sample."""
        finite = losses.isfinite()
        if not bool(finite.all()):
            index = int((~finite).nonzero()[0])
            name = batch.names[index] if batch.names else f"number {index} of the batch"
            raise cls(
                f"step {step}: the loss of sample {name} is {losses[index].item()}; no weight was changed"
            )


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

    @property
    def training_parts(self) -> tuple[str, ...]:
        """Submodules that only training needs: in checkpoints, but not in the exported model."""
        return ()

    def exported(self) -> dict[str, Tensor]:
        """The state of the model without its training parts."""
        parts = tuple(f"{part}." for part in self.training_parts)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(parts)}

    def adopted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model that this task starts from, made to fit where it has more inputs; others as they are."""
        return weights

    def configure_optimizers(self) -> Any:
        if self.optimizer_factory is None:
            raise ValueError("this task was built without an optimizer; give one to train it")
        return self._scheduled(self.optimizer_factory([p for p in self.parameters() if p.requires_grad]))

    def _scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        """An optimizer with this task's schedule, as Lightning takes it."""
        if self.schedule is None:
            return {"optimizer": optimizer}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
