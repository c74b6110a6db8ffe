"""`moviegen generate`: a trained model and prompts to clips and a manifest. A re-run goes on where it stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import runfolder
from moviegen.config import UserError, build, check_least
from moviegen.media import write_clip
from moviegen.modelfile import Dtype, load_codec, load_task, locate
from moviegen.outputs import former_run, plan_clips, unfinished, write_manifest, write_sidecar
from moviegen.pixels import to_uint8
from moviegen.prompts import Prompt, one_prompt, read_prompts
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.limits import check_prompts, check_sampler
from moviegen.tasks.sampling import SamplerConfig, sample_clips


@dataclass(frozen=True)
class GenerateConfig:
    """The keys of conf/generate.yaml, which says what they are."""

    run_dir: Path
    model: str
    sampler: SamplerConfig
    prompt: str | None = None
    prompts: str | None = None
    seeds: tuple[int, ...] = ()
    decoder: str | None = None
    batch_size: int = 16
    crf: int = 18
    precision: Dtype = "float32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, crf=0, num_threads=1)
        if (self.prompt is None) == (self.prompts is None):
            given = "neither is" if self.prompt is None else "both are"
            raise UserError(f"give prompt='a red star' or prompts=FILE, one of the two; {given} given")
        if min(self.seeds, default=0) < 0:
            raise UserError(f"seeds={list(self.seeds)}: must be at least 0")


def generate(cfg: DictConfig) -> None:
    """Write a clip for each prompt and seed, its settings beside it, and `manifest.jsonl` into run_dir.

    Clips are mp4 files, or PNG where they have one frame. Raises UserError or ValueError, before anything is written,
    for prompts that cannot be used or are too long, a model that is no text-to-video generator, a size or length that
    it cannot make, or a folder that holds clips of somebody else.
    """
    config: GenerateConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    prompts = one_prompt(config.prompt) if config.prompt is not None else read_prompts(str(config.prompts))
    out, sampler = config.run_dir, config.sampler
    clips = plan_clips(prompts, config.seeds or (sampler.seed,), sampler.num_frames)
    known = former_run(out, clips)
    task = _text_to_video(config)
    _check_images(task, prompts)
    check_sampler(task, sampler)
    check_prompts(task, {prompt.id: prompt.text for prompt in prompts})
    recipe = _recipe(config)
    out.mkdir(parents=True, exist_ok=True)
    todo = unfinished(out, clips, recipe, known)
    runfolder.record(out, cfg)
    commit = str(runfolder.git_state()["commit"])
    with tqdm(total=len(clips), initial=len(clips) - len(todo), desc="generate", unit="clip") as progress:
        for first in range(0, len(todo), config.batch_size):
            batch = todo[first : first + config.batch_size]
            texts, keys = [clip.prompt.text for clip in batch], [clip.key for clip in batch]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                made = sample_clips(task, texts, sampler, keys, [clip.seed for clip in batch])
            for clip, frames in zip(batch, made, strict=True):
                write_clip(out / clip.id, to_uint8(frames), sampler.frame_rate, crf=config.crf)
                write_sidecar(out, clip, {"checkpoint": config.model, "commit": commit, **recipe}, sampler)
                progress.update()
    write_manifest(out, clips, config.model, sampler, commit)


def _text_to_video(config: GenerateConfig) -> FlowTask:
    task = load_task(config.model)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(
            f"{config.model} is a {type(task).__name__} without text input; give a text-to-video model"
        )
    if others := sorted(set(task.conditioners.items) - {"text"}):
        raise UserError(f"{config.model} wants the input {others[0]!r} too, which generate does not give")
    if config.decoder:
        task.use_codec(load_codec(config.decoder))
    return task


def _check_images(task: FlowTask, prompts: list[Prompt]) -> None:
    given = next((prompt for prompt in prompts if prompt.image), None)
    if given and "image" not in task.conditioners.items:
        raise UserError(f"prompt {given.id} gives an image, {given.image}, but the model takes none")


def _recipe(config: GenerateConfig) -> dict[str, Any]:
    """What all clips of a run share; if it changes, all are made anew."""
    settings = asdict(config.sampler)
    del settings["seed"]  # each clip has its own
    codec = config.decoder or _codec_of(config.model)
    return {
        "model": runfolder.file_sha256(_weights(config.model)),
        "codec": runfolder.file_sha256(_weights(codec)) if codec else None,
        "sampler": settings,
        "crf": config.crf,
        "precision": config.precision,
    }


def _codec_of(model: str) -> str | None:
    """The codec that a generator's json names."""
    base = locate(model)
    return runfolder.read_json(base.with_name(base.name + ".json"))["task"]["codec"].get("path")


def _weights(path: str) -> Path:
    base = locate(path)
    return base.with_name(base.name + ".safetensors")
