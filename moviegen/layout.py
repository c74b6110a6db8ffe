"""The layout of a training: what conf/mesh/ asks for, held against devices, model and data before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from moviegen.config import build
from moviegen.parallel.blocks import check_8_bit, check_compiler
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import LayoutError, MeshConfig, divisors
from moviegen.parallel.plan import Plan
from moviegen.parallel.strategy import MeshStrategy

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16}  # and the type of weights in products
ALONE = (*PRECISIONS, "16-mixed")  # without a mesh
SHORT = ("32", "bf16", "16")  # Lightning's names of these


@dataclass(frozen=True)
class Layout:
    """A mesh of a known size, and what the trainer needs to run on it."""

    config: ParallelConfig
    mesh: MeshConfig
    dtype: torch.dtype | None

    def strategy(self) -> MeshStrategy | str:
        """For the trainer; a lone process needs none."""
        return MeshStrategy(self.config, self.mesh, self.dtype) if self.mesh.world_size > 1 else "auto"

    def check_machine(self) -> None:
        """Raise LayoutError where this machine lacks what the blocks need: 8-bit products, a compiler."""
        if self.config.fp8:
            check_8_bit(emulated=self.config.fp8 == "emulated")
        if self.config.compile is not None:
            check_compiler(self.config.compile)

    def apply_alone(self, task: Any) -> None:
        """Checkpoint and compile the blocks of a task that runs in one process."""
        if self.mesh.world_size == 1:
            task.parallelize(Plan(None, self.config, self.dtype))


def check_precision(trainer: Mapping[str, Any]) -> None:
    """Raise LayoutError for a precision that training does not have: Lightning's others would convert the samples."""
    precision = str(trainer.get("precision") or "32-true")
    if precision not in (*ALONE, *SHORT):
        raise LayoutError(
            f"trainer.precision={precision}: training takes {', '.join(ALONE)}; its weights stay in 32 bits"
        )


def device_type(trainer: Mapping[str, Any]) -> str:
    """cuda or cpu: what a trainer node asks for."""
    accelerator = trainer.get("accelerator")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.device_count() > 0)
    return "cuda" if on_gpu else "cpu"


def check_kernels(task: Any, trainer: Mapping[str, Any]) -> None:
    """Raise ValueError for kernels that a task names and that cannot run as a trainer node asks."""
    halved = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = halved.get(str(trainer.get("precision", "32-true")).partition("-")[0], torch.float32)
    task.check_machine(device_type(trainer), dtype)


def num_devices(trainer: Mapping[str, Any]) -> tuple[int, int]:
    """Processes of a node, and nodes, that a trainer node asks for; raises LayoutError for GPUs that are not there."""
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    gpus, on_gpu = torch.cuda.device_count(), device_type(trainer) == "cuda"
    if isinstance(devices, list):
        wanted = len(devices)
    elif devices in ("auto", -1, "-1", None):
        wanted = max(gpus, 1) if on_gpu else 1
    else:
        wanted = _count(devices)
    if on_gpu and wanted > gpus:
        there = f"{gpus} GPUs: take trainer.devices={gpus}" if gpus else "no GPU: take trainer=cpu"
        raise LayoutError(f"trainer.devices={devices}: this machine has {there}")
    return wanted, nodes


def _count(devices: Any) -> int:
    try:
        listed = isinstance(devices, str) and "," in devices  # "0,1": two by their numbers
        return len(devices.strip(",").split(",")) if listed else int(devices)
    except ValueError:
        raise LayoutError(
            f"trainer.devices={devices}: must be a number of processes, a list of devices, or auto"
        ) from None


def check_batches(sizes: Iterable[int], processes: int) -> None:
    """Raise LayoutError where batches do not divide over processes that hold the whole model each: without a mesh."""
    for size in sizes:
        if processes > 1 and size % processes:
            fit = ", ".join(map(str, divisors(size)))
            raise LayoutError(
                f"a batch of {size} samples does not divide over {processes} processes (trainer.devices * nodes): "
                f"take a data.batch_size that is a multiple of {processes}, or one of {fit} processes"
            )


def layout_of(
    mesh: Mapping[str, Any] | None, trainer: Mapping[str, Any], sized: tuple[int, int] | None = None
) -> Layout | None:
    """The layout that a run's config asks for, None without `mesh`; raises LayoutError where the parts do not fit.

    Args:
        sized: processes of a node, and nodes, of a job for other machines than this.
    """
    if mesh is None:
        return None
    if trainer.get("strategy") not in (None, "auto"):
        raise LayoutError(
            f"trainer.strategy={trainer['strategy']} and a mesh exclude each other: leave out one (mesh=null)"
        )
    precision = str(trainer.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise LayoutError(f"trainer.precision={precision}: a mesh takes {' or '.join(PRECISIONS)}")
    config: ParallelConfig = build(mesh)
    per_node, nodes = sized or num_devices(trainer)
    layout = config.mesh(per_node * nodes)
    if nodes > 1:
        layout.check_devices(per_node * nodes, per_node)
    return Layout(config, layout, PRECISIONS[precision])


def check_layout(
    layout: Layout, task: Any, data: Any, sampler: Mapping[str, Any] | None, adapter: bool = False
) -> None:
    """Raise LayoutError where model, optimizer, batches or clip sizes do not divide as a layout asks.

    Of shards that do not say the size of their clips, the first sample is read; tokens of the others are checked when
    they come.
    """
    mesh = layout.mesh
    if adapter and mesh.world_size > 1:
        raise LayoutError(f"an adapter has no layout for {mesh}: use mesh=null trainer.strategy=ddp")
    task.check_layout(mesh, layout.config)
    optimizer = getattr(task.optimizer_factory, "func", None)
    if optimizer is not None and mesh.world_size > 1 and getattr(optimizer, "whole_matrices", False):
        raise LayoutError(
            f"optimizer {optimizer.__name__} needs whole matrices, which a mesh cuts: use optimizer=adamw, or mesh=null"
        )
    if data.packed_draws > 1 and mesh.cp * mesh.tp > 1:
        raise LayoutError(
            f"data.packed_draws={data.packed_draws}: packed samples are not cut over cp={mesh.cp} x tp={mesh.tp}; "
            "use data.packed_draws=1, or a layout of dp alone"
        )
    mesh.check_batch(data.batch_size)
    for row in data.plan().rows:
        mesh.check_batch(row.batch_size)
        if row.bucket is not None:
            mesh.check_tokens(row.tokens, f"a sample of the bucket {row.bucket}")
        elif mesh.cp * mesh.tp > 1:
            name = f"the first sample of {row.samples.name}, whose shards have no index.json with its size,"
            mesh.check_tokens(task.num_tokens(data.first(row.samples)), name)
    if sampler is not None and mesh.cp * mesh.tp > 1:
        size = [int(sampler[name]) for name in ("num_frames", "height", "width")]
        mesh.check_tokens(task.sample_cost(*size)[0], f"a sample video of {'x'.join(map(str, size))}")
