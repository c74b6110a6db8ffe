"""Bytes that one device sends and receives in one optimizer step, by axis of the mesh, and the seconds they take.

A ring is assumed: an all-gather or reduce-scatter of V bytes over N devices moves V (N - 1) / N through each.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout

WEIGHT_BYTES = 2  # of weights as they travel (bfloat16)
GRADIENT_BYTES = 4  # of gradients as they are summed (float32)


@dataclass(frozen=True)
class Traffic:
    """One axis: what it moves in a step and how long that takes where nothing hides it.

    Args:
        size: bytes of one step through one device.
        seconds: of all of it, in the order it is needed.
        calls: collective operations of a step.
    """

    axis: str
    size: float
    seconds: float
    calls: int


def _traffic(axis: str, hardware: Hardware, size: float, calls: int, stride: int, group: int) -> Traffic:
    """Traffic of `calls` operations over `group` devices, `stride` ranks apart, that gather `size` bytes in all."""
    if group == 1 or not calls:
        return Traffic(axis, 0.0, 0.0, 0)
    moved = size * (group - 1) / group
    seconds = moved / hardware.links_rate(stride, group) + calls * hardware.latency(stride, group)
    return Traffic(axis, moved, seconds, calls)


def micro_batches(job: Job, layout: Layout) -> int:
    """Forward and backward passes of one device in a step."""
    return max(1, job.batch // (layout.data_parallel * layout.micro_batch))


def tensor_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """All-gathers before and reduce-scatters after each group of cut matrices; twice in training, and when recomputed."""
    model, mesh = job.model, layout.mesh
    groups = 3 if model.cross else 2  # self-attention, cross-attention, feed-forward
    passes = (1 + job.training) + (layout.checkpointing == "full" and job.training)
    calls = 2 * groups * passes * model.num_layers // layout.pipeline * micro_batches(job, layout)
    tensor = layout.micro_batch * job.tokens / mesh.cp * model.dim * hardware.activation_bytes
    return _traffic("tp", hardware, calls * tensor, calls, 1, mesh.tp)


def context_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """Keys and values that are gathered, or pass round a ring; or, with Ulysses, four tensors that change from tokens to heads."""
    model, mesh = job.model, layout.mesh
    passes = (1 + job.training) + (layout.checkpointing == "full" and job.training)
    runs = passes * model.num_layers // layout.pipeline * micro_batches(job, layout)
    whole = layout.micro_batch * job.tokens * model.dim / mesh.tp * hardware.activation_bytes
    if layout.context == "ulysses":
        size, calls = whole / mesh.cp * (2 + 2 * model.kv_share), 4
    else:
        size, calls = whole * 2 * model.kv_share, 2
    return _traffic("cp", hardware, runs * size, runs * calls, mesh.tp, mesh.cp)


def shard_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """FSDP: weights gathered for each forward and backward pass, gradients scattered after it; over dp_shard x cp."""
    model, mesh = job.model, layout.mesh
    if not job.training and not layout.sharded_weights:
        return Traffic("fsdp", 0.0, 0.0, 0)
    weights = model.num_layers * model.block_parameters / mesh.tp + model.end_parameters
    weights /= layout.pipeline
    runs = micro_batches(job, layout) if layout.sharded_weights else 1
    gathers = 2 if job.training and layout.sharded_weights else 1
    size = runs * weights * (gathers * WEIGHT_BYTES + job.training * GRADIENT_BYTES)
    calls = runs * (gathers + job.training) * (model.num_layers // layout.pipeline + 1)
    return _traffic("fsdp", hardware, size, calls, mesh.tp, mesh.fsdp)


def copies_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """Sums of the gradients of copies: each shard once forth and once back, over dp_replicate."""
    model, mesh = job.model, layout.mesh
    weights = (model.num_layers * model.block_parameters / mesh.tp + model.end_parameters) / layout.pipeline
    shard = weights / mesh.fsdp
    calls = job.training * (model.num_layers // layout.pipeline + 1)
    stride = mesh.tp * mesh.fsdp
    return _traffic("dp_replicate", hardware, job.training * 2 * shard * GRADIENT_BYTES, calls, stride, mesh.dp_replicate)
