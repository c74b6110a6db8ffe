"""Lay the 30B model out as one of 6,144 processes does, without them: fake process groups, and a model without data.

python experiments/plan/scale.py      seconds of the mesh, of the model and of the layout
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.config import build, compose, plain
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.mesh import MeshConfig
from moviegen.parallel.plan import Plan

PAPER = MeshConfig(dp_shard=768, cp=2, tp=4)  # the paper's degrees of tp and cp (table 3)


def stage3() -> BackboneConfig:
    """The backbone of the paper's 768 px stage."""
    cfg = plain(compose("train", ["experiments=t2v/paper/stage3"]))
    return build(cfg["task"]["backbone"]["config"])


def laid_out(config: BackboneConfig, degrees: MeshConfig) -> dict[str, float]:
    """Seconds of each part, and elements of all weights and of those that this process would hold."""
    start, busy = time.perf_counter(), time.process_time()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=degrees.world_size)
    try:
        mesh = degrees.build("cpu")
        meshed = time.perf_counter()
        with torch.device("meta"):
            model = Backbone(config)
        made = time.perf_counter()
        layout = ParallelConfig(**asdict(degrees), checkpointing="selective")
        Plan(mesh, layout, torch.bfloat16).backbone(model)
        done, spent = time.perf_counter(), time.process_time() - busy
    finally:
        dist.destroy_process_group()
    local = [p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in model.parameters()]
    return {
        "mesh_seconds": meshed - start,
        "model_seconds": made - meshed,
        "layout_seconds": done - made,
        "seconds": done - start,
        "cpu_seconds": spent,
        "parameters": sum(p.numel() for p in model.parameters()),
        "local_parameters": sum(local),
        "resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    for name, value in laid_out(stage3(), PAPER).items():
        print(f"{name:18} {value:,.3f}")
