"""A process that leaves its group in order ends well, also when a thread of gloo still needs Python."""

import subprocess
import sys
from pathlib import Path

# A thread of gloo needs Python's lock for a moment after its collective has been waited for: here to call something
# back, in training to free a tensor. LAG makes that moment come when the interpreter is on its way out.
PROGRAM = """
import atexit, os, sys, time
import torch, torch.distributed as dist
from moviegen.parallel.leaving import leave

LAG = 0.05
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=2)
kept = dist.new_group()  # as a mesh keeps one
if rank == 1:
    time.sleep(0.5)  # by then, rank 0 waits
work = dist.all_reduce(torch.ones(3), group=kept, async_op=True)
if rank == 1:
    work.wait()
    time.sleep(1)
    os._exit(0)
if sys.argv[2] == "leave":
    atexit.register(leave)
if sys.argv[2] == "destroy":
    atexit.register(dist.destroy_process_group)
work.get_future().then(lambda done: time.sleep(LAG))
work.wait()
"""


def exit_code(folder: Path, how: str) -> int:
    words = [sys.executable, "-c", PROGRAM, str(folder / how), how]
    return subprocess.run(words, capture_output=True, timeout=120, check=False).returncode


def test_a_process_that_leaves_in_order_ends_well(tmp_path: Path) -> None:
    assert exit_code(tmp_path, "leave") == 0
