"""`moviegen export`: a training checkpoint to model files, with the averaged weights where there are any."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from moviegen.config import UserError, build, check_targets
from moviegen.modelfile import DTYPES, Dtype, save_model
from moviegen.targets import MODEL_TARGETS


@dataclass(frozen=True)
class ExportConfig:
    """The keys of conf/export.yaml, which says what they are."""

    run_dir: Path
    out: str
    checkpoint: str = "last.ckpt"
    dtype: Dtype = "bfloat16"


def export(cfg: DictConfig) -> None:
    """Write the files OUT.safetensors and OUT.json. Raises UserError for no run or a damaged checkpoint."""
    config: ExportConfig = build(cfg)
    run = config.run_dir
    composed, checkpoint = run / "config.yaml", run / "checkpoints" / config.checkpoint
    for file in (composed, checkpoint):
        if not file.is_file():
            raise UserError(f"{run} is no run folder of moviegen train: it has no {file.relative_to(run)}")
    node: Any = OmegaConf.to_container(OmegaConf.load(composed).task, resolve=True)
    check_targets(node, MODEL_TARGETS, "task")
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{checkpoint} is not a readable checkpoint ({str(error).splitlines()[0]})"
        ) from error
    task = build(node)
    task.load_state_dict(saved["state_dict"])
    averages = next((state for name, state in saved["callbacks"].items() if name.startswith("EMA")), None)
    if averages is not None:
        task.load_state_dict(averages["average"], strict=False)
    info = {"steps": saved["global_step"], "checkpoint": str(checkpoint)}
    save_model(Path(config.out), task, node, DTYPES[config.dtype], info)
    print(f"{config.out}.safetensors written from step {saved['global_step']}")
