"""Lightning on our four axes: the strategy that builds the mesh and gives a task its plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import MeshConfig, axes
from moviegen.parallel.plan import Plan


class MeshStrategy(ModelParallelStrategy):
    """Lightning's model-parallel strategy with `MeshConfig`'s axes instead of its own fixed two.

    A task lays itself out in `configure_model`, by `plan`. Checkpoints are whole, in one file that rank 0 writes.
    """

    def __init__(
        self, config: ParallelConfig, mesh: MeshConfig, dtype: torch.dtype | None = None, **kwargs: Any
    ):
        super().__init__(save_distributed_checkpoint=False, **kwargs)
        self.config, self.mesh, self.dtype = config, mesh, dtype

    @property
    def plan(self) -> Plan:
        return Plan(self.device_mesh, self.config, self.dtype)

    @property
    def data_parallel(self) -> tuple[int, int]:
        """Which share of a batch this process takes, and of how many."""
        axis = axes(self.device_mesh, "dp")
        return axis.get_local_rank(), axis.size()

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        rank, world = self.data_parallel
        return {"num_replicas": world, "rank": rank}

    def setup_environment(self) -> None:
        super(ModelParallelStrategy, self).setup_environment()  # its own would build a mesh of two axes
        self._setup_distributed()
        self._device_mesh = self.mesh.build(self.root_device.type)
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Between the parts of an accumulated batch, leave gradients alone (Lightning does so for DDP only)."""
        assert self.model is not None
        try:
            reduce_gradients(self.model, False, self.config.accumulate_sharded)
            yield
        finally:
            reduce_gradients(self.model, True, self.config.accumulate_sharded)


def reduce_gradients(model: nn.Module, on: bool, shards_always: bool) -> None:
    """Whether the next backward pass adds gradients up over processes; `shards_always`: if not, only within a copy."""
    for part in model.modules():
        if isinstance(part, FSDPModule):
            if shards_always:
                part.set_requires_all_reduce(on, recurse=False)
            else:
                part.set_requires_gradient_sync(on, recurse=False)
