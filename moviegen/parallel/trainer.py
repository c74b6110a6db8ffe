"""What a trainer says of the layout that it runs on, for callers who need not import the strategy."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


def data_parallel(trainer: Any) -> tuple[int, int]:
    """Which share of the samples a process takes, and of how many: each process its own, where there is no mesh."""
    found = getattr(trainer.strategy, "data_parallel", None)
    return found if found is not None else (trainer.global_rank, trainer.world_size)


def is_sharded(trainer: Any) -> bool:
    """Whether no process can run the model alone: all must sample, gather and save together."""
    return getattr(trainer.strategy, "plan", None) is not None


def sampling_precision(trainer: Any) -> AbstractContextManager[None]:
    """The precision in which validation makes clips: that of training, where nothing else goes.

    So it is on a mesh, which gathers weights in the type of the products, and on a GPU, whose attention kernels may
    take no other. A process that has the whole model on a CPU works in full, as `moviegen generate` does there.
    """
    alone_on_cpu = trainer.strategy.root_device.type == "cpu" and not is_sharded(trainer)
    return nullcontext() if alone_on_cpu else trainer.precision_plugin.val_step_context()
