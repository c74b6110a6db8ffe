"""`-m` with `launcher=slurm`: the jobs of a sweep as one job array, through Hydra's own submitit launcher."""

from __future__ import annotations

import importlib.util
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from moviegen import runfolder
from moviegen.config import CONF, UserError, quoted
from moviegen.launch import job
from moviegen.launch.config import Job
from moviegen.launch.follow import follow
from moviegen.launch.submit import keep, parameters, tell

SUBMITTED = "_submitted.pkl"  # how submitit names the work of a job
POLL_SECONDS = 0.1
PLAIN = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")


@dataclass(frozen=True)
class NumberedJob:
    """What Hydra's launcher calls in each task of the array."""

    jobs: list[list[str]]
    commit: str | None

    def __call__(self, cfg: DictConfig) -> None:
        job.run_alone(self.jobs[cfg.number], self.commit)


def submit_sweep(name: str, jobs: list[list[str]], wanted: Job, folder: Path) -> int:
    """Submit one task of an array for each job, whose logs go to `folder`/slurm; returns the exit code.

    `refuse_misfits` has looked at the jobs before. Raises UserError where the launcher is missing or cannot submit.
    """
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise UserError(
            "a sweep with launcher=slurm needs hydra-submitit-launcher: pip install 'moviegen[slurm]'"
        )
    if wanted.slurm.chain > 1 or wanted.slurm.parts > 1:
        raise UserError("a sweep is a job array already: leave launcher.chain and launcher.parts out")
    logs = folder / "slurm"
    logs.mkdir(parents=True, exist_ok=True)
    words = [[*name.split(), *line] for line in jobs]
    task = NumberedJob(words, runfolder.git_state()["commit"])
    ids = _launch(task, parameters(name, wanted, logs, tasks=len(jobs)), logs)
    for one, line in zip(ids, words, strict=True):
        keep(logs, [one], line)
    tell(ids, [*name.split(), "-m", "..."], logs)
    return follow(ids, logs) if wanted.slurm.follow else 0


def _launch(task: NumberedJob, asked: dict[str, Any], logs: Path) -> list[str]:
    """Hand the jobs to Hydra's launcher and return their ids as soon as all are submitted.

    The launcher itself returns when the last job has ended; so it waits in a thread, and nobody for it.
    """
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    context, config = _hydra_context(logs)
    launcher = SlurmLauncher(submitit_folder=str(logs), **asked)
    launcher.setup(hydra_context=context, task_function=task, config=config)
    before, failures = _submitted(logs), []
    overrides = [[f"+number={number}"] for number in range(len(task.jobs))]

    def launch() -> None:
        try:
            launcher.launch(overrides, initial_job_idx=0)
        except BaseException as error:
            failures.append(error)

    waiting = threading.Thread(target=launch, daemon=True)
    waiting.start()
    while waiting.is_alive() and len(_submitted(logs) - before) < len(task.jobs):
        time.sleep(POLL_SECONDS)
    ids = _submitted(logs) - before
    if failures and len(ids) < len(task.jobs):
        raise UserError(f"the sweep could not be submitted: {' '.join(str(failures[0]).split())}")
    return sorted(ids, key=lambda one: [int(part) for part in one.split("_")])


def _hydra_context(logs: Path) -> tuple[HydraContext, DictConfig]:
    """A Hydra of its own: the jobs compose their configs themselves, as everywhere; it carries their numbers alone."""
    overrides = [*PLAIN, f"hydra.sweep.dir={quoted(logs)}", "hydra.sweep.subdir='.'"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.config_loader.load_configuration(None, overrides, run_mode=RunMode.MULTIRUN)
        return HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config)), config


def _submitted(logs: Path) -> set[str]:
    """Ids of the jobs whose work lies in the folder."""
    return {path.name.removesuffix(SUBMITTED) for path in logs.glob(f"[0-9]*{SUBMITTED}")}
