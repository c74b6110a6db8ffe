"""Tensors that FSDP2 or tensor parallelism has sharded (DTensor): whole, like another, and the norm of gradients.

Plain tensors pass through, so callers need not know whether a model is sharded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def whole(value: Tensor) -> Tensor:
    """The whole of a sharded tensor; every process of its mesh must ask for it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def placed_like(value: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, the same in every process, moved and sharded as `model` is."""
    if not isinstance(model, DTensor):
        return value.to(model)
    local = whole(value).to(device=model.device_mesh.device_type, dtype=model.dtype)
    return distribute_tensor(local, model.device_mesh, model.placements, src_data_rank=None)


def everywhere(value: Tensor) -> Tensor:
    """The mean of a plain tensor over all processes, which must ask together."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients, also where they lie on different meshes. A plain scalar, the same everywhere."""
    norms = [whole(get_total_norm(group)).float() for group in _by_mesh(gradients).values()]
    return torch.stack(norms).square().sum().sqrt() if norms else torch.zeros(())


def clip_gradients(parameters: Sequence[Tensor], largest: float | None) -> Tensor:
    """Scale gradients in place so that their norm is at most `largest` (None: leave them); the norm before that."""
    norm = gradient_norm([p.grad for p in parameters if p.grad is not None])
    if largest is not None:
        for group in _by_mesh(parameters).values():
            clip_grads_with_norm_(group, largest, norm.to(group[0].device))
    return norm


def _by_mesh(tensors: Iterable[Tensor]) -> dict[Any, list[Tensor]]:
    groups: dict[Any, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.device_mesh if isinstance(tensor, DTensor) else None].append(tensor)
    return groups
