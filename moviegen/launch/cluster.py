"""What the cluster has, and whether a job fits it: asked before anything is written or submitted."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from moviegen.config import UserError, nearest
from moviegen.launch.config import Job

SINFO = "%R|%P|%D|%c|%m|%G|%l"  # partition, the same with a star for the default, nodes, and what each has
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Nodes:
    """Like nodes of one partition."""

    partition: str
    default: bool
    count: int
    cpus: int
    memory_mb: int
    gpus: int
    minutes: float  # longest time limit; infinite where there is none

    def fit(self, job: Job) -> bool:
        memory = (job.slurm.memory_gb or 0) * 1000
        return self.cpus >= job.cpus_per_node and self.gpus >= job.gpus_per_node and self.memory_mb >= memory

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ", no GPU"
        return f"{self.count} of {self.cpus} CPUs, {self.memory_mb / 1000:.3g} GB{gpus}"


def check(job: Job) -> None:
    """Raise UserError, with what would fit, where there is no scheduler or none of its partitions takes the job."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "launcher=slurm: there is no SLURM here (no sbatch on the PATH); leave launcher out to run on this "
            "machine, or start the processes of several machines with torchrun"
        )
    found = nodes_of_cluster()
    partition = _partition(job, found)
    own = [nodes for nodes in found if nodes.partition == partition]
    _check_size(job, partition, own)
    longest = max(nodes.minutes for nodes in own)
    if job.slurm.minutes > longest:
        raise UserError(
            f"launcher.minutes={job.slurm.minutes}: partition {partition} allows at most {longest:.0f}; a training "
            f"that needs longer is queued again by itself: use launcher.minutes={longest:.0f}"
        )
    if job.slurm.warning_seconds >= job.slurm.minutes * 60:
        raise UserError(
            f"launcher.warning_seconds={job.slurm.warning_seconds}: must be less than launcher.minutes="
            f"{job.slurm.minutes}, which are {job.slurm.minutes * 60} seconds"
        )


def try_out(options: dict[str, object]) -> None:
    """Have sbatch itself look at the options, without submitting. Raises UserError with its words."""
    flags = [
        _flag(name, value) for name, value in options.items() if value is not None and value is not False
    ]
    done = ask("sbatch", "--test-only", "--wrap=true", *flags)
    if done.returncode:
        words = re.sub(r"(sbatch|allocation failure): (error: )?", "", done.stderr)
        raise UserError(f"SLURM refuses the job: {' '.join(words.split())}")


def nodes_of_cluster() -> list[Nodes]:
    """The nodes of every partition, like ones together. Raises UserError where the controller does not answer."""
    done = ask("sinfo", "--noheader", "--exact", f"--format={SINFO}")
    rows = [
        line.strip().split("|") for line in done.stdout.splitlines() if line.count("|") == SINFO.count("|")
    ]
    if done.returncode or not rows:
        raise UserError(f"launcher=slurm: SLURM does not answer (sinfo: {' '.join(done.stderr.split())})")
    return [
        Nodes(name, starred.endswith("*"), int(count), _int(cpus), _int(memory), _gpus(gres), _minutes(limit))
        for name, starred, count, cpus, memory, gres, limit in rows
    ]


def ask(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs; one that does not answer in time has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _partition(job: Job, found: list[Nodes]) -> str:
    names = list(dict.fromkeys(nodes.partition for nodes in found))
    wanted = job.slurm.partition
    if wanted in names:
        return wanted
    if wanted is None:
        standard = next((nodes.partition for nodes in found if nodes.default), None)
        if standard is None:
            raise UserError(
                f"this cluster has no default partition: add launcher.partition=..., of {', '.join(names)}"
            )
        return standard
    own = "; ".join(f"{nodes.partition}: {nodes}" for nodes in found)
    raise UserError(
        f"launcher.partition={wanted}: no such partition; {nearest(wanted, names)} (nodes of {own})"
    )


def _check_size(job: Job, partition: str, own: list[Nodes]) -> None:
    fitting = sum(nodes.count for nodes in own if nodes.fit(job))
    if fitting >= job.nodes:
        return
    if fitting:
        raise UserError(
            f"nodes={job.nodes}: partition {partition} has {fitting} that fit; use nodes={fitting} or fewer"
        )
    gpus = f" and {job.gpus_per_node} GPUs" if job.gpus_per_node else ""
    memory = f", {job.slurm.memory_gb} GB" if job.slurm.memory_gb else ""
    most = max(nodes.cpus for nodes in own) // job.processes_per_node
    hint = f"; launcher.cpus_per_process={most} would fit" if 0 < most < job.slurm.cpus_per_process else ""
    raise UserError(
        f"{job.processes_per_node} processes of {job.slurm.cpus_per_process} CPUs a node{memory}{gpus} do not fit the "
        f"nodes of partition {partition} ({'; '.join(map(str, own))}){hint}"
    )


def _flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def _int(text: str) -> int:
    return int(re.match(r"\d*", text).group() or 0)  # type: ignore[union-attr] (an empty match is one too)


def _gpus(gres: str) -> int:
    """`gpu:h100:8(S:0-1),shard:16` has 8; `gpu:2` has 2."""
    return sum(map(int, re.findall(r"\bgpu(?::[\w.-]*[A-Za-z][\w.-]*)?:(\d+)", gres)))


def _minutes(limit: str) -> float:
    """`1-12:00:00` are 2160 minutes; a word such as infinite is no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", limit)
    if match is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60
