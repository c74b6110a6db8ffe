"""Whoever starts the other processes of a machine outlives a stop that was asked for, and no process that has died."""

import subprocess
import sys

import lightning.pytorch as L
import pytest

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.launcher import Launcher, use_launcher
from moviegen.parallel.mesh import MeshConfig
from moviegen.parallel.strategy import MeshStrategy

FIRST = """
import subprocess, sys, threading, time
from moviegen.parallel import launcher
launcher.DEAD_SECONDS = 0.1
children = [subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"]) for code in CODES]
threading.Thread(target=launcher.watch, args=(children, 0.05), daemon=True).start()
for child in children:
    child.wait()
time.sleep(1.5)  # what the first process still has to do
raise SystemExit(7)
"""


@pytest.mark.parametrize(
    ("codes", "end"),
    [([0, 0], 7), ([130, 130], 7), ([0, 143], 7), ([0, 1], -9), ([130, 2], -9), ([130, 134], -9)],
)
def test_the_first_process_is_killed_for_a_child_that_died_and_not_for_one_that_was_told_to_go(
    codes, end
) -> None:
    done = subprocess.run([sys.executable, "-c", f"CODES = {codes}{FIRST}"], timeout=120, check=False)
    assert done.returncode == end


@pytest.mark.parametrize("strategy", ["ddp", MeshStrategy(ParallelConfig(), MeshConfig())])
def test_a_trainer_of_several_processes_starts_them_by_it(strategy) -> None:
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, logger=False, enable_checkpointing=False
    )
    use_launcher(trainer)
    assert type(trainer.strategy.launcher) is Launcher
