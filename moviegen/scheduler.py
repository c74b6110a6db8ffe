"""The SLURM job that this process runs in, if it does: its id, the address of its first node, and its way back into
the queue. No torch here: callbacks and the job's own wrapper both use it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

JOB = "MOVIEGEN_JOB"  # the id, where a job hides SLURM's variables from the command that it runs
TIMEOUT_SECONDS = 60  # of one question to the controller, which may be busy


def job_id() -> str | None:
    """This job as `scontrol` names it, None outside of SLURM.

    A task of an array is <array>_<task>: the plain id of the array's last task is the id of the whole array, and
    requeuing that would restart all of them.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    own = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return os.environ.get(JOB, own)


def is_first_task() -> bool:
    """Whether this process is the one of its job that speaks for it."""
    return os.environ.get("SLURM_PROCID", "0") == "0"


def requeue() -> bool:
    """Put this job back into the queue, once all ranks have saved what they know; True if SLURM took it back.

    Call it on one rank only. SLURM then ends all processes of the job. Outside of SLURM, and for a job that was
    cancelled or has reached its end, nothing is done: it must not rise again.
    """
    job = job_id()
    if job is None or job_state(job) != "RUNNING":
        return False
    done = _ask("scontrol", "requeue", job)
    if done.returncode:
        print(f"warning: SLURM does not requeue job {job}: {done.stderr.strip()}", flush=True)
    return done.returncode == 0


def job_state(job: str) -> str:
    """Its state as SLURM names it (PENDING, RUNNING, COMPLETED, ...); UNKNOWN once the controller has forgotten it."""
    found = re.search(r"\bJobState=(\w+)", _ask("scontrol", "--oneliner", "show", "job", job).stdout)
    return found.group(1) if found else "UNKNOWN"


def set_main_address() -> None:
    """Set MASTER_ADDR, where ranks meet, to the address of the job's first node, unless it is set.

    A node's name need not be the name of a host; Lightning would take it for one.
    """
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if not nodes or "MASTER_ADDR" in os.environ:
        return
    names = _ask("scontrol", "show", "hostnames", nodes).stdout.split()
    if names:
        node = _ask("scontrol", "--oneliner", "show", "node", names[0]).stdout
        found = re.search(r"\bNodeAddr=(\S+)", node)
        os.environ["MASTER_ADDR"] = found.group(1) if found else names[0]


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs; where there is none, or no answer, it has failed."""
    if shutil.which(command[0]) is None:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not on the PATH of this node")
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(
            command, 124, "", f"{command[0]} did not answer in {TIMEOUT_SECONDS} s"
        )
