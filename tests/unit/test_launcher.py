"""Whoever starts the other processes of a machine outlives a stop that was asked for, and no process that has died."""

import json
import subprocess
import sys

import lightning.pytorch as L
import pytest

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.launcher import Launcher, use_launcher
from moviegen.parallel.mesh import MeshConfig
from moviegen.parallel.strategy import MeshStrategy

CASES = [([0, 0], 7), ([130, 130], 7), ([0, 143], 7), ([0, 1], -9), ([130, 2], -9), ([130, 134], -9)]
FIRST = """
import json, os, subprocess, sys, threading, time
from moviegen.parallel import launcher

def first(codes):
    children = [subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"]) for code in codes]
    threading.Thread(target=launcher.watch, args=(children, 0.05), daemon=True).start()
    for child in children:
        child.wait()
    time.sleep(1.5)  # what the first process still has to do
    os._exit(7)

launcher.DEAD_SECONDS = 0.1
ends = []
for codes in json.loads(sys.argv[1]):  # each in a process of its own, which needs no imports of its own
    pid = os.fork() or first(codes)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(ends))
"""


def test_the_first_process_is_killed_for_a_child_that_died_and_not_for_one_that_was_told_to_go() -> None:
    command = [sys.executable, "-c", FIRST, json.dumps([codes for codes, _ in CASES])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [end for _, end in CASES]


@pytest.mark.parametrize("strategy", ["ddp", MeshStrategy(ParallelConfig(), MeshConfig())])
def test_a_trainer_of_several_processes_starts_them_by_it(strategy) -> None:
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False
    )
    use_launcher(trainer)
    assert type(trainer.strategy.launcher) is Launcher
