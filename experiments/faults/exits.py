"""How two processes of gloo end, many times over: as training leaves its group, and in two ways that it does not.

    python experiments/faults/exits.py [out=FOLDER] [times=100] [hold=none|starve|callback] [ways=leave,destroy,nothing]

Each pair trains a sharded layer for some steps, drops the tensor of a last collective as soon as that is done, and
leaves Python by its end, destructors and all. `hold` says what becomes of gloo's thread between the moment when the
collective is done and the one when the thread lets go of the tensor, which is when an abort is to be expected:

    none        nothing: the moment is some microseconds long
    starve      the thread gets what is left over (SCHED_IDLE) of one processor for all, as on a busy machine
    callback    the thread sleeps in Python for 0.05 s

Prints exit codes and, of processes that were aborted, their last words; writes `exits_HOLD.json` in `out`.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch._dynamo  # what a first step would import, in each process
import torch.distributed as dist
from moviegen_eval.numbers import Figure, write_numbers
from moviegen_eval.stats import wilson
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from moviegen.parallel import leaving
from moviegen.parallel.leaving import leave

WAYS: dict[str, Callable[[], object]] = {
    "leave": leave,
    "destroy": dist.destroy_process_group,
    "nothing": lambda: None,
}
HOLDS = ("none", "starve", "callback")
STEPS, LAG, PATIENCE = 3, 0.05, 120.0


@dataclass
class Ends:
    """How the processes of one way have ended."""

    codes: Counter[int] = field(default_factory=Counter)  # negative for signals
    words: Counter[str] = field(default_factory=Counter)  # the last of those that were aborted
    wrong: int = 0  # results of the last collective that are not what they must be


def starve() -> None:
    """Give gloo's threads only what others leave of the processor that this process is on."""
    here = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, here)
    for thread in Path("/proc/self/task").iterdir():
        if (thread / "comm").read_text().startswith("pt_gloo_runloop"):
            os.sched_setaffinity(int(thread.name), here)
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def train(rank: int, folder: str, way: str, hold: str) -> None:
    """What a rank does before it ends; its result is a file beside the group's."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/join", rank=rank, world_size=2)
    atexit.register(WAYS[way])
    layer = nn.Linear(64, 64)
    fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        layer(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
    dist.barrier()
    if hold == "starve":
        starve()
    value = torch.full((64,), float(rank + 1))
    work = dist.all_reduce(value, async_op=True)
    if hold == "callback":
        work.get_future().then(lambda done: time.sleep(LAG))  # noqa: ARG005
    work.wait()
    Path(f"{folder}/result-{rank}").write_text(str(float(value.sum())))


def ended(way: str, hold: str, ends: Ends) -> None:
    """Let one pair run, and note how it ended."""
    folder, pids = tempfile.mkdtemp(), []
    for rank in (0, 1):
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(f"{folder}/words-{rank}", os.O_WRONLY | os.O_CREAT), 2)
            signal.alarm(int(PATIENCE))
            train(rank, folder, way, hold)
            sys.exit(0)
        pids.append(pid)
    for rank, pid in enumerate(pids):
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ends.codes[code] += 1
        if code:
            said = Path(f"{folder}/words-{rank}").read_text(errors="replace").strip().splitlines()
            ends.words[said[-1][-200:] if said else ""] += 1
        result = Path(f"{folder}/result-{rank}")
        ends.wrong += not (result.is_file() and float(result.read_text()) == 64 * 3)
    shutil.rmtree(folder)


def main(words: list[str]) -> None:
    """Count the ends of `times` pairs for each way of leaving, in turn; prints the counts after every ten."""
    given = dict(word.split("=", 1) for word in words)
    hold, times = given.get("hold", "none"), int(given.get("times", 100))
    if hold not in HOLDS:
        sys.exit(f"error: hold={hold}: must be one of {', '.join(HOLDS)}")
    ways = {way: Ends() for way in given.get("ways", ",".join(WAYS)).split(",")}
    for number in range(1, times + 1):
        for way, ends in ways.items():
            ended(way, hold, ends)
        if number % 10 and number != times:
            continue
        for way, ends in ways.items():
            print(
                f"{hold}, {way}, {number} pairs: {dict(ends.codes)} {dict(ends.words)} wrong {ends.wrong}",
                flush=True,
            )
    if "out" in given:
        out = Path(given["out"])
        out.mkdir(parents=True, exist_ok=True)
        write_numbers(
            out / f"exits_{hold}.json",
            [one for way in ways for one in figures(f"exits/{hold}/{way}", ways[way])],
        )


def figures(name: str, ends: Ends) -> list[Figure]:
    """The share of processes that were aborted, with its interval, and how many ended in any other way than well."""
    total, aborted = ends.codes.total(), ends.codes[-signal.SIGABRT]
    low, high = wilson(aborted, total) or (None, None)
    others = total - aborted - ends.codes[0]
    return [
        Figure(f"{name}/aborted", aborted / max(total, 1), low, high, total, "", False),
        Figure(f"{name}/other_bad_ends", float(others), None, None, total, "", False),
        Figure(f"{name}/wrong_results", float(ends.wrong), None, None, total, "", False),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()  # to look through all that is imported, at each end, would take most of the time
    leaving.PATIENCE_SECONDS = 100.0  # a thread that is starved on purpose; PATIENCE bounds it all
    main(sys.argv[1:])
