"""How two processes of gloo end, many times over: as training leaves its group, and in two ways that it does not.

    python experiments/faults/exits.py [times=100] [lag=0]

Each pair trains a sharded layer for some steps and leaves Python by its end, destructors and all. `lag` seconds hold
gloo's thread back in Python after the last collective, which is when an abort is to be expected. Prints exit codes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections import Counter

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from moviegen.parallel.leaving import leave

WAYS = {"leave": leave, "destroy": dist.destroy_process_group, "nothing": lambda: None}
STEPS = 5


def train(rank: int, file: str, way: str, lag: float) -> None:
    """What a rank does before it ends."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    atexit.register(WAYS[way])
    layer = nn.Linear(64, 64)
    fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        layer(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
    work = dist.all_reduce(torch.ones(64), async_op=True)
    if lag:
        work.get_future().then(lambda done: time.sleep(lag))  # noqa: ARG005
    work.wait()


def ended(way: str, lag: float) -> list[int]:
    """Exit codes of a pair, negative for signals."""
    folder, pids = tempfile.mkdtemp(), []
    for rank in (0, 1):
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            train(rank, f"{folder}/join", way, lag)
            sys.exit(0)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    shutil.rmtree(folder)
    return codes


def main(words: list[str]) -> None:
    """Count the ends of `times` pairs for each way of leaving, in turn; prints the counts after every ten."""
    given = dict(word.split("=", 1) for word in words)
    codes = {way: Counter[int]() for way in WAYS}
    for number in range(1, int(given.get("times", 100)) + 1):
        for way, found in codes.items():
            found.update(ended(way, float(given.get("lag", 0))))
        if number % 10 == 0:
            print(f"{number} pairs:", {way: dict(found) for way, found in codes.items()}, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
