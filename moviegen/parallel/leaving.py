"""How a process leaves its group without being aborted on the way out.

A gloo worker was once seen to abort at its end. The likely cause, described in pytorch's pull request 179291: threads
of gloo free the tensors of a collective a moment after it has been waited for. Where Python has let go of such a
tensor, that takes Python's lock; if the interpreter has begun to shut down by then, the thread is ended inside a
destructor and takes the process down with SIGABRT. The work was done, but the exit code says otherwise. To destroy the
group is not enough: meshes and sharded parameters hold on to it, so its threads live on. We could not make it happen
again, in some 200 processes: this is a precaution.
"""

from __future__ import annotations

import gc
import time

import torch.distributed as dist

QUIET = 0.1  # seconds; the threads need far less than one of Python's turns, 0.005


def leave() -> None:
    """End this process' part in the default group, and let gloo's threads finish while Python's lock is free.

    To be called when nothing more is to be sent: at the end of a program, by `atexit`.
    """
    if not dist.is_initialized():
        return
    dist.destroy_process_group()
    gc.collect()
    time.sleep(QUIET)
