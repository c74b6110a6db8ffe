"""The keys of conf/launcher/slurm.yaml, and what a command's own settings say about the size of its job."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import DictConfig, open_dict

from moviegen.config import UserError, build, check_least, plain

LAUNCHED = "MOVIEGEN_LAUNCHED"  # set within a job, which runs the very words it was submitted with


@dataclass(frozen=True)
class Slurm:
    """What is asked of SLURM for one job, beyond what the command's own settings say; see conf/launcher/slurm.yaml."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 1440
    cpus_per_process: int = 8
    gpus_per_node: int | None = None
    memory_gb: int | None = None
    signal: Literal["USR1", "USR2", "TERM"] = "USR1"
    warning_seconds: int = 300
    requeue: bool = True
    after: list[int] = field(default_factory=list)
    chain: int = 1
    parts: int = 1
    at_once: int = 256
    follow: bool = False
    setup: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_least(self, minutes=1, cpus_per_process=1, gpus_per_node=0, memory_gb=1, warning_seconds=0)
        check_least(self, chain=1, parts=1, at_once=1)
        if self.chain > 1 and self.parts > 1:
            raise UserError(
                f"launcher.chain={self.chain} launcher.parts={self.parts}: a chain or parts, not both"
            )


@dataclass(frozen=True)
class Job:
    """What SLURM is asked for."""

    slurm: Slurm
    nodes: int = 1
    processes_per_node: int = 1
    gpus_per_node: int = 0

    @property
    def cpus_per_node(self) -> int:
        return self.processes_per_node * self.slurm.cpus_per_process


def take_launcher(cfg: DictConfig) -> Job | None:
    """Take the launcher's node out of a composed config; None where there is none, or the job runs already."""
    node = cfg.get("launcher")
    if "launcher" in cfg:
        with open_dict(cfg):
            del cfg["launcher"]
    if node is None or os.environ.get(LAUNCHED):
        return None
    slurm: Slurm = build(node)
    if slurm.parts > 1 and "num_parts" not in cfg:
        raise UserError(f"launcher.parts={slurm.parts}: this command cannot be split; use launcher.parts=1")
    trainer = plain(cfg).get("trainer") or {}
    if not trainer:
        return Job(slurm, gpus_per_node=slurm.gpus_per_node or 0)
    nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", 1)
    if not isinstance(devices, int) or devices < 1:
        raise UserError(f"trainer.devices={devices}: with a launcher, give the number of processes a node")
    gpus = devices if trainer.get("accelerator") in ("gpu", "cuda") else 0
    return Job(slurm, nodes, devices, gpus if slurm.gpus_per_node is None else slurm.gpus_per_node)
