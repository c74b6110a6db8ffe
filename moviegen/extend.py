"""`moviegen extend`: a video of any length, by going on from the end of what is there (task=i2v, given frames).

What is there is a first clip of the model's own, or a video file, whose frames are written again before the new ones.

The latents of the whole video are small and kept; frames are decoded, measured and encoded as they come. What changes
from second to second (brightness, contrast, saturation, sharpness) is written down: long videos drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from moviegen import media, runfolder
from moviegen.codec import tiling
from moviegen.config import UserError, build, check_least
from moviegen.data.batches import key_number
from moviegen.lineage import check_frame_rate, check_training, warn_untrained
from moviegen.media import MediaError, read_image
from moviegen.modelfile import Dtype, load_task, weights_file
from moviegen.pixels import from_uint8, to_uint8
from moviegen.prompts import Prompt, check_single, one_prompt, read_prompts
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.given import covering, frames_condition, given_past, given_pictures
from moviegen.tasks.limits import asked_size, check_prompts, check_sampler
from moviegen.tasks.sampling import SamplerConfig, sample_latents
from moviegen.types import Latent, VideoClip

MOST_SECONDS = 600.0


@dataclass(frozen=True)
class ExtendConfig:
    """The keys of conf/extend.yaml, which says what they are."""

    out: Path
    model: str
    sampler: SamplerConfig
    seconds: float
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    prompt: str | None = None
    prompts: str | None = None
    image: str | None = None
    video: str | None = None
    known: int | None = None
    crf: float = 18
    precision: Dtype = "float32"
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, crf=0, num_threads=1, known=1)
        if (self.prompt is None) == (self.prompts is None):
            given = "neither is" if self.prompt is None else "both are"
            raise UserError(
                f"give prompt='a red star' or prompts=FILE with one, one of the two; {given} given"
            )
        if not 0 < self.seconds <= MOST_SECONDS:
            raise UserError(f"seconds={self.seconds:g}: must be above 0 and at most {MOST_SECONDS:g}")
        if self.image and self.video:
            raise UserError(f"image={self.image}, video={self.video}: a video begins with one of them")
        if self.video and Path(self.video).resolve() == self.out.resolve():
            raise UserError(f"out={self.out} is the video that is gone on with; give another file")
        if self.out.suffix != ".mp4":
            raise UserError(f"out={self.out}: must end in .mp4")

    @property
    def num_frames(self) -> int:
        return max(2, round(self.seconds * self.sampler.frame_rate))


def extend(cfg: DictConfig) -> None:
    """Write a video of `seconds`, marked as generated, and how it drifts in its side-car.

    Raises UserError or ValueError, before anything is written, for what cannot be read or made.
    """
    prompt, config = asked(build(cfg))
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    exporter = Exporter(config.marking, config.filters)
    check_training(config.model, ConsentStore(config.store))
    config.filters.check_prompts({prompt.id: prompt.text})
    task = load_extender(config)
    check_prompts(task, {prompt.id: prompt.text}, config.sampler)
    picture = _picture(config) if config.image else None
    source = Source.read(task, config) if config.video else None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        latent = longer(task, prompt, picture, source, config)
    drift = Drift(config.sampler.frame_rate)
    shown = (
        decoded(task, latent, config.num_frames) if source is None else source.continued(task, latent, config)
    )
    frames = tqdm(shown, total=config.num_frames, desc="decode", unit="frame")
    settings = {"sampler": asdict(config.sampler), "seconds": config.seconds, "crf": config.crf}
    digest = runfolder.file_sha256(weights_file(config.model))
    given = tuple(Path(path) for path in (config.image, config.video) if path)
    origin = Origin(config.model, digest, prompt.text, config.sampler.seed, settings, given)
    card = {
        "id": config.out.stem,
        "prompt": prompt.text,
        "original": prompt.original,
        **settings,
        "drift": drift.rows,
    }
    config.out.parent.mkdir(parents=True, exist_ok=True)
    exporter.export(
        config.out, Made(drift.watched(frames), config.sampler.frame_rate, crf=config.crf), origin, card
    )
    print(f"{config.out}: {config.num_frames} frames at {config.sampler.frame_rate:g} a second; {drift}")


def asked(config: ExtendConfig) -> tuple[Prompt, ExtendConfig]:
    """The one prompt, and the config with the image and the seed of its line. Raises UserError for any other."""
    prompts = one_prompt(config.prompt) if config.prompt is not None else read_prompts(str(config.prompts))
    if len(prompts) != 1:
        raise UserError(f"{config.prompts} holds {len(prompts)} prompts; extend makes one video")
    prompt = prompts[0]
    check_single(prompt, "moviegen extend")
    sampler = replace(config.sampler, seed=prompt.seeds[0] if prompt.seeds else config.sampler.seed)
    return prompt, replace(config, image=prompt.image or config.image, sampler=sampler)


def _picture(config: ExtendConfig) -> Tensor:
    try:
        image = from_uint8(read_image(str(config.image))[None])[:, 0]
    except MediaError as error:
        raise UserError(str(error)) from error
    return covering(image, config.sampler.height, config.sampler.width)


def load_extender(config: ExtendConfig) -> FlowTask:
    """A model that makes videos of a text, and goes on with them if need be; UserError where it cannot."""
    model, sampler, known, num_frames = config.model, config.sampler, config.known, config.num_frames
    task = load_task(model)
    if not isinstance(task, FlowTask) or "text" not in task.conditioners.items:
        raise UserError(f"{model} is a {type(task).__name__} without text input; give a text-to-video model")
    check_sampler(task, sampler)
    check_frame_rate(model, sampler.frame_rate)
    warn_untrained(model, asked_size(sampler))
    total = task.codec.grid(sampler.num_frames, sampler.height, sampler.width).frames
    if (config.video or num_frames > sampler.num_frames) and frames_condition(task) is None:
        why = f"{num_frames} frames are more than the {sampler.num_frames} that {model} makes at once"
        raise UserError(
            f"{config.video or why}: {model} does not go on from given frames; give one that was trained with task=i2v"
        )
    if known is not None and known >= total:
        raise UserError(f"known={known}: a clip has {total} latent frames, of which at least one must be new")
    return task


def known_frames(task: FlowTask, config: ExtendConfig) -> int:
    """Latent frames that each further clip begins with."""
    sampler = config.sampler
    return config.known or max(
        1, task.codec.grid(sampler.num_frames, sampler.height, sampler.width).frames // 2
    )


@dataclass(frozen=True)
class Source:
    """A video file that is gone on with."""

    path: str
    num_frames: int
    end: Latent  # [1, C, known, H, W] of its last frames, coded as a clip of their own

    @classmethod
    def read(cls, task: FlowTask, config: ExtendConfig) -> Source:
        """Its last frames. UserError for a file of another size or rate, too short, or as long as is wanted already."""
        path, sampler = str(config.video), config.sampler
        needed = known_frames(task, config) * task.codec.temporal_factor
        try:
            info = media.probe(path)
            if (info.height, info.width) != (sampler.height, sampler.width):
                made = f"clips are of {sampler.width}x{sampler.height}: scale it, or set sampler.height and .width"
                raise UserError(f"{path} is of {info.width}x{info.height} pixels, {made}")
            if abs(info.frame_rate / sampler.frame_rate - 1) > 1e-3:
                made = f"clips have sampler.frame_rate={sampler.frame_rate:g}: make the one like the other"
                raise UserError(f"{path} has {info.frame_rate:g} frames per second, {made}")
            if not needed <= info.num_frames < config.num_frames:
                most = f"from {needed} (known={known_frames(task, config)}) to {config.num_frames - 1} are wanted"
                raise UserError(
                    f"{path} has {info.num_frames} frames, {most}, seconds={config.seconds:g} of the whole"
                )
            end = media.read_clip(path, start_frame=info.num_frames - needed).frames
        except MediaError as error:
            raise UserError(str(error)) from error
        for remark in (*info.remarks, *(["its sound is not kept"] if info.has_audio else [])):
            print(f"{path}: {remark}")
        with torch.no_grad():
            rate = torch.tensor([sampler.frame_rate])
            return cls(path, info.num_frames, task.codec.encode(VideoClip(from_uint8(end)[None], rate)))

    def continued(self, task: FlowTask, latent: Latent, config: ExtendConfig) -> Iterator[NDArray[np.uint8]]:
        """The frames of the file, uint8 [H, W, 3], then those of latents [1, C, T, H, W] that begin with its `end`."""
        with media.stream_clip(self.path) as (_, chunks):
            for chunk in chunks:
                yield from chunk
        again = self.end.values.shape[2] * task.codec.temporal_factor
        yield from islice(decoded(task, latent, config.num_frames - self.num_frames + again), again, None)


def longer(
    task: FlowTask, prompt: Prompt, picture: Tensor | None, source: Source | None, config: ExtendConfig
) -> Latent:
    """Latents [1, C, T, H, W]: a first clip or a source's end, then clips that begin with the end of what is there."""
    sampler, text = config.sampler, task.conditioners.named()["text"]
    features = text.features(text.prompts([prompt.text], sampler.stated_rate))
    key = torch.tensor([key_number(prompt.original or prompt.text)])
    inputs: dict[str, Any] = {"text": features}
    if picture is not None:
        inputs |= given_pictures(task, [{0: picture}], sampler)
    latent = sample_latents(task, inputs, key, sampler) if source is None else source.end
    known, num_frames = known_frames(task, config), config.num_frames
    if source is not None:
        num_frames += known * task.codec.temporal_factor - source.num_frames
    wanted = task.codec.grid(num_frames, sampler.height, sampler.width).frames
    with tqdm(total=wanted, initial=latent.values.shape[2], desc="generate", unit="latent frame") as progress:
        for number in range(1, wanted):
            if latent.values.shape[2] >= wanted:
                break
            past = {"text": features, **given_past(task, latent, known, sampler)}
            more = sample_latents(task, past, key, replace(sampler, seed=sampler.seed + 1_000_003 * number))
            new = more.values[:, :, known:]
            latent = Latent(torch.cat([latent.values, new], dim=2), latent.frame_rate)
            progress.update(new.shape[2])
    return latent


def decoded(task: FlowTask, latent: Latent, num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [H, W, 3] of a latent, the first `num_frames`, tile by tile."""
    left = num_frames
    with torch.no_grad():
        for part in tiling.decoded(task.codec, latent):
            for frame in to_uint8(part[0])[:left]:
                left -= 1
                yield frame


class Drift:
    """What the frames of each second look like, on average: a video that drifts ends unlike it began."""

    NAMES = ("brightness", "contrast", "saturation", "sharpness")

    def __init__(self, frame_rate: float) -> None:
        self.frame_rate = frame_rate
        self.rows: list[dict[str, float]] = []  # one a second
        self._counts: list[int] = []

    def watched(self, frames: Any) -> Iterator[NDArray[np.uint8]]:
        """The frames as they are, measured on their way; levels of 0 to 255."""
        for number, frame in enumerate(frames):
            second = int(number / self.frame_rate)
            if second == len(self.rows):
                self.rows.append({"second": second, **dict.fromkeys(self.NAMES, 0.0)})
                self._counts.append(0)
            row = self.rows[second]
            self._counts[second] += 1
            for name, value in zip(self.NAMES, _looks(frame), strict=True):
                row[name] += (value - row[name]) / self._counts[second]
            yield frame

    def __str__(self) -> str:
        if len(self.rows) < 2:
            return "too short to drift"
        first, last = self.rows[0], self.rows[-1]
        changes = (f"{name} {first[name]:.1f} -> {last[name]:.1f}" for name in self.NAMES)
        return f"from the first second to the last: {', '.join(changes)}"


def _looks(frame: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    pixels = frame.astype(np.float32)
    luma = pixels.mean(axis=2)
    steps = np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()
    return float(luma.mean()), float(luma.std()), float(np.ptp(pixels, axis=2).mean()), float(steps)
