"""A training small enough to be killed hundreds of times: real trainer, data, averages and checkpoints, a tiny model.

Every attempt is a fork of a process that has imported everything and trained nothing. Each rank notes every finished
step: its samples, its loss, and a digest of all that the next step depends on.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import torch.distributed as dist
from fault_layouts import Laid, strategy
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from moviegen.callbacks import states
from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.ema import EMA
from moviegen.callbacks.manifest import Manifest
from moviegen.callbacks.preemption import Preempted, Preemption
from moviegen.callbacks.storage import read_chunk
from moviegen.callbacks.watchdog import Watchdog
from moviegen.data.module import ShardData, Source
from moviegen.fields import LATENT, Field
from moviegen.rng import SampleRng
from moviegen.tasks.base import NotFiniteError, Task
from moviegen.tasks.schedule import WarmupCosine
from moviegen.tasks.sharded import whole
from moviegen.types import Batch

Fault = Callable[["Tiny | Laid", int], None]  # the task and its rank, before the first step
CODES = {"done": 0, "error": 1, "not finite": 3, "interrupted": 130}


@dataclass(frozen=True)
class Run:
    """One training: where, how long, and how it saves."""

    folder: Path
    shards: Path
    steps: int = 16
    every: int = 4
    keep: int = 2
    background: bool = False
    world: int = 1
    layout: str | None = None  # one of `fault_layouts`; None: each rank has all weights (ddp)
    batch_size: int = 4
    num_workers: int = 0
    dropout: float = 0.1
    accumulate: int = 1
    step_seconds: float = 0.0  # added to each step, where a signal is to meet one
    watchdog_seconds: float = 0.0

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


def _unchanged(step: int, value: Tensor) -> Tensor:  # noqa: ARG001
    return value


class Tiny(Task):
    """Tells the noise from noisy latents; `hooks` are called in each step, and in each backward pass."""

    def __init__(self, dropout: float, step_seconds: float):
        super().__init__(partial(torch.optim.AdamW, lr=1e-2), WarmupCosine(3, 100))
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(128, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 128))
        self.step_seconds = step_seconds
        self.in_step: Callable[[int, Tensor], Tensor] = _unchanged
        self.in_backward: Callable[[int, Tensor], Tensor] = _unchanged

    @property
    def fields(self) -> dict[str, Field]:
        return {"media": LATENT}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        step, clean = self.global_step, batch.media.values.flatten(1) / 30  # type: ignore[union-attr]
        noise = SampleRng(0, step, batch.keys).randn(clean.shape[1])
        hidden = self.net(clean + noise)
        hidden.register_hook(lambda gradient: self.in_backward(step, gradient))
        time.sleep(self.step_seconds)
        losses = self.in_step(step, (hidden - noise).square().mean(dim=1))
        return self.mean_loss(losses, batch)


class Notes(Checkpoint):
    """Writes a line for each finished step; stands before `Checkpoints`, so that a step is noted before it is saved."""

    def __init__(self, file: Path, attempt: int):
        self.file, self.attempt = file, attempt
        self.step, self.ids = -1, []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step > self.step:
            self.step, self.ids = trainer.global_step, []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        self.ids += batch.names
        if trainer.global_step == self.step:  # gradients of more batches are added first
            return
        tensors, state = states.collect(trainer, pl_module)
        rank, _ = states.rank_and_world()
        line = {
            "attempt": self.attempt,
            "rank": rank,
            "step": trainer.global_step,
            "ids": self.ids,
            "loss": float(outputs["loss"]),
            "state": digest(tensors, state, together=trainer.global_step % 2 == 0),  # saves are of even steps
            "rng": digest({f"rng/{rank}/{name}": value for name, value in states.rng_state().items()}, {}),
        }
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, (json.dumps(line) + "\n").encode())
        os.close(handle)


def digest(tensors: Mapping[str, Tensor], state: Mapping[str, Any], together: bool = True) -> str:
    """One number for all tensors and plain values; counters of the trainer's loops are left out.

    Where tensors are shards, of the whole, for which all ranks ask `together`, or of the rank's own part.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        value = tensors[name].detach()
        value = (
            value.to_local() if isinstance(value, DTensor) and not together else whole(value)
        ).contiguous()
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    plain = {name: value for name, value in state.items() if name != "loops"}
    found.update(json.dumps(plain, sort_keys=True).encode())
    return found.hexdigest()


def digest_of_checkpoint(folder: Path, manifest: Manifest) -> tuple[str, list[str]]:
    """The same of a checkpoint, every byte checked, and those of each rank's random numbers."""
    found: dict[str, Tensor] = {}
    for name, entry in manifest.tensors.items():
        found[name] = torch.empty(entry.shape, dtype=entry.torch_dtype)
        for chunk in entry.chunks:
            part = found[name]
            for dim, (first, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                part = part.narrow(dim, first, size)
            part.copy_(read_chunk(folder, name, entry, chunk))
    rest = {name: value for name, value in found.items() if not name.startswith("rng/")}
    ranks = [
        digest({n: v for n, v in found.items() if n.startswith(f"rng/{rank}/")}, {})
        for rank in range(manifest.num_ranks)
    ]
    return digest(rest, manifest.state), ranks


def train(run: Run, rank: int, attempt: int, fault: Fault | None) -> None:
    """Train in this process, one rank of `run.world`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    L.seed_everything(rank, verbose=False)  # ranks differ
    task = Laid() if run.layout else Tiny(run.dropout, run.step_seconds)
    data = ShardData({"all": Source(str(run.shards))}, batch_size=run.batch_size, num_workers=run.num_workers)
    data.use(task.fields)
    callbacks: list[L.Callback] = [
        EMA(0.9),
        Notes(run.folder / "notes.jsonl", attempt),
        Checkpoints(str(run.checkpoints), run.every, run.keep, run.background),
        Preemption(),
    ]
    if run.watchdog_seconds:
        callbacks.append(Watchdog(str(run.folder), run.watchdog_seconds))
    alone = "ddp" if run.world > 1 else "auto"
    trainer = L.Trainer(
        accelerator="cpu", devices=run.world, max_steps=run.steps, callbacks=callbacks,
        strategy=strategy(run.layout, run.world) if run.layout else alone,
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, gradient_clip_val=1.0, accumulate_grad_batches=run.accumulate,
        default_root_dir=run.folder,
    )  # fmt: skip
    if fault is not None:
        fault(task, rank)
    trainer.fit(task, data)


def start(run: Run, attempt: int = 0, fault: Fault | None = None) -> list[int]:
    """Fork the ranks of a run; their process ids. They form a process group of their own, led by the first."""
    run.folder.mkdir(parents=True, exist_ok=True)
    port, pids = _free_port(), []
    for rank in range(run.world):
        pid = os.fork()
        if pid == 0:
            _as_rank(run, rank, attempt, fault, port, pids[0] if pids else 0)
        os.setpgid(pid, pids[0] if pids else pid)
        pids.append(pid)
    return pids


def _as_rank(run: Run, rank: int, attempt: int, fault: Fault | None, port: int, leader: int) -> None:
    """What a forked rank does; it never returns."""
    code = CODES["error"]
    try:
        os.setpgid(0, leader)
        out = os.open(run.folder / f"output-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        faulthandler.disable()  # deaths here are wanted
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if run.world > 1:  # as torchrun tells its processes
            here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run.world, "LOCAL_WORLD_SIZE": run.world}
            here |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update(
                {name: str(value) for name, value in here.items()}, TORCHELASTIC_RUN_ID="faults"
            )
        train(run, rank, attempt, fault)
        if dist.is_initialized():
            dist.barrier()  # Lightning leaves the group to the end of the process, and gloo wants no early leaver
        code = CODES["done"]
    except Preempted as error:
        code = error.exit_code
    except NotFiniteError:
        code = CODES["not finite"]
    except SystemExit as error:
        code = CODES["interrupted"] if isinstance(error.__context__, KeyboardInterrupt) else CODES["error"]
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finish(pids: list[int], seconds: float = 60.0) -> list[int | None]:
    """Wait for the ranks; their exit codes, negative for signals, None for one killed after `seconds`."""
    deadline, codes = time.monotonic() + seconds, dict.fromkeys(pids, -1)
    left = set(pids)
    while left and time.monotonic() < deadline:
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                left.discard(pid)
        time.sleep(0.005)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [None if pid in left else codes[pid] for pid in pids]


def notes(run: Run) -> list[dict[str, Any]]:
    """All noted steps, in the order of writing; the last line may have been cut off by a kill."""
    file = run.folder / "notes.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _free_port() -> int:
    """A port for ranks to meet at, of those that no outgoing connection is given before the first rank listens."""
    while True:
        port = secrets.choice(range(10_000, 32_768))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
