"""A small codec on shards, against one process: loss, gradients and the statistics of its latents."""

from __future__ import annotations

import torch
import torch.distributed as dist
from layout_cases import mesh_of, relative
from torch import Tensor

from moviegen.codec.tae import TemporalAutoencoder
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import axes
from moviegen.parallel.plan import Plan
from moviegen.tasks.codec_task import CodecTask
from moviegen.tasks.sharded import whole
from moviegen.types import Batch, VideoClip

CLIPS = 4


def make_task(linear: bool) -> CodecTask:
    torch.manual_seed(3)
    codec = TemporalAutoencoder(
        channels=(8, 16), latent_channels=4, encoder_blocks=(1, 1), decoder_blocks=(1, 1), temporal_levels=1,
        linear=linear,
    )  # fmt: skip
    for parameter in codec.parameters():
        parameter.data += torch.randn(parameter.shape) * 0.05
    return CodecTask(codec).double().train()


def clips(first: int, last: int) -> Batch:
    generator = torch.Generator().manual_seed(4)
    frames = torch.rand(CLIPS, 3, 4, 8, 8, generator=generator).double() * 2 - 1
    return Batch(torch.arange(first, last), VideoClip(frames[first:last], torch.full((last - first,), 16.0)))


def gradients(task: CodecTask, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    losses, *_, latents = task.reconstructed(batch, step=1)
    loss = losses.total.mean()
    loss.backward()
    task._update_stats(latents)
    return loss.detach(), {n: whole(p.grad) for n, p in task.named_parameters() if p.grad is not None}


def errors(config: ParallelConfig, linear: bool) -> dict[str, float]:
    """Relative errors of the loss, of each gradient and of the mean and scale of latents."""
    true, task, mesh = make_task(linear), make_task(linear), mesh_of(config)
    task.parallelize(Plan(mesh, config))
    axis = axes(mesh, "dp")
    count = CLIPS // axis.size()
    first = axis.get_local_rank() * count
    loss, found = gradients(task, clips(first, first + count))
    dist.all_reduce(loss, group=axis.get_group())
    true_loss, expected = gradients(true, clips(0, CLIPS))
    result = {name: relative(found[name], gradient) for name, gradient in expected.items()}
    result["loss"] = abs(float(loss / axis.size() / true_loss) - 1)
    result["mean"] = relative(task.codec.stats.mean, true.codec.stats.mean)
    result["scale"] = relative(task.codec.stats.scale, true.codec.stats.scale)
    return result
