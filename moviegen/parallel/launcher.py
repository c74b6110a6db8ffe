"""The processes of one machine, started by Lightning and watched by us.

Lightning looks at its children every five seconds, and kills the first process as soon as one of them has ended with
another code than 0. So it should where a child has died in the middle of a step: the others would wait for it for
ever. But a run that was told to stop ends with such a code as well (130, 143, ...), each process by itself, and the
first has more to do than they, and then seldom the processor: it was killed in the middle of its way out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

TOLD = {
    128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
}  # exit codes of a stop
PERIOD_SECONDS = 1.0
DEAD_SECONDS = 5.0  # that the first process has to say what is wrong: Lightning's
TOLD_SECONDS = 600.0  # that it has once a child was told to go, and went: it may have a checkpoint to finish


class Launcher(_SubprocessScriptLauncher):
    """Lightning's, but after a stop that was asked for the first process leaves by itself."""

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,
        trainer: L.Trainer | None = None,  # noqa: ARG002 (Lightning's signature)
        **kwargs: Any,
    ) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            threading.Thread(target=watch, args=(self.procs,), daemon=True, name="children").start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


def use_launcher(trainer: L.Trainer) -> None:
    """Have `trainer` start its processes by `Launcher`, where it starts any."""
    old = trainer.strategy.launcher
    if type(old) is _SubprocessScriptLauncher:
        trainer.strategy._launcher = Launcher(old.cluster_environment, old.num_processes, old.num_nodes)


def watch(children: Sequence[subprocess.Popen[Any]], period: float = PERIOD_SECONDS) -> None:
    """Once a child has failed, kill all that is left of the run after a while; returns when all have ended well."""
    began: float | None = None  # when a child was first seen to have failed
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if failed:
            began = time.monotonic() if began is None else began
            patience = TOLD_SECONDS if TOLD.issuperset(failed) else DEAD_SECONDS
            if time.monotonic() - began >= patience:
                break
        elif None not in codes:
            return
        time.sleep(period)
    for child in children:
        child.send_signal(signal.SIGKILL)  # nothing, where it has ended
    os.kill(os.getpid(), signal.SIGKILL)
