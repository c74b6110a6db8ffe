"""Bytes of one device at the peak of a training step, by what they hold.

Weights are sharded by FSDP2 in float32 and gathered block by block; AdamW keeps two moments and the EMA callback an
average, all sharded alike. The peak is the largest of three moments: the first block of the backward pass (all that is
saved for it), its last block (all gradients), and the optimizer's step.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.parallel.config import Checkpointing
from moviegen.plan.layout import Job, Layout
from moviegen.plan.saved import block_tensors, context_bytes, elements, statistics_bytes
from moviegen.plan.shapes import Transformer

FLOAT32 = 4


@dataclass(frozen=True)
class Precision:
    """Bytes of an element, and how norms and the optimizer work on a kind of device.

    Args:
        activation: of activations and of weights as blocks use them.
        fused_norms: a norm is one kernel, as on GPUs.
        foreach: the optimizer works on all weights at once and needs one more copy of its shard (the default there).
    """

    activation: int = 2
    fused_norms: bool = True
    foreach: bool = True


GPU, CPU = Precision(), Precision(activation=4, fused_norms=False, foreach=False)


@dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    `peak` is that of a step; `resume_peak` that of loading a checkpoint, which reads into the sharded state one tensor
    at a time. `checkpoint` is what all devices write together.
    """

    weights: float
    optimizer: float
    average: float
    gradients: float
    activations: float
    gathered: float
    transient: float
    checkpoint: float
    resume_peak: float
    peak: float

    def rows(self) -> dict[str, float]:
        """What a table of the peak shows."""
        names = (
            "weights",
            "optimizer",
            "average",
            "gradients",
            "activations",
            "gathered",
            "transient",
            "peak",
        )
        return {name: getattr(self, name) for name in names}


def memory(job: Job, layout: Layout, precision: Precision = GPU, ema: bool = True) -> Memory:
    """The bytes of one step of a job on each device."""
    model, mesh = job.model, layout.mesh
    block = model.block_parameters / mesh.tp
    ends = float(model.end_parameters)
    shard = (model.num_layers * block + ends) / mesh.fsdp
    weights, optimizer, average = FLOAT32 * shard, 2 * FLOAT32 * shard, FLOAT32 * shard * ema
    gradients = FLOAT32 * shard
    saved = model.num_layers * saved_bytes(job, layout, precision) + shared_bytes(job, layout, precision)
    gathered = gathered_bytes(block, ends, layout, precision)
    transient = transient_bytes(job, layout, precision)
    backward = _backward(job, layout, precision, block, saved)
    stepping = gradients + (weights if precision.foreach else 2 * FLOAT32 * largest_tensor(model) / mesh.fsdp)
    state = weights + optimizer + average
    largest = FLOAT32 * largest_tensor(model) / mesh.tp
    return Memory(
        weights=weights,
        optimizer=optimizer,
        average=average,
        gradients=gradients,
        activations=saved,
        gathered=gathered,
        transient=transient,
        checkpoint=FLOAT32 * (3 + ema) * model.parameters,
        resume_peak=state + largest,
        peak=state + max(backward, stepping),
    )


def largest_tensor(model: Transformer) -> int:
    """Elements of the largest weight."""
    return max(model.dim * model.ffn_dim, 6 * model.dim**2 if model.cross else model.vocabulary * model.dim)


def _accumulates(job: Job, layout: Layout) -> bool:
    """Whether gradients of an earlier pass are there already."""
    return job.batch > layout.data_parallel * layout.micro_batch


def saved_bytes(
    job: Job, layout: Layout, precision: Precision, checkpointing: Checkpointing | None = None
) -> float:
    """Bytes that one block keeps for its backward pass."""
    how = checkpointing or layout.checkpointing
    tensors = block_tensors(job.model, layout, precision.fused_norms)
    total = sum(elements(t, layout, job.tokens) for t in tensors if how in t.kept) * precision.activation
    if how == "full":
        return total
    text = context_bytes(job.model, layout, job.context, precision.activation)
    return total + statistics_bytes(job.model, layout, job.tokens) + text


def shared_bytes(job: Job, layout: Layout, precision: Precision) -> float:
    """Bytes that exist once for all blocks: positions, text, and what the output keeps."""
    model, mesh = job.model, layout.mesh
    local = job.tokens / mesh.cp / mesh.tp
    uncut = (
        job.tokens if mesh.tp == 1 else local
    )  # a stretch over cp alone is a view that keeps the whole alive
    positions = uncut * model.dim if model.cross else 0.0
    text = layout.micro_batch * job.context * model.dim
    ends = layout.micro_batch * local * model.dim * (2 + (not precision.fused_norms))
    if layout.checkpointing != "none":
        ends += layout.micro_batch * (uncut - local) * model.dim  # the first block's input
    return (positions + text + ends) * precision.activation


def gathered_bytes(block: float, ends: float, layout: Layout, precision: Precision) -> float:
    """Bytes of weights beyond one's own shard in a backward pass: of the block at work, of the next, of both ends."""
    blocks = 2 if layout.mesh.fsdp > 1 else 1
    return (blocks * block + ends) * precision.activation


def _backward(job: Job, layout: Layout, precision: Precision, block: float, saved: float) -> float:
    """Bytes, beside the state, at the worst moment of a backward pass: in some block, or as its gradients are summed.

    After `done` blocks what they had saved is free, and their gradients are there. The sum of a block's gradients keeps
    its input until the next sum.
    """
    count, mesh = job.model.num_layers, layout.mesh
    ends = float(job.model.end_parameters)
    one, transient = saved_bytes(job, layout, precision), transient_bytes(job, layout, precision)
    gathered = gathered_bytes(block, ends, layout, precision)
    gradient, earlier = FLOAT32 * block / mesh.fsdp, _accumulates(job, layout)
    total = FLOAT32 * (count * block + ends) / mesh.fsdp
    moments = []
    for done in {0, 1, count - 1}:
        summed = total if earlier else done * gradient
        left = saved - done * one + gathered + summed
        moments.append(left + transient + FLOAT32 * block * (done > 0))
        own = block * precision.activation  # gathered weights are given back before gradients are summed
        moments.append(left - one - own + own + FLOAT32 * block + gradient * (not earlier))
    return max(moments)


def transient_bytes(job: Job, layout: Layout, precision: Precision) -> float:
    """Bytes that one block needs while its backward pass runs: what is made again, and gradients of activations."""
    model, mesh = job.model, layout.mesh
    local = layout.micro_batch * job.tokens / mesh.cp
    flowing = local * (2 * model.ffn_dim / mesh.tp + model.dim / mesh.tp + model.dim * (mesh.tp > 1))
    again = saved_bytes(job, layout, precision, "none") - saved_bytes(job, layout, precision)
    return flowing * precision.activation + max(0.0, again)
