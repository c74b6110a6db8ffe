"""Bytes that one device sends and receives in one optimizer step, by axis of the mesh, and the seconds they take.

A ring is assumed: an all-gather or reduce-scatter of V bytes over N devices moves V (N - 1) / N through each.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout

GRADIENT_BYTES = 4  # of gradients as they are summed (float32)


@dataclass(frozen=True)
class Traffic:
    """One axis: what it moves in a step and how long that takes where nothing hides it.

    Args:
        size: bytes of one step through one device.
        seconds: of all of it, in the order it is needed.
        calls: collective operations of a step.
        waited: seconds of those that stand between two operations, so that nothing can hide them.
    """

    axis: str
    size: float
    seconds: float
    calls: int
    waited: float = 0.0


def _traffic(
    axis: str, hardware: Hardware, size: float, calls: int, stride: int, group: int, waited: float = 0.0
) -> Traffic:
    """Traffic of `calls` operations over `group` devices, `stride` ranks apart, that gather `size` bytes in all.

    `waited` is the share that stands between two operations.
    """
    if group == 1 or not calls:
        return Traffic(axis, 0.0, 0.0, 0)
    moved = size * (group - 1) / group
    seconds = moved / hardware.links_rate(stride, group) + calls * hardware.latency(stride, group)
    return Traffic(axis, moved, seconds, calls, waited * seconds)


def micro_batches(job: Job, layout: Layout) -> int:
    """Forward and backward passes of one device in a step."""
    return max(1, job.batch // (layout.data_parallel * layout.micro_batch))


def _gathers_again(job: Job, layout: Layout) -> bool:
    """Whether the backward pass gathers once more: what was gathered is kept without checkpointing only."""
    return job.training and layout.checkpointing != "none"


def _sends_again(job: Job, layout: Layout) -> bool:
    """Whether it scatters and exchanges once more, too: selective checkpointing keeps those results."""
    return job.training and layout.checkpointing == "full"


def tensor_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """Tokens gathered before each group of cut matrices, results scattered after it; again backward and recomputed."""
    model, mesh = job.model, layout.mesh
    groups = 3 if model.cross else 2  # self-attention, cross-attention, feed-forward
    each = 2 * (1 + job.training) + _gathers_again(job, layout) + _sends_again(job, layout)
    calls = groups * each * model.num_layers // layout.pipeline * micro_batches(job, layout)
    tensor = layout.micro_batch * job.tokens / mesh.cp * model.dim * hardware.activation_bytes
    return _traffic("tp", hardware, calls * tensor, calls, 1, mesh.tp, waited=float(not layout.overlapped))


def context_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """Keys and values, and their gradients: gathered and scattered, exchanged for heads, or passed round a ring.

    The ring (`parallel.ring`) hides what keys and values take under attention, in both passes, but waits for their
    gradients, which it passes in float32. What is recomputed passes them round once more.
    """
    model, mesh = job.model, layout.mesh
    again = _gathers_again(job, layout)
    runs = model.num_layers // layout.pipeline * micro_batches(job, layout)
    whole = layout.micro_batch * job.tokens * model.dim / mesh.tp * hardware.activation_bytes
    keys_values = 2 * whole * model.kv_share
    if layout.context == "ulysses":
        passes = 1 + job.training + _sends_again(job, layout)
        size, calls, waited = passes * whole / mesh.cp * (2 + 2 * model.kv_share), 2 * passes, 1.0
    elif layout.context == "ring":
        gradients = job.training * keys_values * GRADIENT_BYTES / hardware.activation_bytes
        passing = (1 + job.training + again) * keys_values
        size, calls = passing + gradients, 1 + 2 * job.training + again
        waited = gradients / size
    else:
        passes = 1 + job.training + again
        size, calls, waited = passes * keys_values, passes, 1.0
    waited *= not layout.overlapped
    return _traffic("cp", hardware, runs * size, runs * calls, mesh.tp, mesh.cp, waited)


def shard_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """FSDP: weights gathered for each forward and backward pass, gradients scattered after it; over dp_shard x cp."""
    model, mesh = job.model, layout.mesh
    if not job.training and not layout.sharded_weights:
        return Traffic("fsdp", 0.0, 0.0, 0)
    weights = model.num_layers * model.block_parameters / mesh.tp + model.end_parameters
    weights /= layout.pipeline
    runs = micro_batches(job, layout) if layout.sharded_weights else 1
    gathers = 2 if job.training and layout.sharded_weights else 1
    size = runs * weights * (gathers * hardware.activation_bytes + job.training * GRADIENT_BYTES)
    calls = runs * (gathers + job.training) * (model.num_layers // layout.pipeline + 1)
    return _traffic("fsdp", hardware, size, calls, mesh.tp, mesh.fsdp)


def copies_traffic(job: Job, layout: Layout, hardware: Hardware) -> Traffic:
    """Sums of the gradients of copies: each shard once forth and once back, over dp_replicate."""
    model, mesh = job.model, layout.mesh
    weights = (model.num_layers * model.block_parameters / mesh.tp + model.end_parameters) / layout.pipeline
    shard = weights / mesh.fsdp
    calls = job.training * (model.num_layers // layout.pipeline + 1)
    stride = mesh.tp * mesh.fsdp
    size = job.training * 2 * shard * GRADIENT_BYTES
    return _traffic("dp_replicate", hardware, size, calls, stride, mesh.dp_replicate)
