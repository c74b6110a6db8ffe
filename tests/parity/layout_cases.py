"""What runs on each rank: a small generator, laid out or not, and how far its gradients are from those of one process.

Everything is in 64 bits: an error of a layout is far above 1e-10, rounding far below.
"""

from __future__ import annotations

import functools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.conditioning.base import Conditioner
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import axes
from moviegen.parallel.plan import Plan
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sharded import clip_gradients, whole
from moviegen.types import Batch, Grid, Latent

SAMPLES, WORDS, STEP, LARGEST = 8, 3, 5, 0.01
LATENT = (4, 2, 8, 4)  # 16 tokens


class Words(Conditioner):
    """Features [B, L, 6] for cross-attention."""

    port = "context"

    def __init__(self, dim: int, drop_prob: float = 0.5):
        super().__init__(dim, drop_prob)
        self.proj, self.norm = nn.Linear(6, dim), nn.LayerNorm(dim)

    def forward(self, inputs: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        return self.norm(self.proj(inputs)), torch.ones(inputs.shape[:2], dtype=torch.bool)


class Camera(Conditioner):
    """A number for each token, added to it."""

    port = "aligned"

    def __init__(self, dim: int, drop_prob: float = 0.5):
        super().__init__(dim, drop_prob)
        self.proj = nn.Linear(1, dim)

    def forward(self, inputs: Tensor, grid: Grid) -> Tensor:
        return self.proj(inputs)


class Kind(Conditioner):
    """Features [B, 6], added to the time embedding."""

    port = "pooled"

    def __init__(self, dim: int, drop_prob: float = 0.5):
        super().__init__(dim, drop_prob)
        self.proj = nn.Linear(6, dim)

    def forward(self, inputs: Tensor, grid: Grid) -> Tensor:
        return self.proj(inputs)


def make_task(optimizer: Any = None, dtype: torch.dtype = torch.float64, **config: Any) -> FlowTask:
    """A generator of two blocks with weights that leave no gradient zero, the same on every rank."""
    sizes: dict[str, Any] = {
        "dim": 32,
        "num_layers": 2,
        "num_heads": 4,
        "ffn_dim": 48,
        "latent_channels": LATENT[0],
    }
    backbone = Backbone(BackboneConfig(**{**sizes, "max_frames": 2, "max_height": 4, "max_width": 4, "qk_norm": True}
                                       | config))  # fmt: skip
    task = FlowTask(
        backbone,
        SimpleNamespace(latent_channels=LATENT[0], to=lambda device: None),  # type: ignore[arg-type]
        {"words": Words, "camera": Camera, "kind": Kind},
        optimizer=optimizer,
        seed=7,
    )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in task.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = noise + 1 if "norm" in name and name.endswith("weight") else noise
    return task.to(dtype)


def samples(first: int, last: int, dtype: torch.dtype = torch.float64) -> Batch:
    """Samples number `first` to `last`, each from a stream of its own."""
    rows = []
    for key in range(first, last):
        generator = torch.Generator().manual_seed(key)
        rows.append(
            [torch.randn(shape, generator=generator) for shape in (LATENT, (WORDS, 6), (16, 1), (6,))]
        )
    media, words, camera, kind = (torch.stack(column).to(dtype) for column in zip(*rows, strict=True))
    inputs = {"words": words, "camera": camera, "kind": kind}
    return Batch(torch.arange(first, last), Latent(media, torch.full((last - first,), 16.0)), inputs)


@functools.cache
def expected(config: tuple[tuple[str, Any], ...]) -> tuple[float, dict[str, Tensor], float]:
    """Loss, gradients and their norm of one process, over all samples at once."""
    task = make_task(**dict(config))
    loss = task.losses(samples(0, SAMPLES), STEP).mean()
    loss.backward()
    gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(task.parameters()))
    zero = {name for name, gradient in gradients.items() if float(gradient.norm()) < 1e-6}
    assert all(name.endswith("attn.wk.bias") for name in zero), zero  # it shifts all scores of a query alike
    norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
    return float(loss.detach()), gradients, norm


@functools.cache
def mesh_of(config: ParallelConfig) -> DeviceMesh:
    """The mesh of a layout; one of fewer processes than there are stands side by side with copies of itself."""
    degrees = (config.dp_replicate or 1, config.dp_shard or 1, config.cp, config.tp)
    size = degrees[0] * degrees[1] * degrees[2] * degrees[3]
    return config.mesh(size).build("cpu", dist.get_world_size() // size)


def share(mesh: DeviceMesh, part: int, parts: int) -> Batch:
    """What this rank takes of a part of the batch."""
    axis, each = axes(mesh, "dp"), SAMPLES // parts
    count = each // axis.size()
    first = part * each + axis.get_local_rank() * count
    return samples(first, first + count)


def relative(value: Tensor, true: Tensor, least: float = 0.0) -> float:
    """The error of a tensor by its true norm, or by `least` where that is zero but for rounding."""
    return float((value - true).norm()) / max(float(true.norm()), least)


def laid_out(config: ParallelConfig, **model: Any) -> tuple[FlowTask, DeviceMesh]:
    task, mesh = make_task(**model), mesh_of(config)
    task.parallelize(Plan(mesh, config))
    return task, mesh


def errors(config: ParallelConfig, parts: int = 1, **model: Any) -> dict[str, float]:
    """Relative errors of the loss ("loss"), of each gradient, of their norm, and of what clipping leaves."""
    from moviegen.parallel.strategy import reduce_gradients

    true_loss, gradients, norm = expected(tuple(model.items()))
    task, mesh = laid_out(config, **model)
    total = torch.zeros((), dtype=torch.float64)
    for part in range(parts):
        reduce_gradients(task, part == parts - 1, config.accumulate_sharded)
        loss = task.losses(share(mesh, part, parts), STEP).mean() / parts
        loss.backward()
        total += loss.detach()
    dist.all_reduce(total, group=axes(mesh, "dp").get_group())
    found = {"loss": abs(float(total) / axes(mesh, "dp").size() / true_loss - 1)}
    parameters = dict(task.named_parameters())
    assert parameters.keys() == gradients.keys()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        least = norm * 1e-6 if name.endswith("attn.wk.bias") else 0.0
        found[name] = relative(whole(parameter.grad), gradients[name], least)
    found["norm before clipping"] = (
        abs(float(clip_gradients(list(parameters.values()), LARGEST)) / norm - 1) * 1e-4
    )
    name = "backbone.blocks.0.ffn.w2.weight"  # the norm is kept in 32 bits
    found["clipped"] = relative(whole(parameters[name].grad), gradients[name] * LARGEST / norm) * 1e-4  # type: ignore
    return found


def errors_whole_and_in_parts(config: ParallelConfig) -> dict[str, float]:
    """`errors` of a whole batch, and of one whose gradients are accumulated over two parts."""
    parts = {f"{name}, in two parts": error for name, error in errors(config, 2).items()}
    return errors(config) | parts


def collectives(config: ParallelConfig, parts: int) -> dict[str, int]:
    """How often gradients were reduced in a batch of `parts` parts: scattered within a copy, and between copies."""
    from torch.distributed.tensor.debug import CommDebugMode

    from moviegen.parallel.strategy import reduce_gradients

    task, mesh = laid_out(config)
    with CommDebugMode() as counted:
        for part in range(parts):
            reduce_gradients(task, part == parts - 1, config.accumulate_sharded)
            (task.losses(share(mesh, part, parts), STEP).mean() / parts).backward()
    names = {str(operation).split(".")[-1]: count for operation, count in counted.get_comm_counts().items()}
    return {
        "scattered": sum(count for name, count in names.items() if "reduce_scatter" in name),
        "summed": sum(count for name, count in names.items() if "allreduce" in name or "all_reduce" in name),
        "gathered": sum(
            count for name, count in names.items() if "allgather" in name or "all_gather" in name
        ),
    }


def traffic_of_a_block(config: ParallelConfig) -> dict[str, int]:
    """What tp and cp send for one block in a step, in operations by name: what a model of one block more sends more."""
    two, three = (_operations(config, blocks) for blocks in (2, 3))
    return {name: three[name] - two[name] for name in three if three[name] > two[name]}


def _operations(config: ParallelConfig, blocks: int) -> Counter[str]:
    """Functional collectives (FSDP's are others) and passings of a ring, forth and back."""
    import pytest
    from torch.distributed.tensor.debug import CommDebugMode

    task, mesh = laid_out(config, num_layers=blocks)
    passings, send = Counter[str](), dist.batch_isend_irecv

    def passing(operations: list[dist.P2POp]) -> Any:
        passings["passing"] += 1
        return send(operations)

    with pytest.MonkeyPatch.context() as patched, CommDebugMode() as counted:
        patched.setattr(dist, "batch_isend_irecv", passing)
        task.losses(share(mesh, 0, 1), STEP).mean().backward()
    names = {str(operation): count for operation, count in counted.get_comm_counts().items()}
    return passings + Counter(
        {name.split(".")[-1]: n for name, n in names.items() if name.startswith("c10d_functional.")}
    )


def with_fault(fault: str, config: ParallelConfig) -> dict[str, float]:
    """`errors` of a layout with one of the faults that once went unseen."""
    import pytest

    with pytest.MonkeyPatch.context() as patched:
        FAULTS[fault](patched)
        return errors(config)


def _shuffled(patched: Any) -> None:
    """Lightning's sampler in place of the data's own order: it shuffles even where shuffle=False was asked for."""
    from torch.utils.data import DistributedSampler

    def drawn(mesh: DeviceMesh, part: int, parts: int) -> Batch:
        axis = axes(mesh, "dp")
        sampler = DistributedSampler(range(4 * SAMPLES), axis.size(), axis.get_local_rank(), shuffle=True)  # type: ignore
        chosen = [samples(key, key + 1) for key in list(sampler)[: SAMPLES // axis.size()]]
        media = Latent(torch.cat([one.media.values for one in chosen]), torch.full((len(chosen),), 16.0))  # type: ignore
        inputs = {name: torch.cat([one.inputs[name] for one in chosen]) for name in chosen[0].inputs}
        return Batch(torch.cat([one.keys for one in chosen]), media, inputs)

    patched.setattr(f"{__name__}.share", drawn)


def _without_gradients(patched: Any) -> None:
    """Keys and values of other processes arrive, their gradients do not go back (as with a gather of plain values)."""

    def gathered(local: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, local.detach().contiguous(), group=group)
        parts[dist.get_rank(group)] = local
        return torch.cat(parts, dim)

    patched.setattr("moviegen.parallel.context.gather_tokens", gathered)


def _drifting_norms(patched: Any) -> None:
    """The norms of queries and keys take the heads of a process for all heads: their gradients are not summed."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import PrepareModuleInputOutput

    from moviegen.parallel import plan

    right, whole_heads = plan.block_styles, Replicate()

    def styles(block: nn.Module) -> dict[str, Any]:
        wrong = PrepareModuleInputOutput(
            input_layouts=whole_heads,
            desired_input_layouts=whole_heads,
            output_layouts=whole_heads,
            desired_output_layouts=whole_heads,
        )
        return {name: wrong if name.endswith("_norm") else style for name, style in right(block).items()}

    patched.setattr(plan, "block_styles", styles)


FAULTS = {
    "shuffled": _shuffled,
    "no gradients of context": _without_gradients,
    "drifting norms": _drifting_norms,
}


def clip_of_torch(config: ParallelConfig) -> str:
    """What torch's own clipping says to a model whose parts lie on several meshes."""
    task, mesh = laid_out(config)
    task.losses(share(mesh, 0, 1), STEP).mean().backward()
    try:
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def errors_of_dit(config: ParallelConfig) -> dict[str, float]:
    """`errors` of a model of DiT blocks: LayerNorm, biases, a plain feed-forward network, no norms of queries."""
    return errors(config, block="dit", qk_norm=False)


def errors_of_one_block(config: ParallelConfig) -> dict[str, float]:
    """`errors` of a model that does not take long to compile."""
    return errors(config, num_layers=1)


class Encoder(nn.Module):
    """A frozen network with a list of layers, as text encoders are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embed = nn.Embedding(7, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(3)
        )
        self.double().eval().requires_grad_(False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        for layer in self.layers:
            x = layer(x)
        return x


def encoder_on_shards(config: ParallelConfig) -> tuple[float, float]:
    """How far the features of a sharded encoder are from those of a whole one, and the share of it that is held."""
    words = torch.arange(6).view(2, 3)
    true, model = Encoder(), Encoder()
    Plan(mesh_of(config), config).layers(model)
    found = relative(model(words), true(words))
    held = sum(p.to_local().numel() for p in model.parameters())  # type: ignore[attr-defined]
    return found, held / sum(p.numel() for p in true.parameters())
