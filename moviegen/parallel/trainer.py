"""What a trainer says of the layout that it runs on, for callers who need not import the strategy."""

from __future__ import annotations

from typing import Any


def data_parallel(trainer: Any) -> tuple[int, int]:
    """Which share of the samples a process takes, and of how many: each process its own, where there is no mesh."""
    found = getattr(trainer.strategy, "data_parallel", None)
    return found if found is not None else (trainer.global_rank, trainer.world_size)


def is_sharded(trainer: Any) -> bool:
    """Whether no process can run the model alone: all must sample, gather and save together."""
    return getattr(trainer.strategy, "plan", None) is not None
