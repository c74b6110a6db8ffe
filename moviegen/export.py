"""`moviegen export`: a training checkpoint to model files, with the averaged weights where there are any."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from moviegen.config import UserError, build, check_targets
from moviegen.modelfile import DTYPES, save_model
from moviegen.targets import MODEL_TARGETS


def export(cfg: DictConfig) -> None:
    """Write cfg.out.safetensors and cfg.out.json. Raises UserError for no run or a damaged checkpoint."""
    run = Path(cfg.run_dir)
    config, checkpoint = run / "config.yaml", run / "checkpoints" / cfg.checkpoint
    for file in (config, checkpoint):
        if not file.is_file():
            raise UserError(f"{run} is no run folder of moviegen train: it has no {file.relative_to(run)}")
    node: Any = OmegaConf.to_container(OmegaConf.load(config).task, resolve=True)
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
    save_model(Path(cfg.out), task, node, DTYPES[cfg.dtype], info)
    print(f"{cfg.out}.safetensors written from step {saved['global_step']}")
