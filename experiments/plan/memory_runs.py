"""Train small backbones on 1, 2 and 4 processes and hold the peak of live tensor bytes against the planner's.

python experiments/plan/memory_runs.py      a line a setting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from live import LiveBytes

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.callbacks.ema import EMA
from moviegen.parallel.config import CHECKPOINTING, Checkpointing, ParallelConfig
from moviegen.parallel.mesh import ContextMethod, MeshConfig
from moviegen.parallel.plan import Plan
from moviegen.parallel.testing import Ranks
from moviegen.plan.layout import Job, Layout
from moviegen.plan.memory import CPU, Memory, memory
from moviegen.plan.shapes import backbone_shape
from moviegen.types import Grid

CONTEXT = 16  # tokens of text
SIZES = {  # activations outweigh weights; weights outweigh activations; many thin blocks. The grid, and samples at once
    "long": (BackboneConfig(96, 4, 4, 256, max_frames=16, max_height=16, max_width=16), Grid(8, 8, 12), 2),
    "wide": (BackboneConfig(256, 4, 4, 704, max_frames=16, max_height=16, max_width=16), Grid(2, 8, 8), 1),
    "deep": (BackboneConfig(128, 12, 4, 352, max_frames=16, max_height=16, max_width=16), Grid(4, 8, 8), 1),
}
SHARDS = tuple(MeshConfig(dp_shard=n) for n in (1, 2, 4))


@dataclass(frozen=True)
class Setting:
    """One run: a size of SIZES, how it checkpoints, on what mesh."""

    size: str
    checkpointing: Checkpointing
    mesh: MeshConfig
    context: ContextMethod = "all_gather"

    def __str__(self) -> str:
        degrees = "_".join(f"{axis}{n}" for axis, n in asdict(self.mesh).items() if n > 1) or "one"
        method = f"_{self.context}" if self.mesh.cp > 1 else ""
        return f"{self.size}/{self.checkpointing}/{degrees}{method}"

    def predicted(self) -> Memory:
        """What the planner says of it."""
        config, grid, micro_batch = SIZES[self.size]
        layout = Layout(self.mesh, self.context, self.checkpointing, micro_batch)
        job = Job(backbone_shape(config), micro_batch * self.mesh.dp, grid.num_tokens, CONTEXT)
        return memory(job, layout, CPU)


def shard_settings() -> list[Setting]:
    """Two sizes with every kind of checkpointing, and one with selective checkpointing, on 1, 2 and 4 shards."""
    every = [
        Setting(size, how, mesh) for mesh in SHARDS for size in ("long", "wide") for how in CHECKPOINTING
    ]
    return every + [Setting("deep", "selective", mesh) for mesh in SHARDS]


def other_settings() -> list[Setting]:
    """Context and tensor parallelism."""
    methods: tuple[ContextMethod, ...] = ("all_gather", "ulysses", "ring")
    context = [Setting("long", "none", MeshConfig(cp=2), method) for method in methods]
    tensor = [Setting("long", how, MeshConfig(tp=2)) for how in CHECKPOINTING]
    return [*context, *tensor, Setting("deep", "selective", MeshConfig(cp=2, tp=2))]


def measured(wanted: Sequence[Setting]) -> dict[str, dict[str, Any]]:
    """Peak bytes and phase of each setting, the largest over its processes."""
    found: dict[str, dict[str, Any]] = {}
    for world in sorted({setting.mesh.world_size for setting in wanted}):
        ranks = Ranks(world)
        for setting in wanted:
            if setting.mesh.world_size == world:
                answers = ranks.run(run, setting, timeout=600)
                found[str(setting)] = max(answers, key=lambda one: one["peak"])
        ranks.close()
    return found


def run(setting: Setting, steps: int = 2) -> dict[str, Any]:
    """Train a few steps on this process and its peers."""
    config, grid, micro_batch = SIZES[setting.size]
    torch.manual_seed(0)
    model = Backbone(config)
    mesh, how = setting.mesh, setting.checkpointing
    degrees = ParallelConfig(**asdict(mesh), context=setting.context, checkpointing=how)
    Plan(mesh.build("cpu"), degrees).backbone(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randn(micro_batch, grid.num_tokens, config.token_channels)
    conditions = Conditions(
        grid=grid,
        context=torch.randn(micro_batch, CONTEXT, config.dim),
        context_mask=torch.ones(micro_batch, CONTEXT, dtype=torch.bool),
    )
    ema, trainer = EMA(), SimpleNamespace(global_step=0)
    ema.on_fit_start(cast(Any, trainer), cast(Any, model))
    live = LiveBytes()
    live.watch(
        *model.parameters(), *ema.average.values(), tokens, conditions.context, conditions.context_mask
    )
    for step in range(steps):
        trainer.global_step = step + 1
        with live:
            live.phase = "forward"
            loss = (model(tokens, torch.rand(micro_batch), conditions) - tokens).square().mean()
            live.phase = "backward"
            loss.backward()
            live.phase = "optimizer"
            optimizer.step()
            ema.on_train_batch_end(cast(Any, trainer), cast(Any, model))
            optimizer.zero_grad()
    return {"peak": live.peak, "when": live.when}


def main() -> None:
    wanted = [*shard_settings(), *other_settings()]
    found = measured(wanted)
    for setting in wanted:
        one, predicted = found[str(setting)], setting.predicted().peak
        print(
            f"{setting!s:36} measured {one['peak'] / 2**20:8.3f} MiB ({one['when']}), "
            f"predicted {predicted / 2**20:8.3f} MiB, {predicted / one['peak'] - 1:+.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
