"""All layouts of a job on some devices: which fit, in what order, and why the others do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from moviegen.parallel.mesh import LayoutError, MeshConfig
from moviegen.plan.goodput import daly_goodput, daly_interval
from moviegen.plan.hardware import Hardware
from moviegen.plan.layout import Job, Layout, fitting_devices, layouts
from moviegen.plan.memory import CPU, GPU, Memory, Precision, memory
from moviegen.plan.steptime import StepTime, step_time

GIB = 2**30
ALIKE = 0.01  # layouts whose step times differ by less are taken as equally fast: the simpler one comes first


@dataclass(frozen=True)
class Candidate:
    """One layout with what it costs."""

    layout: Layout
    step: StepTime
    memory: Memory


@dataclass(frozen=True)
class Wanted:
    """What a user has fixed of the layout; None leaves it to the search."""

    dp_replicate: int | None = None
    dp_shard: int | None = None
    cp: int | None = None
    tp: int | None = None
    context: str | None = None
    checkpointing: str | None = None
    micro_batch: int | None = None

    def allows(self, layout: Layout) -> bool:
        """Whether a layout is as the user wants it."""
        pairs = [
            (getattr(self, axis), getattr(layout.mesh, axis))
            for axis in ("dp_replicate", "dp_shard", "cp", "tp")
        ]
        context = layout.context if layout.mesh.cp > 1 else self.context
        pairs += [(self.context, context), (self.checkpointing, layout.checkpointing)]
        pairs.append((self.micro_batch, layout.micro_batch))
        return all(wanted in (None, found) for wanted, found in pairs)


ANYTHING = Wanted()


@dataclass(frozen=True)
class Plan:
    """Layouts that fit, fastest first; those that do not, nearest first; and meshes that are no layout, by reason."""

    fitting: list[Candidate]
    too_large: list[Candidate]
    refused: Counter[str]

    def best(self, count: int) -> list[Candidate]:
        """The fastest layouts that differ in more than how data-parallel processes are split."""
        kinds: dict[tuple, Candidate] = {}
        for one in self.fitting:
            mesh = one.layout.mesh
            kinds.setdefault((mesh.cp, mesh.tp, one.layout.context, one.layout.checkpointing), one)
        return list(kinds.values())[:count]


def plan(job: Job, hardware: Hardware, devices: int, wanted: Wanted = ANYTHING, ema: bool = True) -> Plan:
    """Every layout on so many devices.

    Raises LayoutError where none divides or none fits in memory; the message says what would.
    """
    _check(job, hardware, devices, wanted)
    found, refused = layouts(job, devices, hardware.per_node)
    found = [layout for layout in found if wanted.allows(layout)]
    if not found:
        near = fitting_devices(job.batch, hardware.per_node, devices)
        tokens = f"{min(job.others)} to {job.tokens}" if job.others else f"{job.tokens}"
        what = f"no layout of {devices} devices divides a batch of {job.batch} samples of {tokens} tokens"
        raise LayoutError(f"{what} as asked: take gpus={', '.join(map(str, near))}, or another batch")
    precision = precision_of(hardware)
    all_of_them = [Candidate(x, step_time(job, x, hardware), memory(job, x, precision, ema)) for x in found]
    fitting = sorted((c for c in all_of_them if c.memory.peak <= hardware.usable_bytes), key=_order)
    large = sorted(
        (c for c in all_of_them if c.memory.peak > hardware.usable_bytes), key=lambda c: c.memory.peak
    )
    if not fitting:
        raise LayoutError(_too_large(job, hardware, devices, wanted, large[0], ema))
    return Plan(fitting, large, refused)


def precision_of(hardware: Hardware) -> Precision:
    """How a device works: 16-bit activations, fused norms and optimizer on GPUs."""
    return GPU if hardware.activation_bytes == 2 else CPU


def _check(job: Job, hardware: Hardware, devices: int, wanted: Wanted) -> None:
    """Let the mesh itself refuse what the user fixed and what cannot be."""
    for axis in ("tp", "cp"):
        degree = getattr(wanted, axis)
        if degree is None:
            continue
        mesh = MeshConfig(**{axis: degree})
        mesh.check_model(job.model.num_heads, job.model.ffn_dim, wanted.context or "all_gather")  # type: ignore[arg-type]
        mesh.check_tokens(job.tokens)
        if devices % degree:
            mesh.check_devices(devices)
        if axis == "tp":
            mesh.check_devices(degree, hardware.per_node)
    for tokens in job.others:
        MeshConfig(cp=wanted.cp or 1, tp=wanted.tp or 1).check_tokens(tokens)
    dp = (wanted.dp_replicate or 1) * (wanted.dp_shard or 1)
    if dp > 1:
        MeshConfig(dp_shard=dp).check_batch(job.batch)


def _order(candidate: Candidate) -> tuple[float, ...]:
    mesh = candidate.layout.mesh
    speed = round(math.log(candidate.step.seconds) / ALIKE)
    return speed, mesh.tp * mesh.cp, mesh.dp_replicate, candidate.memory.peak


def _too_large(
    job: Job, hardware: Hardware, devices: int, wanted: Wanted, least: Candidate, ema: bool
) -> str:
    """One line: by how much nothing fits, and on how many devices something would."""
    needs, has = least.memory.peak / GIB, hardware.usable_bytes / GIB
    line = f"no layout of {devices} x {hardware.name} fits: the least, {least.layout}, takes {needs:.1f} GiB "
    line += f"of {has:.1f} GiB a device"
    least_of_all = replace(
        wanted,
        dp_replicate=None,
        dp_shard=None,
        checkpointing=wanted.checkpointing or "full",
        micro_batch=wanted.micro_batch or 1,
    )
    for more in _more(devices, job.batch, hardware.per_node):
        found = [x for x in layouts(job, more, hardware.per_node)[0] if least_of_all.allows(x)]
        if any(memory(job, x, precision_of(hardware), ema).peak <= hardware.usable_bytes for x in found):
            return f"{line}; gpus={more} would fit"
    return f"{line}; take a smaller model or clip, or less of what is fixed of the layout"


def _more(devices: int, batch: int, per_node: int) -> Iterable[int]:
    """Numbers of devices to try next: about twice as many each time, up to a thousand times."""
    sizes = (fitting_devices(batch, per_node, devices * 2**k) for k in range(1, 11))
    return sorted({n for several in sizes for n in several[:2] if n > devices})


@dataclass(frozen=True)
class Cost:
    """A whole run: goodput and the interval of checkpoints that it is reached with, days and dollars."""

    steps: int
    goodput: float
    interval_seconds: float
    days: float
    dollars: float


def cost(
    step_seconds: float,
    steps: int,
    devices: int,
    hardware: Hardware,
    save_seconds: float,
    restart_seconds: float,
) -> Cost:
    """What a run of so many steps takes, failures and checkpoints included (`goodput`)."""
    rate = hardware.failures_per_million_hours * devices
    if rate:
        mtbf = 3600e6 / rate
        interval = daly_interval(save_seconds, mtbf)
        good = daly_goodput(interval, save_seconds, restart_seconds, mtbf)
    else:
        interval, good = math.inf, 1.0
    seconds = steps * step_seconds / good
    dollars = seconds / 3600 * devices * hardware.dollars_per_hour
    return Cost(steps, good, interval, seconds / 86_400, dollars)
