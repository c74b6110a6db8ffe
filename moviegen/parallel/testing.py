"""A group of processes that tests share: started once, it runs one function after another on every rank.

A result is one only when every rank has given its own. A rank that dies while it works raises RankDeathError in place
of any result; one that dies when the group is closed raises it there, after all results have been handed over.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any

PRELOAD = ["moviegen.tasks.flow_task", "moviegen.parallel.strategy"]  # imported once, not by each process


class RankError(AssertionError):
    """A function raised on a rank; the message holds its traceback."""


class RankDeathError(RuntimeError):
    """A process ended that should not have, or not in that way; the message says how."""


def _serve(rank: int, world: int, device: str, folder: str, jobs: Connection) -> None:
    """What a rank does until it is told to end."""
    import torch
    import torch.distributed as dist

    from moviegen.parallel.leaving import leave

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    while (job := jobs.recv()) is not None:
        function, args = job
        try:
            jobs.send((True, function(*args)))
        except BaseException:
            jobs.send((False, traceback.format_exc()))
    dist.barrier()  # none goes while another still talks
    leave()
    jobs.send((True, None))


class Ranks:
    """`world` processes of one group on this machine: of gloo, or on GPUs of NCCL too, where each has one."""

    def __init__(self, world: int, device: str = "cpu"):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._folder = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self.num_jobs = 0  # that were run
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, device, self._folder.name, theirs))
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
        """What a function of a module gives on each rank. Raises RankError, or RankDeathError."""
        self.num_jobs += 1
        for pipe in self._pipes:
            pipe.send((function, args))
        return self._answers(timeout)

    def _answers(self, timeout: float) -> list[Any]:
        answers: dict[int, Any] = {}
        while len(answers) < len(self._pipes):
            waiting = {self._pipes[rank]: rank for rank in range(len(self._pipes)) if rank not in answers}
            ready = wait_for(list(waiting), timeout)
            if not ready:
                self.kill()
                raise RankDeathError(f"ranks {sorted(waiting.values())} gave no answer within {timeout} s")
            for pipe in ready:
                rank = waiting[pipe]  # type: ignore[index]
                try:
                    good, answer = pipe.recv()  # type: ignore[union-attr]
                except (EOFError, ConnectionResetError):
                    good, answer = False, "no answer"
                if not good:
                    self._fail(rank, answer)
                answers[rank] = answer
        return [answers[rank] for rank in range(len(self._pipes))]

    def _fail(self, rank: int, answer: str) -> None:
        """Raise for a rank without a result. Where a process has died, the others failed for its sake."""
        wait_for([process.sentinel for process in self._processes], 2)
        codes = self.exit_codes
        self.kill()  # the others may wait for ever
        if dead := [f"rank {one} {_ending(code)}" for one, code in enumerate(codes) if code is not None]:
            raise RankDeathError(f"{', '.join(dead)} before it gave an answer; rank {rank}: {answer}")
        raise RankError(f"rank {rank}:\n{answer}")

    def close(self) -> None:
        """End all processes; raises RankDeathError for one that ends in another way than by itself and in order."""
        if not self.alive:
            return
        for pipe in self._pipes:
            pipe.send(None)
        self._answers(60)
        for process in self._processes:
            process.join(60)
        codes = self.exit_codes
        self.kill()
        if any(codes):
            wrong = [f"rank {rank} {_ending(code)}" for rank, code in enumerate(codes) if code != 0]
            raise RankDeathError(f"after all results were given: {', '.join(wrong)}")

    def kill(self) -> None:
        """End all processes at once."""
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    @property
    def exit_codes(self) -> list[int | None]:
        """As `Process.exitcode`: negative for a signal, None of a process that runs."""
        return [process.exitcode for process in self._processes]


def _ending(code: int | None) -> str:
    if code is None:
        return "did not end"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
