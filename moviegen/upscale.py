"""`moviegen upscale`: a video of any length to a larger size, streamed through a spatial upsampler (paper 3.1.5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from moviegen import media, runfolder
from moviegen.config import UserError, build, check_least, check_targets
from moviegen.lineage import check_training
from moviegen.modelfile import Dtype, load_task, read_record, weights_file
from moviegen.pixels import from_uint8, to_uint8
from moviegen.provenance.consent import ConsentStore
from moviegen.provenance.export import Exporter, Made, Marking, Origin
from moviegen.provenance.filters import Filters
from moviegen.targets import MODEL_TARGETS
from moviegen.tasks.limits import check_lengths
from moviegen.tasks.upsample_task import UpsampleTask
from moviegen.tasks.upsampling import Upsampler, UpsamplerConfig, windows

LEAST_SIDE = 8  # pixels of a video's middle: below it there is nothing to see
MOST_PIXELS = 8192 * 4320  # of a frame
TOLD = ("prompt", "original", "drift")  # of the first side-car in `history`, in that of the larger video too
RECORDED = ("model", "model_sha256", "prompt_sha256", "seed", "settings")  # of each, in the manifest


@dataclass(frozen=True)
class UpscaleConfig:
    """The keys of conf/upscale.yaml, which says what they are."""

    video: str
    out: Path
    model: str
    upsampler: UpsamplerConfig
    marking: Marking = field(default_factory=Marking)
    filters: Filters = field(default_factory=Filters)
    factor: float | None = None
    size: tuple[int, int] | None = None
    most_per_pass: float = 2.0
    sound: str | None = None
    prompt: str | None = None
    history: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    crf: float = 18
    precision: Dtype = "float32"
    num_threads: int | None = None
    store: Path = Path("consents")

    def __post_init__(self) -> None:
        check_least(self, crf=0, num_threads=1)
        if self.factor is None and self.size is None:
            raise UserError("give factor=2, or size=[1080,1920], or both")
        if self.factor is not None and not 1 <= self.factor <= 64:
            raise UserError(f"factor={self.factor:g}: must be 1 to 64")
        if self.most_per_pass <= 1:
            raise UserError(f"most_per_pass={self.most_per_pass:g}: must be above 1")
        if self.size is not None and (
            len(self.size) != 2 or min(self.size) < 16 or any(n % 2 for n in self.size)
        ):
            raise UserError(
                f"size={list(self.size)}: must be an even height and an even width, of 16 or more"
            )
        if self.out.suffix != ".mp4":
            raise UserError(f"out={self.out}: must end in .mp4")


@dataclass(frozen=True)
class Shape:
    """Height and width on the way: of the source, of its middle that is used, after each pass, and as written."""

    source: tuple[int, int]
    used: tuple[int, int]
    passes: tuple[tuple[int, int], ...]
    written: tuple[int, int]

    @classmethod
    def of(
        cls, source: tuple[int, int], factor: float | None, size: tuple[int, int] | None, most: float
    ) -> Shape:
        """Without a factor the source's middle of the wanted shape becomes `size`; with one, the result is cut.

        No pass enlarges more than `most` times. Raises UserError for a frame that is too large.
        """
        if factor is None:
            assert size is not None
            used, made = middle_of(source, size), size
            if min(used) < min(LEAST_SIDE, *source):
                part = f"{used[1]}x{used[0]} pixels of the video, {source[1]}x{source[0]}"
                raise UserError(
                    f"size={list(size)}: so flat that only {part}, are used; at least {LEAST_SIDE}"
                )
            factor = max(size[0] / used[0], size[1] / used[1])
            if factor < 1:
                raise UserError(f"size={list(size)}: smaller than the video, {source[1]}x{source[0]}")
        else:
            used, made = source, (round(factor * source[0]), round(factor * source[1]))
        if made[0] * made[1] > MOST_PIXELS:
            raise UserError(
                f"{made[1]}x{made[0]} pixels are too many; at most {MOST_PIXELS}: give a smaller factor"
            )
        count = max(1, math.ceil(math.log(factor) / math.log(most) - 1e-9))
        steps = [factor ** ((number + 1) / count - 1) for number in range(count)]
        passes = tuple((max(2, round(made[0] * step)), max(2, round(made[1] * step))) for step in steps)
        return cls(source, used, passes, size or (made[0] - made[0] % 2, made[1] - made[1] % 2))

    @property
    def made(self) -> tuple[int, int]:
        """After the last pass."""
        return self.passes[-1]

    def __str__(self) -> str:
        sizes = [self.source, *([self.used] if self.used != self.source else []), *self.passes]
        sizes += [self.written] if self.written != self.made else []
        return " -> ".join(f"{width}x{height}" for height, width in sizes)

    def finished(self, frame: Tensor) -> Tensor:
        """A frame [3, H, W] of the last pass as it is written: its middle, resized."""
        if self.made == self.written:
            return frame
        part = cropped(frame, middle_of(self.made, self.written))
        if tuple(part.shape[1:]) != self.written:
            part = F.interpolate(
                part[None], self.written, mode="bicubic", antialias=True, align_corners=False
            )[0]
        return part.clamp(-1, 1)


def middle_of(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest height and width of a shape's aspect ratio within a size."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    return min(size[0], round(scale * shape[0])), min(size[1], round(scale * shape[1]))


def cropped(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of a frame [3, H, W]."""
    top, left = (frame.shape[1] - size[0]) // 2, (frame.shape[2] - size[1]) // 2
    return frame[:, top : top + size[0], left : left + size[1]]


def upscale(cfg: DictConfig) -> None:
    """Write a larger copy of a video, with its sound, marked as generated.

    Raises UserError, ValueError or MediaError, before anything is written, for a file that cannot be read, a model
    that is no upsampler, windows that it cannot take, a size that is too large, or a key that cannot be used.
    """
    config: UpscaleConfig = build(cfg)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    info = media.probe(config.video)
    shape = Shape.of((info.height, info.width), config.factor, config.size, config.most_per_pass)
    exporter = Exporter(config.marking, config.filters)
    check_training(config.model, ConsentStore(config.store))
    if config.prompt:
        config.filters.check_prompts({"prompt": config.prompt})
    task = load_upsampler(config.model)
    text = text_inputs(task, config.prompt, info.frame_rate)
    passes(task, config, shape, info.num_frames, text)  # refuses windows before anything is read
    audio, rate = sound_of(config.sound or config.video, info, own=config.sound is None)
    settings = {"upsampler": asdict(config.upsampler), "passes": [list(size) for size in shape.passes]}
    settings |= {"size": list(shape.written), "crf": config.crf}
    card = {"id": config.out.stem, "source": config.video, **settings}
    history = [runfolder.read_json(path) for path in config.history]
    if history:
        card |= {name: history[0][name] for name in TOLD if name in history[0]} | {"history": history}
    origin = origin_of(config, settings, history)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{config.video}: {info.num_frames} frames, {shape}", flush=True)
    with media.stream_clip(config.video) as (info, chunks):
        source = each_frame(chunks, info.num_frames, config.video)
        frames = larger(passes(task, config, shape, info.num_frames, text), source, shape, config.precision)
        shown = tqdm(frames, total=info.num_frames, desc="upscale", unit="frame")
        made = Made(shown, info.frame_rate, audio, rate, config.crf)
        exporter.export(config.out, made, origin, card)


def origin_of(
    config: UpscaleConfig, settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> Origin:
    """What a video comes from: from another file, unless `history` tells how that one was made of a prompt.

    Raises UserError for a side-car in `history` that does not tell how its file was made.
    """
    before = []
    for path, card in zip(config.history, history, strict=True):
        record = card.get("provenance") if isinstance(card, dict) else None
        if not isinstance(record, dict) or not {*RECORDED} <= record.keys():
            raise UserError(f"history: {path} does not tell how its file was made")
        before.append({name: record[name] for name in RECORDED})
    digest = runfolder.file_sha256(weights_file(config.model))
    prompt = str(history[0].get("prompt", "")) if history else config.prompt or ""
    files = config.given if history else (config.video, *config.given)
    more = {**settings, "history": before} if history else dict(settings)
    return Origin(config.model, digest, prompt, config.upsampler.seed, more, tuple(map(Path, files)))


def passes(
    task: UpsampleTask, config: UpscaleConfig, shape: Shape, num_frames: int, text: dict[str, Any]
) -> list[Upsampler]:
    """One upsampler a pass; they share the network."""
    return [Upsampler(task, config.upsampler, size, num_frames, text) for size in shape.passes]


def check_windows(config: UpscaleConfig, shape: Shape) -> None:
    """Raise what `passes` would for a model that is no upsampler, or windows that it cannot take; reads no weights."""
    node = read_record(config.model).get("task") or {}
    check_targets(node, MODEL_TARGETS)
    kind = str(node.get("_target_")).rpartition(".")[2]
    if kind != UpsampleTask.__name__:
        raise _no_upsampler(config.model, kind)
    limit, factor = build(node["backbone"]["config"]), build(node["codec"]).spatial_factor
    for size in shape.passes:
        windows(config.upsampler, limit, factor, size)


def _no_upsampler(model: str, kind: str) -> UserError:
    return UserError(f"{model} is a {kind}; give an upsampler, such as experiments/toy/weights/upsample")


def load_upsampler(model: str) -> UpsampleTask:
    """A model from disk; UserError where it is no upsampler."""
    task = load_task(model)
    if not isinstance(task, UpsampleTask):
        raise _no_upsampler(model, type(task).__name__)
    return task


def text_inputs(task: UpsampleTask, prompt: str | None, frame_rate: float) -> dict[str, Any]:
    """Inputs of the text condition, if the model has one; UserError where a prompt is missing or would be ignored."""
    named = task.conditioners.named()
    if "text" not in named:
        if prompt:
            raise UserError("this upsampler reads no text: leave prompt= away")
        return {}
    if not prompt:
        raise UserError("this upsampler reads text: give prompt='what the video shows'")
    check_lengths(task, {"prompt": prompt}, frame_rate)
    return {"text": named["text"].features(named["text"].prompts([prompt], frame_rate))}


def each_frame(chunks: Iterable[NDArray[np.uint8]], count: int, name: str) -> Iterator[Tensor]:
    """Frames [3, h, w] in [-1, 1] of chunks of a video; MediaError where they are not `count`."""
    found = 0
    for chunk in chunks:
        for frame in from_uint8(chunk).unbind(1):
            found += 1
            if found <= count:
                yield frame
    if found != count:
        raise media.MediaError(name, f"{found} frames can be decoded, {count} are announced", "truncated")


def larger(
    upsamplers: Iterable[Upsampler], frames: Iterable[Tensor], shape: Shape, precision: Dtype = "float32"
) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [H, W, 3] as they are written, of frames [3, h, w] that pass through one upsampler after another."""
    frames = (cropped(frame, shape.used) for frame in frames)
    for upsampler in upsamplers:
        frames = upsampler(frames)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for frame in frames:
            yield to_uint8(shape.finished(frame)[:, None])[0]


def sound_of(path: str, info: media.MediaInfo, own: bool) -> tuple[NDArray[np.float32] | None, int | None]:
    """Sound as long as a video, float32 [C, N], and its rate: the video's `own`, if any, or that of another file."""
    start, seconds = (info.start_seconds if own else 0.0), info.num_frames / info.frame_rate
    if own and not info.has_audio:
        return None, None
    limits = media.Limits(seconds=media.Limits().seconds + seconds)
    return media.read_sound(path, start, start + seconds, limits)
