"""Seconds of one optimizer step: products, attention, elementwise operations, and communication that nothing hides.

What hides what: FSDP gathers the next block while one computes and scatters the gradients of the one before, so only
what takes longer than a block's own work is waited for, and the first block's gather. Tensor parallelism and the
gathers and exchanges of context parallelism stand between operations and are waited for; a ring hides its keys and
values under attention.
"""

from __future__ import annotations

from dataclasses import dataclass

from moviegen.plan.communication import (
    Traffic,
    context_traffic,
    copies_traffic,
    micro_batches,
    shard_traffic,
    tensor_traffic,
)
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout

# Bytes an optimizer step moves a parameter: weight, two moments and average read and written, gradient read, float32.
OPTIMIZER_BYTES = 36
BACKWARD_ATTENTION = (
    2.5  # products of attention's backward pass over those of its forward: scores are made again
)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by cause; `exposed` by axis is what of its traffic nothing hides."""

    products: float
    attention: float
    elementwise: float
    optimizer: float
    bubble: float
    exposed: dict[str, float]
    traffic: dict[str, Traffic]
    utilization: float  # operations the model asks for over what the devices could do at peak

    @property
    def seconds(self) -> float:
        computed = self.products + self.attention + self.elementwise
        return computed + self.optimizer + self.bubble + sum(self.exposed.values())


def _passes(job: Job, layout: Layout) -> tuple[float, float, float]:
    """Forward passes that a step's products, attention and elementwise operations amount to."""
    if not job.training:
        return 1, 1, 1
    full, selective = layout.checkpointing == "full", layout.checkpointing == "selective"
    products = 3 + full + (layout.recomputed if selective else 0)
    return products, 1 + BACKWARD_ATTENTION + full, 3 + (full or selective)


def _computed(job: Job, layout: Layout, hardware: Hardware) -> tuple[float, float, float]:
    """Seconds of products, attention and elementwise operations of one device in one step, without any waiting."""
    model, mesh = job.model, layout.mesh
    samples = micro_batches(job, layout) * layout.micro_batch
    share = samples / (mesh.cp * mesh.tp * layout.pipeline)  # of the whole model's work on one sample
    products, attention, elementwise = _passes(job, layout)
    product_flops = model.num_layers * model.block_products(job.tokens, job.context) * products
    product_flops += model.end_operations(job.tokens) * (3 if job.training else 1)
    attention_flops = model.num_layers * model.block_attention(job.tokens, job.context) * attention
    passes = model.fused if hardware.compiled else model.eager
    bytes_a_token = (passes.dim * model.dim + passes.ffn_dim * model.ffn_dim) * hardware.activation_bytes
    moved = model.num_layers * job.tokens * bytes_a_token * elementwise
    return (
        share * product_flops / hardware.products_rate,
        share * attention_flops / hardware.attention_rate,
        share * moved / hardware.memory_rate,
    )


def step_time(job: Job, layout: Layout, hardware: Hardware) -> StepTime:
    """The time of one step of a job, laid out on devices of one kind."""
    products, attention, elementwise = _computed(job, layout, hardware)
    traffic = {
        t.axis: t
        for t in (
            tensor_traffic(job, layout, hardware),
            context_traffic(job, layout, hardware),
            shard_traffic(job, layout, hardware),
            copies_traffic(job, layout, hardware),
        )
    }
    compute = products + attention + elementwise
    exposed = _exposed(job, layout, traffic, compute, products, attention)
    runs = micro_batches(job, layout)
    waiting = compute + exposed["tp"] + exposed["cp"]
    bubble = waiting * (layout.pipeline - 1) / (layout.chunks * runs)
    weights = job.model.parameters / (layout.mesh.tp * layout.mesh.fsdp * layout.pipeline)
    optimizer = job.training * weights * OPTIMIZER_BYTES / hardware.memory_rate
    parts = (products, attention, elementwise, optimizer, bubble)
    step = StepTime(*parts, exposed=exposed, traffic=traffic, utilization=0.0)
    reached = job.flops / (layout.devices * step.seconds)
    return StepTime(
        *parts, exposed=exposed, traffic=traffic, utilization=reached / (1e12 * hardware.peak_tflops)
    )


def _exposed(
    job: Job, layout: Layout, traffic: dict[str, Traffic], compute: float, products: float, attention: float
) -> dict[str, float]:
    """Seconds of each axis that nothing hides."""
    tensor, context = (
        t.waited + max(0.0, t.seconds - t.waited - over)
        for t, over in ((traffic["tp"], products), (traffic["cp"], attention))
    )
    shard, copies = traffic["fsdp"].seconds, traffic["dp_replicate"].seconds
    runs = micro_batches(job, layout)
    if layout.sharded_weights:  # hidden under all of the step but its first block
        hidden = compute + tensor + context
        first = shard / max(1, traffic["fsdp"].calls)
        shard = max(first if shard else 0.0, shard - hidden)
    else:  # gradients and weights travel with the last pass of the step alone
        shard = max(0.0, shard - compute / runs)
    copies = max(0.0, copies - compute / (2 * runs))
    return {"tp": tensor, "cp": context, "fsdp": shard, "dp_replicate": copies}
