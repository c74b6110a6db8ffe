"""`moviegen export`: a training checkpoint to model files, with the averaged weights where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from moviegen.checkpoint import check_checkpoint
from moviegen.config import UserError, build
from moviegen.modelfile import DTYPES, save_model
from moviegen.runfolder import read_json


def export(cfg: DictConfig) -> None:
    """Write cfg.out.safetensors and cfg.out.json. Raises UserError for no run, or a checkpoint that is damaged or
    of another architecture than the run's config.
    """
    run = Path(cfg.run_dir)
    record, checkpoint = run / "run.json", run / "checkpoints" / cfg.checkpoint
    for file in (record, checkpoint):
        if not file.is_file():
            raise UserError(f"{run} is no run folder of moviegen train: it has no {file.relative_to(run)}")
    try:
        node: Any = read_json(record)["config"]["task"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{record} does not describe a training ({type(error).__name__}: {error})") from error
    task = build(node)
    saved = check_checkpoint(checkpoint, task)
    task.load_state_dict(saved["state_dict"])
    averages = next((state for name, state in saved["callbacks"].items() if name.startswith("EMA")), None)
    if averages is not None:
        task.load_state_dict(averages["average"], strict=False)
    info = {"steps": saved["global_step"], "checkpoint": str(checkpoint)}
    save_model(Path(cfg.out), task, node, DTYPES[cfg.dtype], info)
    print(f"{cfg.out}.safetensors written from step {saved['global_step']}")
