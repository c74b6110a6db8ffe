"""What runs within a SLURM job, once in each of its processes: the command as it was typed, and the way back into
the queue where it was cut off.
"""

from __future__ import annotations

import os
import signal
import sys

from moviegen import interrupts, runfolder, scheduler
from moviegen.launch.config import LAUNCHED

WARNINGS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TERMINATED = {128 + number for number in WARNINGS}  # exit codes of a command that has saved and can go on
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")


def run(words: list[str], commit: str | None) -> None:
    """Run `moviegen <words>`; leaves by SystemExit with its code unless that is 0.

    The warning signals and SIGTERM all mean that the job is about to be taken off its nodes. A training saves then, and
    requeues its job; where it has not begun, and in other commands, they end the command, and the job is requeued here.

    Args:
        commit: of the code when the job was submitted; another one is told of in the log.
    """
    os.environ[LAUNCHED] = "1"
    sys.argv = ["moviegen", *words]  # what run.json tells of
    for number in WARNINGS:
        signal.signal(number, interrupts.terminate)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    scheduler.set_main_address()
    now = runfolder.git_state()["commit"]
    if scheduler.is_first_task() and now != commit:
        print(f"warning: submitted at commit {commit}, runs at {now}", flush=True)
    from moviegen import cli

    try:
        code = cli.main(words)
    except SystemExit as leaving:
        code = leaving.code
    if code in TERMINATED and scheduler.is_first_task():
        for number in WARNINGS:
            signal.signal(number, signal.SIG_IGN)  # the end of another rank has SLURM end this one
        scheduler.requeue()
    if code:
        sys.exit(code)


def run_alone(words: list[str], commit: str | None) -> None:
    """As `run`, in a task of an array that is a job of its own and not a part of one."""
    os.environ[scheduler.JOB] = scheduler.job_id() or ""
    for name in ARRAY:  # conf/score.yaml would take them for its part
        os.environ.pop(name, None)
    run(words, commit)
