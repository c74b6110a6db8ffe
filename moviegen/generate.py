"""`moviegen generate`: a trained model and prompts to mp4 files and a manifest. A re-run goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from moviegen import runfolder
from moviegen.adapters import WEIGHTS, merge_adapter
from moviegen.config import UserError, build, check_least
from moviegen.media import MediaError, read_image, write_video
from moviegen.modelfile import Dtype, load_codec, load_task, locate
from moviegen.pixels import from_uint8, to_uint8
from moviegen.prompts import Prompt, read_prompts
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.given import frames_condition, given_pictures
from moviegen.tasks.sampling import SamplerConfig, sample_clips


@dataclass(frozen=True)
class GenerateConfig:
    """The keys of conf/generate.yaml, which says what they are."""

    run_dir: Path
    model: str
    prompts: str
    sampler: SamplerConfig
    decoder: str | None = None
    adapter: str | None = None
    image: str | None = None
    batch_size: int = 16
    crf: int = 18
    precision: Dtype = "float32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, crf=0, num_threads=1)


def generate(cfg: DictConfig) -> None:
    """Write one mp4 for each prompt and `manifest.jsonl` into run_dir.

    Raises UserError for a prompt file that cannot be used, a model that is no text-to-video generator, or a folder
    that holds clips of somebody else.
    """
    config: GenerateConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    prompts, out, sampler = read_prompts(config.prompts), config.run_dir, config.sampler
    prompts = [replace(prompt, image=prompt.image or config.image) for prompt in prompts]
    known = _former_run(out, prompts)
    task = _text_to_video(config)
    pictures = _pictures(task, prompts, config)
    recipe = {
        "model": runfolder.file_sha256(_weights(config.model)),
        "codec": runfolder.file_sha256(_weights(config.decoder)) if config.decoder else None,
        "sampler": dict(cfg.sampler),
        "crf": config.crf,
        "precision": config.precision,
    }
    if config.adapter:
        recipe["adapter"] = runfolder.file_sha256(Path(config.adapter) / WEIGHTS)
    out.mkdir(parents=True, exist_ok=True)
    todo = _unfinished(out, prompts, recipe, known)
    runfolder.record(out, cfg)
    with tqdm(total=len(prompts), initial=len(prompts) - len(todo), desc="generate", unit="clip") as progress:
        for first in range(0, len(todo), config.batch_size):
            batch = todo[first : first + config.batch_size]
            firsts = [{0: pictures[prompt.image]} if prompt.image else {} for prompt in batch]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
                given = given_pictures(task, firsts, sampler) if pictures else {}
                clips = sample_clips(task, [prompt.text for prompt in batch], sampler, given)
            for prompt, frames in zip(batch, clips, strict=True):
                write_video(out / f"{prompt.id}.mp4", to_uint8(frames), sampler.frame_rate, crf=config.crf)
                progress.update()
    _write_manifest(out, prompts, config)


def _text_to_video(config: GenerateConfig) -> FlowTask:
    task = load_task(config.model)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(
            f"{config.model} is a {type(task).__name__} without text input; give a text-to-video model"
        )
    if config.adapter:
        merge_adapter(task, Path(config.adapter), runfolder.file_sha256(_weights(config.model)))
    if config.decoder:
        task.use_codec(load_codec(config.decoder))
    return task


def _pictures(task: FlowTask, prompts: list[Prompt], config: GenerateConfig) -> dict[str, torch.Tensor]:
    """The first frames that prompts name, [3, H, W] by path; raises UserError where they cannot be used."""
    paths = sorted({prompt.image for prompt in prompts if prompt.image})
    if paths and frames_condition(task) is None:
        raise UserError(f"{config.model} takes no image; give a model that was trained with task=i2v")
    pictures, sampler = {}, config.sampler
    for path in paths:
        try:
            pictures[path] = from_uint8(read_image(path)[None])[:, 0]
        except MediaError as error:
            raise UserError(str(error)) from error
        height, width = pictures[path].shape[1:]
        if height * sampler.width != width * sampler.height:
            print(
                f"{path}: {width}x{height} pixels; its middle fills clips of {sampler.width}x{sampler.height}"
            )
    return pictures


def _asked(prompt: Prompt) -> str:
    """What a clip was made of, for a run that goes on."""
    return f"{prompt.text} [image {runfolder.file_sha256(prompt.image)}]" if prompt.image else prompt.text


def _weights(path: str) -> Path:
    base = locate(path)
    return base.with_name(base.name + ".safetensors")


def _former_run(out: Path, prompts: list[Prompt]) -> dict[str, Any]:
    """What `recipe.json` says of an earlier run in the folder; raises UserError where clips are not that run's."""
    note = out / "recipe.json"
    known = runfolder.read_json(note) if note.is_file() else {"prompts": {}}
    if not isinstance(known, dict) or not isinstance(known.get("prompts"), dict):
        raise UserError(f"{note} is no recipe of moviegen generate; choose another run_dir")
    strangers = sorted(clip for clip in out.glob("*.mp4") if clip.stem not in known["prompts"])
    wanted = {prompt.id for prompt in prompts}
    for clip in strangers:
        if not note.is_file() or clip.stem in wanted:
            raise UserError(f"{clip} was not made by moviegen generate; choose another run_dir")
    return known


def _unfinished(
    out: Path, prompts: list[Prompt], recipe: dict[str, Any], known: dict[str, Any]
) -> list[Prompt]:
    """Prompts without a clip of this recipe; clips that the earlier run made otherwise are deleted."""
    texts = {prompt.id: _asked(prompt) for prompt in prompts}
    same = known.get("recipe") == recipe
    kept = {
        i
        for i, text in texts.items()
        if same and known["prompts"].get(i) == text and (out / f"{i}.mp4").is_file()
    }
    for clip in out.glob("*.mp4"):
        if clip.stem in known["prompts"] and clip.stem not in kept:
            clip.unlink()
    runfolder.write_json(out / "recipe.json", {"recipe": recipe, "prompts": texts})
    return [prompt for prompt in prompts if prompt.id not in kept]


def _write_manifest(out: Path, prompts: list[Prompt], config: GenerateConfig) -> None:
    sampler = config.sampler
    common = {
        "system": "moviegen",
        "seed": sampler.seed,
        "steps": sampler.num_steps,
        "guidance": float(sampler.guidance),
        "checkpoint": config.model,
        "frame_rate": float(sampler.frame_rate),
        "commit": str(runfolder.git_state()["commit"]),
    }
    rows = (
        {"id": p.id, "prompt": p.text, "path": f"{p.id}.mp4", "set": p.set, "spec": p.spec, **common}
        | ({"image": p.image} if p.image else {})
        for p in prompts
    )
    runfolder.write_text(out / "manifest.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
