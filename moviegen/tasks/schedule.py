"""Learning-rate factors by step, for `torch.optim.lr_scheduler.LambdaLR`."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then a half cosine down to `final` times the rate at `total_steps`."""

    warmup_steps: int
    total_steps: int
    final: float = 0.05

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class WarmupLinear:
    """Linear warm-up, then linear down to `final` times the rate at `total_steps` (paper 6: finetuning of sound)."""

    warmup_steps: int
    total_steps: int
    final: float = 1e-4

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 1 + (self.final - 1) * min(1.0, progress)


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then constant (paper Table 3 keeps each stage's rate)."""

    warmup_steps: int = 1

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))


class DropOnPlateau:
    """Linear warm-up, then constant, multiplied by `factor` whenever the held-out loss has stopped falling.

    The paper halves the rate at 768 px when the validation loss plateaus, and each cut makes it fall again (3.2.2). Its
    state (best loss, waits, present scale) is in the checkpoint, from where `callbacks.states` puts it back.

    Args:
        warmup_steps: of the warm-up.
        factor: of each drop.
        patience: validations without improvement before a drop.
        threshold: share of the best loss by which a lower one counts as improvement.
        final: the rate drops no further than this share of the first.
    """

    STATE = (
        "best",
        "waited",
        "scale",
    )  # of its attributes; the others are settings, which a resumed run may change

    def __init__(
        self,
        warmup_steps: int = 1,
        factor: float = 0.5,
        patience: int = 3,
        threshold: float = 1e-3,
        final: float = 0.01,
    ):
        if not 0 < factor < 1 or patience < 1 or not 0 <= threshold < 1 or not 0 < final <= 1:
            stated = f"factor {factor}, patience {patience}, threshold {threshold}, final {final}"
            raise ValueError(f"factor and final lie in (0, 1), patience is at least 1, not {stated}")
        self.warmup_steps, self.factor, self.patience = warmup_steps, factor, patience
        self.threshold, self.final = threshold, final
        self.best, self.waited, self.scale = math.inf, 0, 1.0

    def __call__(self, step: int) -> float:
        return self.scale * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def observe(self, loss: float) -> None:
        """Take in the loss of one validation."""
        if loss < self.best * (1 - self.threshold):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.scale, self.waited = max(self.final, self.scale * self.factor), 0
