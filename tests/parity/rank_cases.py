"""What ranks do in the tests of the group itself: answer, fail, die, hang."""

import os
import signal
import time

import torch
import torch.distributed as dist


def summed() -> float:
    value = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(value)
    return float(value)


def wrong_on_one() -> float:
    assert dist.get_rank() != 1, "the loss is wrong"
    return summed()


def die_on_one() -> float:
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGABRT)
    return summed()


def hang_on_one() -> None:
    if dist.get_rank() == 1:
        time.sleep(60)


def abort_at_exit() -> float:
    """A right answer, and a process that aborts when it ends."""
    from multiprocessing.util import Finalize

    if dist.get_rank() == 1:
        Finalize(None, os.abort, exitpriority=1)
    return summed()


def wrong_and_abort_at_exit() -> float:
    """A wrong answer of a process that, besides, aborts when it ends."""
    abort_at_exit()
    return wrong_on_one()
