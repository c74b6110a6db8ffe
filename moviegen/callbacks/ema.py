"""Exponential moving average of the weights: used for validation, samples and export, kept in the checkpoint."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from moviegen.callbacks.states import plain_name


class EMA(L.Callback):
    """Average every trained parameter after each optimizer step, sharded parameters on their own shards.

    The checkpoint holds them as it holds weights, so that a run may go on with other shards, or with none. The decay
    warms up as (1 + n) / (10 + n) towards `decay`, so that short runs do not average their start.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}")
        self.decay, self.updates = decay, 0
        self.average: dict[str, Tensor] = {}
        self._parked: dict[str, Tensor] = {}

    @staticmethod
    def _parameters(module: L.LightningModule) -> dict[str, Tensor]:
        parts = tuple(f"{part}." for part in getattr(module, "training_parts", ()))
        named = {plain_name(name): p for name, p in module.named_parameters() if p.requires_grad}
        return {name: p.detach() for name, p in named.items() if not name.startswith(parts)}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        # a checkpoint's averages are read into these (callbacks.states)
        self.average = {name: p.clone() for name, p in self._parameters(pl_module).items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step and not self.updates:  # the run that goes on here had no averages
            self.on_fit_start(trainer, pl_module)

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any = None,  # noqa: ARG002
        batch: Any = None,  # noqa: ARG002
        batch_idx: int = 0,  # noqa: ARG002
    ) -> None:
        if trainer.global_step <= self.updates:
            return
        self.updates = trainer.global_step
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = self._parameters(pl_module)
        torch._foreach_lerp_([self.average[name] for name in current], list(current.values()), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def swap_in(self, module: L.LightningModule) -> None:
        """Put the averages into the module; `swap_out` puts the trained weights back."""
        if self._parked or not self.average:
            return
        for name, parameter in self._parameters(module).items():
            self._parked[name] = parameter.clone()
            parameter.copy_(self.average[name])

    @torch.no_grad()
    def swap_out(self, module: L.LightningModule) -> None:
        """Undo `swap_in`."""
        for name, parameter in self._parameters(module).items():
            if name in self._parked:
                parameter.copy_(self._parked[name])
        self._parked = {}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self.swap_in(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self.swap_out(pl_module)

    def on_exception(
        self,
        trainer: L.Trainer,  # noqa: ARG002
        pl_module: L.LightningModule,
        exception: BaseException,  # noqa: ARG002
    ) -> None:
        # validation that is broken off must not leave the averages as trained weights
        self.swap_out(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Updates and averages, sharded ones as they are: every process gives its own part."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self.average = state_dict["updates"], state_dict["average"]
