"""`moviegen train`: compose, build, fit, export. A run whose folder exists goes on where it stopped."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from moviegen import runfolder
from moviegen.adapters import save_adapter
from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.ema import EMA
from moviegen.callbacks.held_out import HeldOutLoss
from moviegen.callbacks.preemption import Preempted
from moviegen.callbacks.watchdog import Watchdog
from moviegen.checkpoint import check_room, resumable
from moviegen.conditioning.identity import FACES
from moviegen.config import UserError, build, check_least, check_targets
from moviegen.data.module import ShardData
from moviegen.latents import check_latents
from moviegen.layout import (
    Layout,
    check_batches,
    check_kernels,
    check_layout,
    check_precision,
    layout_of,
    num_devices,
)
from moviegen.lineage import CONSENTS, trained_at, trained_on
from moviegen.modelfile import DTYPES, Dtype, save_model, weights_file
from moviegen.parallel.launcher import use_launcher
from moviegen.parallel.leaving import leave
from moviegen.parallel.trainer import is_sharded
from moviegen.provenance.consent import ConsentStore, people_in_shards
from moviegen.stages import check_parent, check_stage, start_from, with_tasks
from moviegen.targets import MODEL_TARGETS
from moviegen.tasks.base import NotFiniteError, Task
from moviegen.tasks.flow_task import FlowTask

C = TypeVar("C")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@dataclass(frozen=True)
class TrainConfig:
    """The keys of conf/train.yaml, which says what they are; parts stay nodes, to be built one by one."""

    run_dir: Path
    task: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    paths: dict[str, Any]  # what data nodes refer to
    callbacks: dict[str, Any]
    loggers: dict[str, Any]
    prompts: list[str]  # what sample videos show; the callback refers to it
    schedule: dict[str, Any] | None = None
    sampler: dict[str, Any] | None = None  # the callback refers to it
    mesh: dict[str, Any] | None = None  # how several processes share the work
    adapter: dict[str, Any] | None = None  # what alone is trained, on top of init_from
    seed: int = 0
    init_from: str | None = None
    stage: str | None = None
    after: str | None = None
    store: str = "consents"
    nodes: int = 1
    num_threads: int | None = None
    export_dtype: Dtype = "float32"
    dry_run: bool = False

    def __post_init__(self) -> None:
        check_least(self, seed=0, num_threads=1, nodes=1)
        check_targets(self.task, MODEL_TARGETS, "task")  # the exported model may name no more
        check_precision(self.trainer)
        if self.adapter and not self.init_from:
            raise UserError("an adapter is trained on top of a trained model: add init_from=MODEL")


def train(cfg: DictConfig) -> None:
    """Train `task` on `data` into `run_dir` and leave `model.safetensors` and `model.json` there.

    Raises UserError for wrong settings, a folder without room, or a checkpoint that is damaged or does not fit the
    model; nothing is written then.
    """
    config: TrainConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)")  # inside Lightning
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # srun is not the only way
    if config.dry_run:
        with torch.device("meta"):  # sizes only: no memory for weights, and no GPU
            print(_parts(config)[1].plan().text())
        return
    layout, processes = layout_of(config.mesh, config.trainer), prod(num_devices(config.trainer))
    trainer = _trainer(config, layout)  # first: it refuses what this machine does not have
    L.seed_everything(config.seed, verbose=False)
    task, data = _parts(config)
    if layout is not None:
        layout.check_machine()
        _check_layout(config, layout, task, data)
    elif processes > 1:
        check_batches([data.batch_size], processes)
        check_batches([row.batch_size for row in data.plan().rows], processes)
    for loader in (data.train_dataloader, data.val_dataloader):
        loader()  # refuses shards that cannot be read before anything is written
    folders = {source.path for source in (*data.train_sources.values(), *data.val_sources.values())}
    consents = _consents(task, folders, config)
    resumed = _check_output(trainer, task, config)
    if held_out := _callback(trainer, HeldOutLoss):
        held_out.prepare(task, with_tasks)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    if layout is not None:
        layout.apply_alone(task)
    git = runfolder.git_state()  # of the code that trains, whatever is committed meanwhile
    parent = _sha256(config.init_from)  # likewise
    atexit.register(leave)
    if consents:
        rank_zero_only(_note_run)(config, consents)  # now: a run that never ends leaves checkpoints too
    rank_zero_only(runfolder.record)(config.run_dir, cfg, shards=sorted(folders), resumed=resumed)
    _fit(trainer, task, data)
    if trainer.interrupted:
        raise KeyboardInterrupt
    _export(trainer, task, config, git, consents, parent)


def _sha256(model: str | None) -> str | None:
    """Of the weights that training starts from: a path may hold others later."""
    return runfolder.file_sha256(weights_file(model)) if model else None


def _consents(task: Task, folders: set[str], config: TrainConfig) -> list[str]:
    """Ids of the records that allow training: on the people in the references, and in those of the model before.

    Raises ConsentError (a ValueError) where one is missing, expired or revoked.
    """
    found = set(trained_on(config.init_from)) if config.init_from else set()
    if any(field.suffix == FACES.suffix for field in task.fields.values()):
        found |= people_in_shards(folders)
    store = ConsentStore(config.store)
    for consent in sorted(found):
        store.valid(consent, "training")
    return sorted(found)


def _note_run(config: TrainConfig, consents: list[str]) -> None:
    """Write whose consent the run relies on into its folder, and the run into the records of each."""
    told = config.run_dir / CONSENTS
    runfolder.write_json(told, consents)
    for consent in consents:
        ConsentStore(config.store).record_use(consent, "run", config.run_dir, runfolder.file_sha256(told))


def _check_output(trainer: L.Trainer, task: Task, config: TrainConfig) -> bool:
    """Whether the run goes on from a checkpoint; raises UserError for one, or a folder, that will not do."""
    keeper = _callback(trainer, Checkpoints)
    if keeper is None:
        return False
    saved = resumable(keeper.folders.root, task)
    if saved is not None:
        check_stage(saved.manifest.state["more"], config.stage, saved.path)
    check_room(keeper.folders.root, task, keeper.folders.keep)
    return saved is not None


def check_job(cfg: DictConfig, processes_per_node: int | None = None) -> None:
    """Refuse a run whose checkpoints have no room, or whose layout or batch does not divide, before it is started.

    From sizes alone: no memory for weights, and no GPU. Shards of a layout must be readable from here.

    Args:
        processes_per_node: of a run on other machines; None for one on this machine.
    """
    config: TrainConfig = build(cfg)
    sized = num_devices(config.trainer) if processes_per_node is None else (processes_per_node, config.nodes)
    layout = layout_of(config.mesh, config.trainer, sized)
    if layout is None:
        check_batches([build(config.data).batch_size], prod(sized))
    with torch.device("meta"):
        task = _task(config)
    if layout is not None:
        _check_layout(config, layout, task, _data(config, task))
    for callback in (build(node) for node in config.callbacks.values() if node):
        if isinstance(callback, Checkpoints):
            check_room(callback.folders.root, task, callback.folders.keep)


def _check_layout(config: TrainConfig, layout: Layout, task: Task, data: ShardData) -> None:
    sampler = config.sampler if config.callbacks.get("samples") else None
    check_layout(layout, task, data, sampler, adapter=bool(config.adapter))


def _callback(trainer: L.Trainer, kind: type[C]) -> C | None:
    return next((c for c in trainer.callbacks if isinstance(c, kind)), None)  # type: ignore[attr-defined]


def _task(config: TrainConfig) -> Task:
    """The task with the weights that it starts from."""
    check_parent(config.init_from, config.stage, config.after)
    schedule = build(config.schedule)
    task: Task = build(config.task, optimizer=build(config.optimizer), schedule=schedule, seed=config.seed)
    task.stage = config.stage
    start_from(task, config.init_from, config.stage, config.after, frozen=bool(config.adapter))
    if config.adapter:
        build(config.adapter).inject(task)
    return task


def _parts(config: TrainConfig) -> tuple[Task, ShardData]:
    """The task and its data, held against each other and what the trainer runs on; raises UserError or ValueError."""
    task = _task(config)
    check_kernels(task, config.trainer)
    data = _data(config, task)
    sources = (*data.train_sources.values(), *data.val_sources.values())
    conditions = task.conditioners.named() if isinstance(task, FlowTask) else {}
    check_latents(config.task, (one.path for one in sources), conditions)
    return task, data


def _data(config: TrainConfig, task: Task) -> ShardData:
    data: ShardData = build(config.data)
    data.use(task.fields, cost=task.sample_cost)
    if data.packed_draws > 1 and not task.packs:
        raise UserError(
            f"data.packed_draws={data.packed_draws}: {type(task).__name__} takes batches of one size; use 1"
        )
    return data


def _trainer(config: TrainConfig, layout: Layout | None = None) -> L.Trainer:
    """Lightning's trainer; raises UserError for what this machine does not have, or what does not go together."""
    if config.nodes > 1 and not ({"SLURM_NTASKS", "TORCHELASTIC_RUN_ID"} & {*os.environ}):
        raise UserError(
            f"nodes={config.nodes}: nothing starts the processes of the other machines; add launcher=slurm, or start "
            f"this with torchrun --nnodes={config.nodes} on each machine"
        )
    if config.loggers.get("wandb"):
        os.environ.setdefault("WANDB_SILENT", "true")
    try:
        trainer: L.Trainer = build(
            config.trainer,
            callbacks=[build(node) for node in config.callbacks.values() if node],
            logger=[build(node) for node in config.loggers.values() if node],
            plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else [],
            **({"strategy": layout.strategy()} if layout else {}),
            default_root_dir=str(config.run_dir),
        )
        use_launcher(trainer)
        return trainer
    except (MisconfigurationException, ModuleNotFoundError) as error:
        raise UserError(_refused_by_lightning(config.trainer, error)) from error


def _refused_by_lightning(trainer: dict[str, Any], error: Exception) -> str:
    names = ("accelerator", "devices", "strategy", "precision")
    given = ", ".join(f"trainer.{name}={trainer[name]}" for name in names if name in trainer)
    return f"Lightning refuses {given}: {' '.join(str(error).split())}"


def _fit(trainer: L.Trainer, task: Task, data: L.LightningDataModule) -> None:
    keeper, watchdog = _callback(trainer, Checkpoints), _callback(trainer, Watchdog)
    try:
        trainer.fit(task, datamodule=data)
    except NotFiniteError as error:
        raise UserError(f"{error}; {_kept(keeper, 'is the last good state')}") from error
    except Preempted as error:
        if trainer.is_global_zero:
            print(
                f"terminated after {trainer.global_step} steps by {error.signal.name}: "
                "the same command goes on from there",
                file=sys.stderr,
            )
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        if keeper is None or error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"cannot write to {keeper.folders.root} ({error.strerror}); {_kept(keeper, 'is as it was before')}: "
            "make room and give the same command again"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise UserError(
            f"step {trainer.global_step}: {reason}; {_kept(keeper, 'is kept')}: the same command goes on"
        ) from error
    finally:
        if watchdog is not None:
            watchdog.close()


def _kept(keeper: Checkpoints | None, how: str) -> str:
    latest = keeper.folders.latest() if keeper else None
    return f"{latest[0]} {how}" if latest else "there is no checkpoint yet"


def _export(
    trainer: L.Trainer,
    task: Task,
    config: TrainConfig,
    git: dict[str, Any],
    consents: list[str],
    parent: str | None,
) -> None:
    """Write the averaged weights as the run's model, and note it with the consent records that it relies on.

    Where the weights are sharded, all processes bring theirs.
    """
    if not trainer.is_global_zero and not is_sharded(trainer):
        return
    ema = _callback(trainer, EMA)
    if ema is not None:
        ema.swap_in(task)
    info = {"steps": trainer.global_step, "init_from": config.init_from, "stage": config.stage, **git}
    info |= {"init_from_sha256": parent} if parent else {}
    info |= {"consents": consents} if consents else {}
    info |= trained_at(config.run_dir)
    if config.adapter:
        written = save_adapter(config.run_dir / "adapter", task, build(config.adapter), info)
    else:
        first, dtype = trainer.is_global_zero, DTYPES[config.export_dtype]
        save_model(config.run_dir / "model", task, config.task, dtype, info, write=first)
        written = config.run_dir / "model.safetensors"
    if ema is not None:
        ema.swap_out(task)
    if not trainer.is_global_zero:
        return
    for consent in consents:
        ConsentStore(config.store).record_use(consent, "checkpoint", written, runfolder.file_sha256(written))
    print(f"{written} written after {trainer.global_step} steps")


if __name__ == "__main__":  # python -m moviegen.train, torchrun -m moviegen.train
    from moviegen.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
