"""`moviegen generate`: a trained model and prompts to clips and a manifest. A re-run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from moviegen import runfolder
from moviegen.adapters import WEIGHTS, merge_adapter
from moviegen.conditioning.identity import References
from moviegen.config import UserError, build, check_least
from moviegen.lineage import check_frame_rate, check_training, warn_untrained
from moviegen.media import MediaError, read_image
from moviegen.modelfile import Dtype, codec_files, load_codec, load_task, weights_file
from moviegen.outputs import (
    ClipPlan,
    former_run,
    plan_clips,
    replacing,
    sidecar,
    unfinished,
    write_manifest,
)
from moviegen.pixels import from_uint8, to_uint8
from moviegen.prompts import Prompt, one_prompt, read_prompts
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.given import covering, frames_condition, given_pictures, identity_condition
from moviegen.tasks.limits import asked_size, check_prompts, check_sampler
from moviegen.tasks.sampling import SamplerConfig, sample_clips


@dataclass(frozen=True)
class GenerateConfig:
    """The keys of conf/generate.yaml, which says what they are."""

    run_dir: Path
    model: str
    sampler: SamplerConfig
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    prompt: str | None = None
    prompts: str | None = None
    seeds: tuple[int, ...] = ()
    image: str | None = None
    image_frame: int = 0
    frames: int | None = None
    decoder: str | None = None
    adapter: str | None = None
    batch_size: int = 16
    crf: int = 18
    precision: Dtype = "float32"
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, batch_size=1, crf=0, num_threads=1, frames=1, image_frame=0)
        if (self.prompt is None) == (self.prompts is None):
            given = "neither is" if self.prompt is None else "both are"
            raise UserError(f"give prompt='a red star' or prompts=FILE, one of the two; {given} given")
        if min(self.seeds, default=0) < 0:
            raise UserError(f"seeds={list(self.seeds)}: must be at least 0")
        if self.image_frame and self.image is None:
            raise UserError(f"image_frame={self.image_frame} is of no image; add image=")


def generate(cfg: DictConfig) -> None:
    """Write a clip for each prompt and seed, its settings beside it, and `manifest.jsonl` into run_dir.

    Clips are mp4 files, or PNG where they have one frame, marked as generated. One that lies there and was made
    otherwise is replaced when the new one is ready; those that are not asked for stay. Raises UserError or ValueError,
    before anything is written, for prompts, images or keys that cannot be used, a prompt that a filter refuses, a model
    that is no text-to-video generator, a size or length that it cannot make, or a folder of somebody else's clips.
    """
    config: GenerateConfig = build(cfg)
    prompts = asked(config)
    if named := next((prompt for prompt in prompts if prompt.references), None):
        raise UserError(f"prompt {named.id} names pictures of a person; use moviegen personalize")
    write_clips(config, cfg, prompts)


def asked(config: GenerateConfig) -> list[Prompt]:
    """The prompts that a config gives. Raises UserError for what is none."""
    prompts = one_prompt(config.prompt) if config.prompt is not None else read_prompts(str(config.prompts))
    given = {"image": config.image, "image_frame": config.image_frame}
    return [prompt if prompt.image else replace(prompt, **given) for prompt in prompts]


def write_clips(
    config: GenerateConfig, cfg: DictConfig, prompts: list[Prompt], people: Mapping[str, Tensor] | None = None
) -> None:
    """Write what `generate` does; `people` are the reference pictures [R, 3, S, S] of prompts by id.

    Raises as `generate`.
    """
    if config.frames:
        config = replace(config, sampler=replace(config.sampler, num_frames=config.frames))
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    out, sampler = config.run_dir, config.sampler
    clips = plan_clips(prompts, config.seeds or (sampler.seed,), sampler.num_frames)
    known = former_run(out, clips)
    runfolder.check_same_command(out, cfg)
    exporter = Exporter(config.marking, config.filters)
    config.filters.check_prompts({prompt.id: prompt.text for prompt in prompts})
    check_training(config.model, ConsentStore(config.store), config.adapter)
    task = _text_to_video(config, bool(people))
    check_sampler(task, sampler)
    if sampler.stated_rate:  # a still has none
        check_frame_rate(config.model, sampler.stated_rate, config.adapter)
    check_prompts(task, {prompt.id: prompt.text for prompt in prompts}, sampler)
    pictures = _pictures(task, prompts, config)
    places = {prompt.image_frame for prompt in prompts if prompt.image}
    warn_untrained(config.model, asked_size(sampler), places, config.adapter)
    recipe = _recipe(config)
    out.mkdir(parents=True, exist_ok=True)
    todo = unfinished(out, clips, recipe, sampler, known)
    runfolder.record(out, cfg)
    commit = str(runfolder.git_state()["commit"])
    files = {"checkpoint": config.model, "decoder": config.decoder, "adapter_path": config.adapter}
    with tqdm(total=len(clips), initial=len(clips) - len(todo), desc="generate", unit="clip") as progress:
        for first in range(0, len(todo), config.batch_size):
            batch = todo[first : first + config.batch_size]
            made = _made(task, batch, pictures, people or {}, config)
            for clip, frames in zip(batch, made, strict=True):
                card = sidecar(clip, {**files, "commit": commit, **recipe}, sampler)
                work = Made(to_uint8(frames), sampler.frame_rate, crf=config.crf)
                with replacing(out, clip) as path:
                    exporter.export(path, work, _origin(clip, config.model, recipe), card)
                progress.update()
    write_manifest(out, clips, config.model, sampler, commit)


def _text_to_video(config: GenerateConfig, people: bool = False) -> FlowTask:
    task = load_task(config.model)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(
            f"{config.model} is a {type(task).__name__} without text input; give a text-to-video model"
        )
    known = {"text", frames_condition(task), identity_condition(task)}
    if others := sorted(set(task.conditioners.items) - known):
        raise UserError(f"{config.model} wants the input {others[0]!r} too, which generate does not give")
    if people and identity_condition(task) is None:
        raise UserError(
            f"{config.model} takes no pictures of a person; give a model that was trained with task=personalize"
        )
    if config.adapter:
        merge_adapter(task, Path(config.adapter), runfolder.file_sha256(weights_file(config.model)))
    if config.decoder:
        task.use_codec(load_codec(config.decoder))
    return task


def _pictures(task: FlowTask, prompts: list[Prompt], config: GenerateConfig) -> dict[str, Tensor]:
    """The frames that prompts give, [3, H, W] by path, as large as the clips.

    Raises UserError where one cannot be read, or the model takes none.
    """
    given = next((prompt for prompt in prompts if prompt.image), None)
    if given and frames_condition(task) is None:
        raise UserError(
            f"prompt {given.id} gives an image, {given.image}, but {config.model} takes none; "
            "give a model that was trained with task=i2v"
        )
    late = next((p for p in prompts if p.image and p.image_frame >= config.sampler.num_frames), None)
    if late:
        raise UserError(
            f"prompt {late.id}: image_frame={late.image_frame} is outside a clip of {config.sampler.num_frames} frames"
        )
    pictures, (height, width) = {}, (config.sampler.height, config.sampler.width)
    for path in sorted({prompt.image for prompt in prompts if prompt.image}):
        try:
            image = from_uint8(read_image(path)[None])[:, 0]
        except MediaError as error:
            raise UserError(str(error)) from error
        if image.shape[1] * width != image.shape[2] * height:
            size = f"{image.shape[2]}x{image.shape[1]} pixels"
            print(f"{path}: {size}; its middle fills clips of {width}x{height}")
        pictures[path] = covering(image, height, width)
    return pictures


def _made(
    task: FlowTask,
    batch: list[ClipPlan],
    pictures: dict[str, Tensor],
    people: Mapping[str, Tensor],
    config: GenerateConfig,
) -> Tensor:
    """Frames [B, 3, T, H, W] of a batch of clips."""
    shown = [
        {clip.prompt.image_frame: pictures[clip.prompt.image]} if clip.prompt.image else {} for clip in batch
    ]
    inputs: dict[str, Any] = given_pictures(task, shown, config.sampler) if pictures else {}
    if people:
        inputs[str(identity_condition(task))] = References.of([people[clip.prompt.id] for clip in batch])
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        return sample_clips(
            task,
            [clip.prompt.text for clip in batch],
            config.sampler,
            inputs=inputs,
            keys=[clip.key for clip in batch],
            seeds=[clip.seed for clip in batch],
        )


def _origin(clip: ClipPlan, model: str, recipe: dict[str, Any]) -> Origin:
    """What a clip comes from, without where it lies: made again elsewhere it has the same identifier."""
    settings = {name: value for name, value in recipe.items() if name not in ("model", "marking")}
    settings["noise_key"] = clip.key
    settings |= {"image_frame": clip.prompt.image_frame} if clip.prompt.image_frame else {}
    given = [path for path in (clip.prompt.image, *clip.prompt.references) if path]
    return Origin(model, recipe["model"], clip.prompt.text, clip.seed, settings, tuple(map(Path, given)))


def _recipe(config: GenerateConfig) -> dict[str, Any]:
    """What all clips of a run share; if it changes, those that are asked for are made anew."""
    settings = asdict(config.sampler)
    del settings["seed"]  # each clip has its own
    codec = [weights_file(config.decoder)] if config.decoder else codec_files(config.model)
    return {
        "model": runfolder.file_sha256(weights_file(config.model)),
        "codec": " ".join(map(runfolder.file_sha256, codec)) or None,
        "adapter": runfolder.file_sha256(Path(config.adapter) / WEIGHTS) if config.adapter else None,
        "sampler": settings,
        "crf": config.crf,
        "precision": config.precision,
        "marking": config.marking.recipe(),
    }
