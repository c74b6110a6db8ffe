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
class Constant:
    """Linear warm-up, then constant (paper Table 3 keeps each stage's rate)."""

    warmup_steps: int = 1

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))
