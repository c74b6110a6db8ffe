"""Layouts of a run: the mesh, how context is shared, what is recomputed; and all that some devices allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from moviegen.parallel.config import CHECKPOINTING, Checkpointing
from moviegen.parallel.mesh import ContextMethod, LayoutError, MeshConfig, divisors
from moviegen.plan.shapes import Transformer

MOST_SAMPLES_AT_ONCE = 4  # of one process; more would hardly make its products larger


@dataclass(frozen=True)
class Layout:
    """How one step runs on all devices.

    `pipeline`, `chunks` and `overlapped` describe published runs only: this project has no pipeline, and its tensor
    parallelism waits for its communication instead of hiding it under products. `recomputed` is the share of a block's
    products that the backward pass does again under selective checkpointing: none here, half in torchtitan.
    """

    mesh: MeshConfig
    context: ContextMethod = "all_gather"
    checkpointing: Checkpointing = "none"
    micro_batch: int = 1
    pipeline: int = 1
    chunks: int = 1  # of a pipeline stage, interleaved
    overlapped: bool = False
    sharded_weights: bool = True  # FSDP; else only optimizer states are sharded, as Megatron-LM does
    recomputed: float = 0.0

    @property
    def devices(self) -> int:
        return self.mesh.world_size * self.pipeline

    @property
    def data_parallel(self) -> int:
        """Processes (times their model-parallel partners) that read different samples."""
        return self.mesh.dp

    def __str__(self) -> str:
        context = f" ({self.context})" if self.mesh.cp > 1 else ""
        return f"{self.mesh}{context}, checkpointing={self.checkpointing}, micro_batch={self.micro_batch}"


@dataclass(frozen=True)
class Job:
    """What one optimizer step computes: `batch` samples of `tokens` each, which read `context` tokens of text.

    `others` are the tokens of cheaper samples, which come in other steps and must divide over the same layout.
    """

    model: Transformer
    batch: int
    tokens: int
    context: int = 0
    training: bool = True
    others: tuple[int, ...] = ()

    @property
    def flops(self) -> float:
        """Operations of one step that the model asks for; what is recomputed is not counted."""
        return (3 if self.training else 1) * self.batch * self.model.forward_flops(self.tokens, self.context)


def layouts(job: Job, devices: int, per_node: int) -> tuple[list[Layout], Counter[str]]:
    """All layouts on so many devices, and why the other meshes are out of the question, counted by reason."""
    found: list[Layout] = []
    refused: Counter[str] = Counter()
    for mesh in _meshes(devices, per_node):
        contexts: tuple[ContextMethod, ...] = (
            ("all_gather", "ulysses", "ring") if mesh.cp > 1 else ("all_gather",)
        )
        for context in contexts:
            reason = _refusal(job, mesh, context)
            if reason:
                refused[reason] += 1
                continue
            samples = job.batch // mesh.dp
            found += [
                Layout(mesh, context, checkpointing, micro)
                for checkpointing in CHECKPOINTING
                for micro in divisors(samples)
                if micro <= MOST_SAMPLES_AT_ONCE
            ]
    return found, refused


def _meshes(devices: int, per_node: int) -> Iterator[MeshConfig]:
    """Meshes of so many devices: tp within a node, context and shards within one or over whole ones."""
    for tp in divisors(min(per_node, devices)):
        for cp in divisors(devices // tp) if devices % tp == 0 else []:
            if cp > 8 * per_node or (tp * cp > per_node and tp * cp % per_node):
                continue
            rest = devices // (tp * cp)
            for shard in divisors(rest):
                fsdp = shard * cp * tp
                if shard == rest or fsdp % per_node == 0 or shard == 1:
                    yield MeshConfig(rest // shard, shard, cp, tp)


def _refusal(job: Job, mesh: MeshConfig, context: ContextMethod) -> str | None:
    """Why a mesh cannot carry a job, in words that many meshes share; None where it can."""
    model = job.model
    if model.num_heads % mesh.tp or model.ffn_dim % mesh.tp:
        return f"tp={mesh.tp} does not divide {model.num_heads} heads and a feed-forward width of {model.ffn_dim}"
    try:
        mesh.check_model(model.num_heads, model.ffn_dim, context)
    except LayoutError:
        return f"cp={mesh.cp} with ulysses does not divide the {model.num_heads // mesh.tp} heads left by tp={mesh.tp}"
    uneven = [tokens for tokens in (job.tokens, *job.others) if tokens % (mesh.cp * mesh.tp)]
    if uneven:
        return f"cp * tp = {mesh.cp * mesh.tp} does not divide {uneven[0]} tokens"
    if job.batch % mesh.dp:
        more = f"{mesh.dp} data-parallel processes, of which the batch of {job.batch} "
        return more + ("is no multiple" if job.batch > mesh.dp else "has too few samples for each")
    return None


def fitting_devices(batch: int, per_node: int, near: int) -> list[int]:
    """Numbers of devices near a given one over which a batch divides with some tp within a node."""
    numbers = {dp * tp for dp in divisors(batch) for tp in divisors(per_node)}
    numbers |= {n * 2 for n in numbers}
    numbers = {n for n in numbers if n <= per_node or n % per_node == 0}
    return sorted(sorted(numbers, key=lambda n: abs(n - near))[:4])
