"""Write and submit jobs through submitit, keep with the run what was submitted, and follow it on request.

A run's folder `slurm/` holds, by job id: the script, the command with its commit (and the changes to it that were not
committed), and the log of each node. submitit's own pickles lie there too; only the job reads them.
"""

from __future__ import annotations

import datetime
import getpass
import importlib.util
import shlex
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from moviegen import runfolder
from moviegen.config import REPOSITORY, UserError
from moviegen.launch import cluster, job
from moviegen.launch.config import Job
from moviegen.launch.follow import follow
from moviegen.space import check_output

GENERIC = {"name", "timeout_min", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb"}
NODE_LOG = "node%n-%N.log"  # number within the job, and name of its machine


def submit(name: str, overrides: list[str], cfg: DictConfig, wanted: Job) -> int:
    """Submit `moviegen <name> <overrides>`, print the job's id, and return the exit code.

    Raises UserError or ValueError, before anything is written, where the job or what it writes does not fit.
    """
    folder = refuse_misfits(name, [cfg], wanted)[0]
    words, logs = [*name.split(), *overrides], folder / "slurm"
    commit = runfolder.git_state()["commit"]
    executor = _executor(logs)
    slurm = wanted.slurm
    call = (job.run, words, commit)
    ids: list[str] = []
    for _ in range(slurm.chain):
        waits_for = f"afternotok:{ids[-1]}" if ids else None
        executor.update_parameters(**_prefixed(parameters(name, wanted, logs, waits_for, slurm.parts)))
        new = _submitted(executor, call, slurm.parts)
        keep(logs, new, words)
        ids += new
    tell(ids, words, logs)
    return follow(ids, logs) if slurm.follow else 0


def refuse_misfits(name: str, configs: Sequence[DictConfig], wanted: Job) -> list[Path]:
    """The folders that the jobs write to; raises UserError or ValueError for what cannot be launched."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError("launcher=slurm needs submitit: pip install 'moviegen[slurm]'")
    cluster.check(wanted)
    folders: list[Path] = []
    for cfg in configs:
        key = "run_dir" if "run_dir" in cfg else "out"
        folders.append(Path(str(cfg[key])).absolute())
        if "%" in str(folders[-1]):
            raise UserError(f"{key}={cfg[key]}: SLURM reads a % in the name of a log; choose a name without")
        check_output(folders[-1], key)
        if name == "train":
            from moviegen.train import check_job

            check_job(cfg, wanted.processes_per_node)
    cluster.try_out(sbatch_options(wanted))
    return folders


def sbatch_options(wanted: Job, waits_for: str | None = None) -> dict[str, Any]:
    """What both sbatch's own check and the script are given, by sbatch's names."""
    slurm = wanted.slurm
    after = [f"afterok:{':'.join(map(str, slurm.after))}"] if slurm.after else []
    dependency = ",".join([*after, *([waits_for] if waits_for else [])])
    return {
        "time": slurm.minutes,
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.processes_per_node,
        "cpus_per_task": slurm.cpus_per_process,
        "gpus_per_node": wanted.gpus_per_node or None,
        "mem": None if slurm.memory_gb is None else f"{slurm.memory_gb}GB",
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "dependency": dependency or None,
        "kill_on_invalid_dep": "yes" if dependency else None,
        "signal": f"{slurm.signal}@{slurm.warning_seconds}",
        "requeue" if slurm.requeue and slurm.chain == 1 else "no_requeue": True,
        **slurm.options,
    }


def parameters(
    name: str, wanted: Job, logs: Path, waits_for: str | None = None, tasks: int = 1
) -> dict[str, Any]:
    """The same as submitit's parameters, with what surrounds the command in the script; None for what is not set.

    Args:
        waits_for: a dependency on the link of a chain before.
        tasks: of a job array; 1 is a plain job.
    """
    options = sbatch_options(wanted, waits_for)
    own = ("time", "nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "mem")
    wide = f"--cpus-per-task={wanted.slurm.cpus_per_process}"  # srun no longer takes it over from sbatch
    job_number = "%A_%a" if tasks > 1 else "%j"
    return {
        "name": f"moviegen-{name.replace(' ', '-')}",
        "timeout_min": options["time"],
        "nodes": options["nodes"],
        "tasks_per_node": options["ntasks_per_node"],
        "cpus_per_task": options["cpus_per_task"],
        "gpus_per_node": options["gpus_per_node"],
        "mem_gb": wanted.slurm.memory_gb,
        "stderr_to_stdout": True,
        "array_parallelism": wanted.slurm.at_once,
        "additional_parameters": {
            key.replace("_", "-"): value
            for key, value in options.items()
            if key not in own and value is not None
        },
        "srun_args": [f"--output={logs / f'{job_number}-{NODE_LOG}'}", "--kill-on-bad-exit=1", wide],
        "setup": _setup(wanted.slurm.setup),
    }


def keep(logs: Path, ids: Sequence[str], words: Sequence[str]) -> None:
    """Write beside the logs, by job, what was submitted: the command, its folder, and the exact code."""
    git = runfolder.git_state()
    patch = _uncommitted() if git["dirty"] else ""
    for one in ids:
        if patch:
            runfolder.write_text(logs / f"{one}.patch", patch)
        submitted = {
            "job": one,
            "command": ["moviegen", *words],
            "folder": str(Path.cwd()),
            "git": git,
            "uncommitted": f"{one}.patch" if patch else None,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "by": f"{getpass.getuser()}@{socket.gethostname()}",
        }
        runfolder.write_json(logs / f"{one}.json", submitted)


def tell(ids: Sequence[str], words: Sequence[str], logs: Path) -> None:
    """Print the ids, and how to watch and to end the jobs."""
    array = len(ids) > 1 and all("_" in one for one in ids)
    shown = f"{ids[0].split('_')[0]} ({len(ids)} tasks)" if array else ", ".join(ids)
    all_ids = " ".join(dict.fromkeys(one.split("_")[0] for one in ids))
    print(f"submitted job {shown}: moviegen {shlex.join(words)}")
    print(f"  logs:   tail -F {shlex.quote(str(logs))}/{ids[0]}-node0-*.log")
    print(f"  state:  squeue --job {all_ids.replace(' ', ',')}")
    print(f"  cancel: scancel {all_ids}")


def _submitted(executor: Any, call: tuple[Any, ...], parts: int) -> list[str]:
    """Ids of the job, or of the tasks of an array that each make the same call."""
    try:
        if parts == 1:
            return [executor.submit(*call).job_id]
        columns = [[value] * parts for value in call[1:]]
        return [one.job_id for one in executor.map_array(call[0], *columns)]
    except RuntimeError as error:  # of submitit, for what sbatch said
        raise UserError(f"SLURM refuses the job: {' '.join(str(error).split())}") from error


def _executor(logs: Path) -> Any:
    import submitit

    logs.mkdir(parents=True, exist_ok=True)
    return submitit.AutoExecutor(folder=logs, cluster="slurm")


def _prefixed(values: dict[str, Any]) -> dict[str, Any]:
    """submitit's one executor for all clusters wants the scheduler's name before what only that one knows."""
    generic = {*GENERIC, "stderr_to_stdout"}
    return {key if key in generic else f"slurm_{key}": value for key, value in values.items()}


def _setup(lines: Sequence[str]) -> list[str]:
    """Lines of shell before the command; slurm/env.sh is there only in a checkout."""
    env = REPOSITORY / "slurm" / "env.sh"
    own = [f"export MOVIEGEN_ROOT={shlex.quote(str(REPOSITORY))}", f"source {shlex.quote(str(env))}"]
    return [*(own if env.is_file() else []), *lines]


def _uncommitted() -> str:
    done = subprocess.run(
        ["git", "diff", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout
