"""A generator that two processes share, small enough to be killed: on shards, with cut matrices, with cut tokens."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.conditioning.base import Conditioner
from moviegen.fields import JSON
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.strategy import MeshStrategy
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.schedule import WarmupCosine
from moviegen.types import Batch, Grid

LAYOUTS = {
    "fsdp": ParallelConfig(dp_shard=2),
    "tp": ParallelConfig(dp_shard=1, tp=2),
    "cp": ParallelConfig(dp_shard=1, cp=2),
}
CHANNELS = 16  # of the latents that `fault_shards` writes, [16, 2, 2, 2]: 8 tokens


def strategy(name: str, world: int) -> MeshStrategy:
    """Lightning's strategy for one of the layouts."""
    return MeshStrategy(LAYOUTS[name], LAYOUTS[name].mesh(world))


class Rate(Conditioner):
    """The frames per second of a clip, as the one token of its text."""

    port = "context"
    field = JSON

    def __init__(self, dim: int):
        super().__init__(dim, drop_prob=0.5)
        self.proj = nn.Linear(1, dim)

    def forward(self, inputs: list[dict[str, Any]], grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        rates = torch.tensor([[[record["fps"] / 10]] for record in inputs])
        return self.proj(rates), torch.ones(len(inputs), 1, dtype=torch.bool)


class Laid(FlowTask):
    """Two blocks that a mesh lays out, with the hooks of `Tiny`; its loss also tells of the rank's random numbers."""

    def __init__(self) -> None:
        with torch.random.fork_rng():  # ranks have the same weights and other random numbers
            torch.manual_seed(0)
            size = BackboneConfig(16, 2, 2, 16, CHANNELS, (1, 1, 1), 2, 2, 2, qk_norm=True)
            codec: Any = SimpleNamespace(latent_channels=CHANNELS, to=lambda device: None)  # noqa: ARG005
            optimizer = partial(torch.optim.AdamW, lr=1e-2)
            super().__init__(
                Backbone(size), codec, {"rate": Rate}, cached=True, optimizer=optimizer,
                schedule=WarmupCosine(3, 100),
            )  # fmt: skip
            for parameter in self.parameters():  # zeros would keep most gradients zero
                parameter.data += torch.randn(parameter.shape) * 0.05
        self.in_step = self.in_backward = lambda step, value: value  # noqa: ARG005
        self.backbone.blocks[0].register_forward_hook(self._watch)

    def _watch(self, block: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG002
        """Between the backward passes of the two blocks, the gradients of one are summed over ranks already."""
        step = self.global_step
        output.register_hook(lambda gradient: self.in_backward(step, gradient))

    def on_train_start(self) -> None:
        assert all(isinstance(parameter, DTensor) for parameter in self.parameters()), "nothing was laid out"

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        losses = self.in_step(self.global_step, self.losses(batch, self.global_step))
        return self.mean_loss(losses + torch.rand(()), batch)
