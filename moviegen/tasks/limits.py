"""What a generator can be asked for: sizes, lengths and prompts are held against its parts before any clip is made.

Sizes must be multiples of the codec's factor times the patch. A clip may have any number of frames that its positions
reach: the codec decodes whole latent frames, and those past the last one asked for are dropped (paper 3.1.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from moviegen.conditioning.text import TextCondition
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig
from moviegen.tasks.solving import check_solver

SHOWN = 40  # characters of a prompt in a message


def check_sampler(task: FlowTask, sampler: SamplerConfig) -> None:
    """Raise ValueError for a size, length or rate that the model cannot make, or a codec that does not fit it.

    So too for guidance on a condition that it has not, and a solver that it does not go with.
    """
    config, codec = task.backbone.config, task.codec
    if codec.latent_channels != config.latent_channels:
        raise ValueError(
            f"the codec has {codec.latent_channels} latent channels, the generator makes {config.latent_channels}; "
            "give the codec that it was trained with"
        )
    if not (math.isfinite(sampler.frame_rate) and sampler.frame_rate > 0):
        raise ValueError(f"sampler.frame_rate={sampler.frame_rate}: must be above 0 frames per second")
    patch_frames, patch_height, patch_width = config.patch
    for name, unit, most in (
        ("height", codec.spatial_factor * patch_height, config.max_height),
        ("width", codec.spatial_factor * patch_width, config.max_width),
    ):
        value = getattr(sampler, name)
        if value < unit or value % unit or value > most * unit:
            raise ValueError(
                f"sampler.{name}={value}: this model makes multiples of {unit} pixels, from {unit} to {most * unit}"
            )
    unit, most = codec.temporal_factor, config.max_frames * patch_frames
    latent_frames = math.ceil(sampler.num_frames / unit)
    if sampler.num_frames < 1 or latent_frames > most or latent_frames % patch_frames:
        each = f", in steps of {unit * patch_frames}" if patch_frames > 1 else ""
        raise ValueError(
            f"sampler.num_frames={sampler.num_frames}: this model makes 1 to {most * unit} frames{each} (its positions "
            f"reach {most} latent frames of {unit})"
        )
    if sampler.seed < 0:
        raise ValueError(f"sampler.seed={sampler.seed}: must be at least 0")
    own = sorted(set(task.conditioners.items) - {"text"})
    if unknown := next((name for name in sampler.condition_guidance if name not in own), None):
        has = f"its conditions beside the text are {', '.join(own)}" if own else "it has none beside the text"
        raise ValueError(f"sampler.condition_guidance.{unknown}: this model has no such condition, {has}")
    check_solver(task.path, sampler)


def asked_size(sampler: SamplerConfig) -> dict[str, float]:
    """Height, width and, of clips, frames that are asked for, as a model's json names them; a still has no length."""
    size: dict[str, float] = {"height": sampler.height, "width": sampler.width}
    return {"num_frames": sampler.num_frames, **size} if sampler.num_frames > 1 else size


def check_prompts(task: FlowTask, prompts: Mapping[str, str], sampler: SamplerConfig) -> None:
    """Raise ValueError naming the first of the prompts (id -> text) that is empty, or longer than a text encoder reads.

    A prompt is never cut, since what it asks for last would not be made. Captions of training are, and counted
    (`conditioning.text.TextCondition`).
    """
    if empty := next((name for name, text in prompts.items() if not text.strip()), None):
        raise ValueError(f"prompt {empty} is empty")
    check_lengths(task, prompts, sampler.stated_rate)


def check_lengths(task: FlowTask, prompts: Mapping[str, str], stated_rate: float) -> None:
    """As `check_prompts`, for clips of a frame rate (0 of pictures), which may stand before the text."""
    names, texts = list(prompts), list(prompts.values())
    conditions = {n: c for n, c in task.conditioners.named().items() if isinstance(c, TextCondition)}
    for condition, name in [(c, n) for c in conditions for n in conditions[c].encoders] if texts else []:
        encoder = conditions[condition].encoders[name]
        lengths = encoder.lengths(conditions[condition].prompts(texts, stated_rate))
        long = [index for index, length in enumerate(lengths) if length > encoder.max_tokens]
        if long:
            text = texts[long[0]]
            shown = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
            others = f"; so are {len(long) - 1} others" if len(long) > 1 else ""
            reader = f"{condition} {name}".strip()
            raise ValueError(
                f"prompt {names[long[0]]} ({shown!r}) has {lengths[long[0]]} tokens, {reader} reads at most "
                f"{encoder.max_tokens}: shorten it{others}"
            )
