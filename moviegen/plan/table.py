"""A plan as text, and as the values of plan.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moviegen.plan.evaluate import GIB, Candidate, Cost, Plan
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job

if TYPE_CHECKING:
    from moviegen.plan.counting import Counted

MOST_REASONS = 6
HEADS = ("step s", "use %", "GiB", "exposed s", "layout")


def table(
    title: str, job: Job, counted: Counted, hardware: Hardware, found: Plan, run: Cost, show: int
) -> str:
    """The whole plan for a terminal."""
    best = found.fitting[0]
    lines = [
        title,
        "",
        *_model(job, counted),
        *_devices(best.layout.devices, hardware),
        "",
        f"fastest layout: {best.layout}",
        *_bytes(best, hardware),
        *_traffic(best),
        *_time(best, job, run),
        "",
        *_layouts(found, show),
        f"to train with the fastest: mesh=single {_overrides(best, job.batch)}",
        "",
        *_others(found, hardware),
    ]
    return "\n".join(lines)


def _model(job: Job, counted: Counted) -> list[str]:
    return [
        f"model       {counted.parameters / 1e9:.2f}e9 parameters, {job.model.num_layers} blocks of width "
        f"{job.model.dim}",
        f"sample      {job.tokens:,} tokens, {job.context} of text",
        f"operations  {counted.forward_flops / 1e15:.3g} PFLOP forward, {counted.step_flops / 1e15:.3g} forward and "
        f"backward a sample (counted on the meta device); {job.flops / 1e15:.4g} PFLOP a step of {job.batch}",
    ]


def _devices(count: int, hardware: Hardware) -> list[str]:
    source = "measured" if hardware.measured_products_tflops else "peak x fitted share"
    return [
        f"devices     {count} x {hardware.name}: products {hardware.products_rate / 1e12:.3g} TFLOP/s ({source}), "
        f"attention {hardware.attention_rate / 1e12:.3g}, {hardware.usable_bytes / GIB:.1f} GiB usable"
    ]


def _bytes(best: Candidate, hardware: Hardware) -> list[str]:
    parts = "  ".join(f"{name} {value / GIB:.2f}" for name, value in best.memory.rows().items())
    return [
        f"GiB a device      {parts} (of {hardware.memory_gib:.1f})",
        f"checkpoint        {best.memory.checkpoint / 1e9:.1f} GB in all, "
        f"{best.memory.checkpoint / best.layout.devices / 1e9:.3f} a device; loading peaks at "
        f"{best.memory.resume_peak / GIB:.2f} GiB a device",
    ]


def _traffic(best: Candidate) -> list[str]:
    used = [t for t in best.step.traffic.values() if t.calls]
    return [
        f"traffic {t.axis:<12}{t.size / 1e9:9.2f} GB a device and step in {t.calls} calls, {t.seconds:.3f} s, "
        f"{best.step.exposed[t.axis]:.3f} s exposed"
        for t in used
    ]


def _time(best: Candidate, job: Job, run: Cost) -> list[str]:
    step, exposed = best.step, sum(best.step.exposed.values())
    return [
        f"step              {step.seconds:.2f} s: products {step.products:.2f}, attention {step.attention:.2f}, "
        f"elementwise {step.elementwise:.2f}, optimizer {step.optimizer:.3f}, exposed {exposed:.2f}; "
        f"{job.batch / step.seconds:.1f} samples/s; {step.utilization:.1%} of peak",
        f"run               {run.steps:,} steps: {run.days:.1f} days, ${run.dollars:,.0f}; goodput {run.goodput:.1%} "
        f"with a checkpoint every {run.interval_seconds / 60:.0f} min",
    ]


def _layouts(found: Plan, show: int) -> list[str]:
    lines = ["  ".join(f"{head:>9}" for head in HEADS[:-1]) + f"  {HEADS[-1]}"]
    for one in found.best(show):
        figures = (
            one.step.seconds,
            100 * one.step.utilization,
            one.memory.peak / GIB,
            sum(one.step.exposed.values()),
        )
        lines.append("  ".join(f"{value:9.2f}" for value in figures) + f"  {one.layout}")
    return lines


def _overrides(candidate: Candidate, batch: int) -> str:
    """The layout as settings of `moviegen train`; what the plan takes one after the other, training must accumulate."""
    layout, mesh = candidate.layout, candidate.layout.mesh
    words = [f"mesh.{axis}={n}" for axis, n in asdict(mesh).items() if n > 1]
    words += [f"mesh.context={layout.context}"] * (mesh.cp > 1)
    words.append(f"mesh.checkpointing={layout.checkpointing}")
    at_once = mesh.dp * layout.micro_batch
    if batch > at_once:  # the trainer's batch is one part of a step then
        words += [f"data.batch_size={at_once}", f"data.batch_multiple={mesh.dp}"]
        words.append(f"trainer.accumulate_grad_batches={batch // at_once}")
    return " ".join(words)


def _others(found: Plan, hardware: Hardware) -> list[str]:
    lines = [f"{len(found.fitting)} layouts fit; why the others do not:"]
    if found.too_large:
        nearest, largest = found.too_large[0], found.too_large[-1]
        lines.append(
            f"  {len(found.too_large)} need {nearest.memory.peak / GIB:.2f} to {largest.memory.peak / GIB:.0f} GiB of "
            f"{hardware.usable_bytes / GIB:.2f}; the nearest: {nearest.layout}"
        )
    lines += [f"  {count} meshes: {reason}" for reason, count in found.refused.most_common(MOST_REASONS)]
    rest = sum(count for _, count in found.refused.most_common()[MOST_REASONS:])
    return lines + ([f"  {rest} meshes: other reasons of these kinds"] if rest else [])


def record(
    job: Job, counted: Counted, hardware: Hardware, found: Plan, run: Cost, show: int
) -> dict[str, Any]:
    """The plan as json: bytes, seconds, dollars."""
    return {
        "parameters": counted.parameters,
        "tokens": job.tokens,
        "batch": job.batch,
        "forward_flops_per_sample": counted.forward_flops,
        "step_flops_per_sample": counted.step_flops,
        "hardware": hardware.name,
        "devices": found.fitting[0].layout.devices,
        "run": {
            "steps": run.steps,
            "days": run.days,
            "dollars": run.dollars,
            "goodput": run.goodput,
            "checkpoint_every_seconds": run.interval_seconds if run.goodput < 1 else None,
        },
        "layouts": [_one(candidate) for candidate in found.best(show)],
        "num_fitting": len(found.fitting),
        "num_too_large": len(found.too_large),
        "refused_meshes": dict(found.refused.most_common()),
    }


def _one(candidate: Candidate) -> dict[str, Any]:
    layout, step, mesh = candidate.layout, candidate.step, candidate.layout.mesh
    return {
        "dp_replicate": mesh.dp_replicate,
        "dp_shard": mesh.dp_shard,
        "cp": mesh.cp,
        "tp": mesh.tp,
        "context_method": layout.context,
        "checkpointing": layout.checkpointing,
        "micro_batch": layout.micro_batch,
        "step_seconds": step.seconds,
        "utilization": step.utilization,
        "seconds": {
            "products": step.products,
            "attention": step.attention,
            "elementwise": step.elementwise,
            "optimizer": step.optimizer,
        },
        "traffic": {
            t.axis: {"bytes": t.size, "seconds": t.seconds, "exposed_seconds": step.exposed[t.axis]}
            for t in step.traffic.values()
        },
        "bytes": candidate.memory.rows()
        | {"checkpoint_all": candidate.memory.checkpoint, "resume_peak": candidate.memory.resume_peak},
    }
