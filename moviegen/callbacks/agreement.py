"""Decisions that all ranks take together."""

from __future__ import annotations

import lightning.pytorch as L
import torch
import torch.distributed as dist


def agreed(trainer: L.Trainer, *flags: bool) -> tuple[bool, ...]:
    """Each flag, true where any rank has it so; all ranks must ask together."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flags
    values = torch.tensor(flags, dtype=torch.int32, device=trainer.strategy.root_device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return tuple(bool(value) for value in values.tolist())
