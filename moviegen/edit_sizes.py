"""Of which size and length `moviegen edit` takes its sources: asked of all of them before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

from moviegen import media
from moviegen.config import UserError
from moviegen.edit_outputs import Edit
from moviegen.tasks.editing import Baseline, EditSampler, check_sampling
from moviegen.tasks.flow_task import FlowTask


def check_sources(
    edits: Iterable[Edit],
    task: FlowTask,
    wanted: tuple[int | None, int | None],
    sampler: EditSampler,
    baseline: Baseline | None,
) -> None:
    """Refuse sources that are not there, or of a size or length that will not do.

    Args:
        wanted: height and width to edit at, None for that of a source.

    Raises MediaError, UserError, and ValueError as `check_sampling`.
    """
    for one in edits:
        media.check_readable(one.source)
        size = edited_size(one, task, wanted)
        frames = 1 if one.still else max(1, media.probe(one.source).num_frames)
        check_sampling(task, task.codec.grid(frames, *size).frames, sampler, baseline)


def check_size(task: FlowTask, size: tuple[int, int]) -> None:
    """Raise UserError for a size in pixels that the model cannot make."""
    (_, ph, pw), sizes = task.backbone.config.patch, task.backbone.config
    for name, value, patch, most in (
        ("height", size[0], ph, sizes.max_height),
        ("width", size[1], pw, sizes.max_width),
    ):
        unit = task.codec.spatial_factor * patch
        if value % unit or not unit <= value <= most * unit:
            raise UserError(
                f"{name}={value}: this model edits multiples of {unit} pixels, from {unit} to {most * unit}"
            )


def edited_size(one: Edit, task: FlowTask, wanted: tuple[int | None, int | None]) -> tuple[int, int]:
    """The size that a source is edited at: as wanted (height, width), else the nearest to its own that the model makes.

    Raises UserError where the model makes none near its own.
    """
    if wanted[0] is not None and wanted[1] is not None:
        return wanted[0], wanted[1]
    if one.still:
        height, width = media.read_image(one.source, plain=True).shape[:2]
    else:
        info = media.probe(one.source)
        height, width = info.height, info.width
    _, ph, pw = task.backbone.config.patch
    factor = task.codec.spatial_factor
    size = tuple(max(1, round(n / (factor * p))) * factor * p for n, p in ((height, ph), (width, pw)))
    found = (wanted[0] or size[0], wanted[1] or size[1])
    try:
        check_size(task, found)
    except UserError as error:
        raise UserError(
            f"{one.source} is of {width}x{height} pixels; {error}; set height= and width="
        ) from None
    return found
