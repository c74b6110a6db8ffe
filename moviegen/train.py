"""`moviegen train`: compose, build, fit, export. A run whose folder exists goes on where it stopped."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from omegaconf import DictConfig, OmegaConf

from moviegen import runfolder
from moviegen.callbacks.atomic import AtomicCheckpointIO
from moviegen.callbacks.ema import EMA
from moviegen.config import UserError, build, check_targets
from moviegen.modelfile import DTYPES, load_weights, save_model
from moviegen.targets import MODEL_TARGETS
from moviegen.tasks.base import Task


def train(cfg: DictConfig) -> None:
    """Train cfg.task on cfg.data into cfg.run_dir and leave `model.safetensors` and `model.json` there.

    Raises UserError for wrong settings, or a checkpoint that does not fit the model.
    """
    run_dir = Path(cfg.run_dir)
    check_targets(cfg.task, MODEL_TARGETS, "task")  # the exported model will name no more
    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    L.seed_everything(cfg.seed, verbose=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)")  # inside Lightning
    schedule = build(cfg.schedule) if cfg.schedule else None
    task: Task = build(cfg.task, optimizer=build(cfg.optimizer), schedule=schedule, seed=cfg.seed)
    if cfg.init_from:
        load_weights(task, cfg.init_from)
    data = build(cfg.data)
    data.use(task.fields)
    for loader in (data.train_dataloader, data.val_dataloader):
        loader()  # refuses shards that cannot be read before anything is written
    folders = {source.path for source in (*data.train_sources.values(), *data.val_sources.values())}
    run_dir.mkdir(parents=True, exist_ok=True)
    git = runfolder.git_state()  # of the code that trains, whatever is committed meanwhile
    runfolder.record(run_dir, cfg, shards=sorted(folders))
    trainer = build(
        cfg.trainer,
        callbacks=[build(node) for node in cfg.callbacks.values() if node],
        logger=_loggers(cfg),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run_dir),
    )
    _fit(trainer, task, data, run_dir / "checkpoints" / "last.ckpt")
    if trainer.interrupted:
        raise KeyboardInterrupt
    _export(trainer, task, cfg, git)


def _loggers(cfg: DictConfig) -> list[Any]:
    if cfg.loggers.get("wandb"):
        os.environ.setdefault("WANDB_SILENT", "true")
    return [build(node) for node in cfg.loggers.values() if node]


def _fit(trainer: L.Trainer, task: Task, data: L.LightningDataModule, last: Path) -> None:
    resume = str(last) if last.is_file() else None
    try:
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    except RuntimeError as error:
        if resume and "state_dict" in str(error):
            first = " ".join(str(error).split("\n", 2)[:2])
            raise UserError(
                f"{last} is of another architecture than this config ({first}); use another run_dir"
            ) from error
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        kept = f"{last} is as it was before" if last.is_file() else "there is no checkpoint yet"
        raise UserError(
            f"cannot write to {last.parent} ({error.strerror}); {kept}: make room and give the same command again"
        ) from error


def _export(trainer: L.Trainer, task: Task, cfg: DictConfig, git: dict[str, Any]) -> None:
    """Write the averaged weights as the run's model."""
    if not trainer.is_global_zero:
        return
    run_dir = Path(cfg.run_dir)
    ema = next((c for c in trainer.callbacks if isinstance(c, EMA)), None)  # type: ignore[attr-defined]
    if ema is not None:
        ema.swap_in(task)
    node: Any = OmegaConf.to_container(cfg.task, resolve=True)
    info = {"steps": trainer.global_step, "init_from": cfg.init_from, **git}
    save_model(run_dir / "model", task, node, DTYPES[cfg.export_dtype], info)
    if ema is not None:
        ema.swap_out(task)
    print(f"{run_dir}/model.safetensors written after {trainer.global_step} steps")
