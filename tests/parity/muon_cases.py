"""Data-parallel training with Muon in 64 bits, whose processes share the work on matrices."""

from __future__ import annotations

import numpy as np
import torch.distributed as dist
from layout_cases import SAMPLES, make_task, samples

from moviegen.tasks.muon import Muon

STEPS = 3


def trained(averaged: bool = True) -> dict[str, np.ndarray]:
    """Weights after some steps, of one process or of each of a group that averages its gradients."""
    grouped = dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
    task, each = make_task(), SAMPLES // world
    optimizer = Muon(task.parameters(), lr=0.02, dtype="float64")
    for step in range(STEPS):
        first = step * SAMPLES + rank * each
        optimizer.zero_grad()
        task.losses(samples(first, first + each), step).mean().backward()
        for parameter in task.parameters():
            if grouped and averaged:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in task.named_parameters()}
