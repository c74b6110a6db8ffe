"""How a process leaves its group without being aborted on the way out.

A thread of gloo wakes whoever waits for a collective, and a moment later lets go of the collective's tensors. Where
Python has let go of such a tensor before, the thread has to take Python's lock to free it. If the interpreter has begun
to shut down by then, Python 3.11 ends the thread there, inside a destructor, and C++ answers with "terminate called
without an active exception": SIGABRT, though the work was done. The moment is some microseconds long, unless the
processor is taken from the thread within it, as happens where there are more processes than processors.
experiments/faults/exits.py makes that happen, and counts. To destroy the group is not enough: meshes and sharded
parameters hold on to it, so its threads live on.
"""

from __future__ import annotations

import contextlib
import gc
import time
from pathlib import Path

import torch.distributed as dist

QUIET_SECONDS = 0.05  # with Python's lock free: the threads need far less than one of Python's turns, 0.005
PATIENCE_SECONDS = 10.0  # with a thread that gets no processor


def leave() -> None:
    """End this process' part in the default group, and let gloo's threads finish while Python's lock is free.

    To be called when nothing more is to be sent: at the end of a program, by `atexit`.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    gc.collect()
    quiet, deadline = 0, time.monotonic() + PATIENCE_SECONDS
    while (
        quiet < 2 and time.monotonic() < deadline
    ):  # twice: at the first look a thread may wait for Python's lock
        time.sleep(QUIET_SECONDS)
        quiet = 0 if _at_work() else quiet + 1


def _at_work() -> bool:
    """Whether a thread of gloo runs, or would if it had a processor; only Linux can tell."""
    for thread in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            if (thread / "comm").read_text().startswith("pt_gloo_runloop"):
                state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                if state == "R":
                    return True
    return False
