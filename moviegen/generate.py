"""`moviegen generate`: a trained model and prompts to mp4 files and a manifest. A re-run goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import runfolder
from moviegen.config import UserError, build
from moviegen.media import write_video
from moviegen.modelfile import load_codec, load_task, locate
from moviegen.pixels import to_uint8
from moviegen.prompts import Prompt, read_prompts
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig, sample_clips


def generate(cfg: DictConfig) -> None:
    """Write one mp4 for each prompt and `manifest.jsonl` into cfg.run_dir.

    Raises UserError for a prompt file that cannot be used or a model that is no text-to-video generator.
    """
    if cfg.num_threads:
        torch.set_num_threads(cfg.num_threads)
    prompts, sampler = read_prompts(cfg.prompts), build(cfg.sampler)
    task = load_task(cfg.model)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(
            f"{cfg.model} is a {type(task).__name__} without text input; give a text-to-video model"
        )
    if cfg.decoder:
        task.use_codec(load_codec(cfg.decoder))
    out = Path(cfg.run_dir)
    out.mkdir(parents=True, exist_ok=True)
    recipe = {
        "model": runfolder.file_sha256(_weights(cfg.model)),
        "codec": runfolder.file_sha256(_weights(cfg.decoder)) if cfg.decoder else None,
        "sampler": dict(cfg.sampler),
        "crf": cfg.crf,
        "precision": cfg.precision,
    }
    todo = _unfinished(out, prompts, recipe)
    runfolder.record(out, cfg)
    with tqdm(total=len(prompts), initial=len(prompts) - len(todo), desc="generate", unit="clip") as progress:
        for first in range(0, len(todo), cfg.batch_size):
            batch = todo[first : first + cfg.batch_size]
            with torch.autocast("cpu", torch.bfloat16, enabled=cfg.precision == "bfloat16"):
                clips = sample_clips(task, [prompt.text for prompt in batch], sampler)
            for prompt, frames in zip(batch, clips, strict=True):
                write_video(out / f"{prompt.id}.mp4", to_uint8(frames), sampler.frame_rate, crf=cfg.crf)
                progress.update()
    _write_manifest(out, prompts, cfg, sampler)


def _weights(path: str) -> Path:
    base = locate(path)
    return base.with_name(base.name + ".safetensors")


def _unfinished(out: Path, prompts: list[Prompt], recipe: dict[str, Any]) -> list[Prompt]:
    """Prompts without a clip of this recipe; clips of another recipe are made anew."""
    note = out / "recipe.json"
    texts = {prompt.id: prompt.text for prompt in prompts}
    known = runfolder.read_json(note) if note.is_file() else {}
    same = known.get("recipe") == recipe
    kept = {
        i
        for i, text in texts.items()
        if same and known["prompts"].get(i) == text and (out / f"{i}.mp4").is_file()
    }
    for stale in out.glob("*.mp4"):
        if stale.stem not in kept:
            stale.unlink()
    runfolder.write_json(note, {"recipe": recipe, "prompts": texts})
    return [prompt for prompt in prompts if prompt.id not in kept]


def _write_manifest(out: Path, prompts: list[Prompt], cfg: DictConfig, sampler: SamplerConfig) -> None:
    common = {
        "system": "moviegen",
        "seed": sampler.seed,
        "steps": sampler.num_steps,
        "guidance": float(sampler.guidance),
        "checkpoint": str(cfg.model),
        "frame_rate": float(sampler.frame_rate),
        "commit": str(runfolder.git_state()["commit"]),
    }
    rows = (
        {"id": p.id, "prompt": p.text, "path": f"{p.id}.mp4", "set": p.set, "spec": p.spec, **common}
        for p in prompts
    )
    runfolder.write_text(out / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
