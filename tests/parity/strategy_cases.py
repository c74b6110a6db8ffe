"""Training through Lightning on a layout, and the same steps by hand in one process."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from layout_cases import LARGEST, SAMPLES, make_task, mesh_of, relative, samples
from lightning.fabric.plugins.environments import ClusterEnvironment
from torch import Tensor
from torch.utils.data import DataLoader

from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.ema import EMA
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import axes
from moviegen.parallel.strategy import MeshStrategy
from moviegen.parallel.trainer import data_parallel
from moviegen.tasks.sharded import clip_gradients, whole

DECAY, PARTS = 0.9, 2
ADAMW = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)


class Already(ClusterEnvironment):
    """Processes that have found each other, each as a node of its own."""

    creates_processes_externally = True
    main_address, main_port = "127.0.0.1", 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return dist.get_world_size()

    def global_rank(self) -> int:
        return dist.get_rank()

    def node_rank(self) -> int:
        return dist.get_rank()

    def local_rank(self) -> int:
        return 0

    def set_world_size(self, size: int) -> None:
        assert size == dist.get_world_size()

    def set_global_rank(self, rank: int) -> None:
        assert rank == dist.get_rank()


class Data(L.LightningDataModule):
    """Of every batch, this process' share; a batch is one part of a step."""

    def __init__(self, first: int):
        super().__init__()
        self.first = first  # batch

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        rank, world = data_parallel(self.trainer)
        count = SAMPLES // world
        starts = [batch * SAMPLES + rank * count for batch in range(self.first, 100)]
        return DataLoader([samples(start, start + count) for start in starts], batch_size=None)  # type: ignore


def trained(config: ParallelConfig, steps: int, folder: str, done: int = 0) -> dict[str, Any]:
    """Whole weights and averages after so many steps, `done` of them by the run whose checkpoint lies in the folder."""
    task, ema = make_task(optimizer=ADAMW), EMA(DECAY)
    degrees = config.mesh(dist.get_world_size())
    trainer = L.Trainer(
        accelerator="cpu", devices=1, num_nodes=dist.get_world_size(), strategy=MeshStrategy(config, degrees),
        plugins=[Already()], callbacks=[ema, Checkpoints(folder)], max_steps=steps, accumulate_grad_batches=PARTS,
        gradient_clip_val=LARGEST, use_distributed_sampler=False, logger=False,
        enable_progress_bar=False, enable_model_summary=False, barebones=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(task, datamodule=Data(done * PARTS))
    weights = {name: whole(p.detach()) for name, p in task.named_parameters()}
    averages = {name: whole(value) for name, value in ema.average.items()}
    norm = float(trainer.callback_metrics["train/gradient_norm"])
    return {"weights": weights, "averages": averages, "norm": norm, "steps": trainer.global_step}


def by_hand(steps: int) -> dict[str, Any]:
    """The same in one process, without Lightning."""
    task = make_task()
    parameters = dict(task.named_parameters())
    optimizer = ADAMW(list(parameters.values()))
    averages = {name: p.detach().clone() for name, p in parameters.items()}
    norm: Tensor = torch.zeros(())
    for step in range(steps):
        optimizer.zero_grad()
        for part in range(PARTS):
            first = (step * PARTS + part) * SAMPLES
            (task.losses(samples(first, first + SAMPLES), step).mean() / PARTS).backward()
        norm = clip_gradients(list(parameters.values()), LARGEST)
        optimizer.step()
        decay = min(DECAY, (2 + step) / (11 + step))
        for name, p in parameters.items():
            averages[name].lerp_(p.detach(), 1 - decay)
    weights = {name: p.detach() for name, p in parameters.items()}
    return {"weights": weights, "averages": averages, "norm": float(norm), "steps": steps}


def differences(config: ParallelConfig, folder: str) -> dict[str, float]:
    """Largest relative differences of a training that stops on one layout and goes on on another, to one by hand."""
    trained(config, 2, folder)
    dist.barrier()
    other = ParallelConfig(dp_shard=1, cp=2, tp=2) if config.tp == 1 else ParallelConfig(dp_shard=4)
    have, true = trained(other, 4, folder, done=2), by_hand(4)
    assert have["steps"] == 4 and have["weights"].keys() == true["weights"].keys()
    found = {"norm": abs(have["norm"] / true["norm"] - 1)}
    for kind in ("weights", "averages"):
        found[kind] = max(relative(value, true[kind][name]) for name, value in have[kind].items())
    return found


def loss_in_bf16(config: ParallelConfig) -> tuple[Any, Any, torch.Tensor]:
    """A task laid out in bf16, its data-parallel axis, and the mean loss of this rank's share of the samples."""
    from moviegen.parallel.plan import Plan

    task, mesh = make_task(dtype=torch.float32), mesh_of(config)
    task.parallelize(Plan(mesh, config, torch.bfloat16))
    axis = axes(mesh, "dp")
    count = SAMPLES // axis.size()
    first = axis.get_local_rank() * count
    with torch.autocast("cpu", torch.bfloat16):
        return task, axis, task.losses(samples(first, first + count, torch.float32), 0).mean()


def half_precision(config: ParallelConfig) -> tuple[float, float, set[str]]:
    """In bf16 with sums in 32 bits: relative error of the loss and of all gradients, and types of gradients."""
    true, (task, axis, loss) = make_task(dtype=torch.float32), loss_in_bf16(config)
    loss.backward()
    true_loss = true.losses(samples(0, SAMPLES, torch.float32), 0).mean()
    true_loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total, group=axis.get_group())
    pairs = [
        (whole(p.grad), q.grad)  # type: ignore[arg-type]
        for p, q in zip(task.parameters(), true.parameters(), strict=True)
    ]
    error = (
        torch.stack([(g - t).norm() for g, t in pairs]).norm()
        / torch.stack([t.norm() for _, t in pairs]).norm()
    )
    return float(total / axis.size() / true_loss) - 1, float(error), {str(g.dtype) for g, _ in pairs}
