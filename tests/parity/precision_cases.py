"""In what precision gradients are summed over processes: as the collectives see it, and by what comes out."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from layout_cases import SAMPLES, make_task, mesh_of, relative, samples
from strategy_cases import loss_in_bf16
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import axes
from moviegen.parallel.plan import Plan
from moviegen.tasks.sharded import whole


class Sums(TorchDispatchMode):
    """Types of the tensors that processes add up, by the collective: those of FSDP, and those of DTensors."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, set[str]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(one, DTensor) for one in types):
            return NotImplemented  # its local operations are seen on their own
        name = str(func)
        if "c10d" in name and "reduce" in name:
            tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.is_floating_point()]
            self.types[name.split(".")[0]] |= {str(x.dtype) for x in tensors}
        return func(*args, **(kwargs or {}))


def sums_of_a_step(config: ParallelConfig) -> dict[str, set[str]]:
    """What a backward pass in bf16 adds up."""
    _, _, loss = loss_in_bf16(config)
    with Sums() as sums:
        loss.backward()
    return dict(sums.types)


def sums_of_a_layer(config: ParallelConfig) -> tuple[float, float]:
    """How far its gradient, and that of a sum in bf16, are from the mean of the ranks' gradients in 32 bits."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    layer = nn.Linear(32, 32, bias=False)
    own = copy.deepcopy(layer).bfloat16()
    Plan(mesh_of(config), config, torch.bfloat16).shard(layer)
    inputs = torch.randn(8, 32, generator=torch.Generator().manual_seed(rank)).bfloat16()
    for module in (layer, own):
        module(inputs).float().square().mean().backward()
    assert own.weight.grad is not None and layer.weight.grad is not None
    parts = [torch.empty(32, 32) for _ in range(world)]
    dist.all_gather(parts, own.weight.grad.float())
    mean, narrow = torch.stack(parts).mean(0), torch.zeros(32, 32, dtype=torch.bfloat16)
    for part in parts:
        narrow += part.bfloat16()
    return relative(whole(layer.weight.grad), mean), relative(narrow.float() / world, mean)


def errors_in_8_bit(config: ParallelConfig) -> dict[str, float]:
    """How far the gradients of a layout with 8-bit products are from those of one process in 32 bits."""
    alone, task, mesh = make_task(dtype=torch.float32), make_task(dtype=torch.float32), mesh_of(config)
    alone.losses(samples(0, SAMPLES, torch.float32), 0).mean().backward()
    task.parallelize(Plan(mesh, config))
    axis = axes(mesh, "dp")
    count = SAMPLES // axis.size()
    first = axis.get_local_rank() * count
    task.losses(samples(first, first + count, torch.float32), 0).mean().backward()
    true = {name: p.grad for name, p in alone.named_parameters() if p.grad is not None}
    found = {name: whole(p.grad) for name, p in task.named_parameters() if p.grad is not None}
    assert found.keys() == true.keys()
    return {name: relative(found[name], true[name]) for name in true}
