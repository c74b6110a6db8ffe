"""What an edit starts from and which kind it is (paper 5): the source video on the channels, and task embeddings.

At step 0 a model with these conditions answers as the text-to-video model that it starts from: input weights of the
source are zero, the task's vector is zero, and its tokens enter through a cross-attention with a gate of zero. Plain
tokens beside the text's, as the paper appends them, change the softmax even where they are zero: `TaskTokens` with
`appended` has them, and no such claim.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moviegen.backbone.patchify import patchify
from moviegen.codec.base import VideoCodec
from moviegen.codec.tiling import encode_tiled
from moviegen.conditioning.base import Conditioner
from moviegen.conditioning.edit_tasks import EDIT_TASKS, TEXT_TO_VIDEO, recognised
from moviegen.fields import Field, collate_list, decode_array, decode_record, decode_text, same_shapes
from moviegen.rng import SampleRng
from moviegen.types import Grid, Movable, VideoClip

NUM_TOKENS = 4  # of a task (Emu Edit)
BACKTRANSLATED = "backtranslated"  # form of the edit of a sample whose source a model has edited


@dataclass(frozen=True)
class Sources(Movable):
    """The videos that edits start from."""

    values: Tensor | None  # [B, C, T, H, W] clean latents; None where no sample has one
    given: Tensor  # [B] bool; a sample that has none is text-to-video
    made: Tensor  # [B] bool; the source is what a model made of a real clip, on its way there and back

    @classmethod
    def of(cls, values: Tensor) -> Sources:
        """A real source [C, T, H, W] for every clip of a batch [B, ...]."""
        given = torch.ones(len(values), dtype=torch.bool, device=values.device)
        return cls(values, given, torch.zeros_like(given))

    @classmethod
    def none(cls, count: int) -> Sources:
        """No source for any of so many clips."""
        nothing = torch.zeros(count, dtype=torch.bool)
        return cls(None, nothing, nothing)


def decode_source(data: bytes, record: bytes) -> tuple[np.ndarray | None, bool]:
    """The cached latent [C, T, H, W] of the video before the edit, and whether a model made it, as its record says.

    None and False where a sample has none (empty).
    """
    if not data:
        return None, False
    values = decode_array(data)
    if values.ndim != 4:
        raise ValueError(f"a source is a latent [C, T, H, W], this array is {list(values.shape)}")
    edit = decode_record(record).get("edit")
    return values, isinstance(edit, dict) and edit.get("form") == BACKTRANSLATED


def collate_sources(items: list[tuple[np.ndarray | None, bool]]) -> Sources:
    """Samples with or without a source of one size, float32."""
    found = [values for values, _ in items if values is not None]
    if not found:
        return Sources.none(len(items))
    same_shapes([values.shape for values in found], "sources")
    nothing = np.zeros_like(found[0])
    filled = np.stack([nothing if values is None else values for values, _ in items])
    given = torch.tensor([values is not None for values, _ in items])
    return Sources(torch.from_numpy(filled).float(), given, torch.tensor([made for _, made in items]))


def decode_task(record: bytes, text: bytes, known: Collection[str] | None = None) -> str:
    """The task of a sample: as its record says, else by the words of its instruction; of one without a source, t2v.

    Words tell the `known` tasks alone, see `recognised`.
    """
    edit = decode_record(record).get("edit")
    if not isinstance(edit, dict):
        return TEXT_TO_VIDEO
    return str(edit["task"]) if edit.get("task") else recognised(decode_text(text), known)


SOURCE = Field("source.npy", decode_source, collate_sources, also=("json",), optional=("source.npy",))
TASK = Field("json", decode_task, collate_list, also=("txt",))


class SourceVideo(Conditioner):
    """Clean latents of the source on the channels of each token (paper 5).

    Without a source, and where guidance asks for the answer without it, a black video stands there, as the paper
    trains text-to-video beside edits.

    Args:
        dim: model width; not used, what is joined to the input has the width of a token.
        latent_channels: of the codec.
        patch: the backbone's.
        noise: in training, sources that a model made are mixed with noise, 0 to so much of it (paper 5, stage III).
        changed_weight: in training, losses of the tokens that the edit changes count so many times as much.
        changed_above: a token is changed where the root mean square of target less source is more than this.
    """

    port = "concat"
    field = SOURCE

    def __init__(
        self,
        dim: int,  # noqa: ARG002
        latent_channels: int = 16,
        patch: tuple[int, int, int] = (1, 2, 2),
        noise: float = 0.0,
        drop_prob: float = 0.05,
        changed_weight: float = 1.0,
        changed_above: float = 0.1,
    ):
        if not 0 <= noise < 1:
            raise ValueError(f"noise must be at least 0 and below 1, got {noise}")
        if changed_weight <= 0 or changed_above < 0:
            got = f"{changed_weight} and {changed_above}"
            raise ValueError(f"changed_weight must be positive and changed_above at least 0, got {got}")
        pt, ph, pw = patch
        super().__init__(width=latent_channels * pt * ph * pw, drop_prob=drop_prob)
        assert self.null is not None
        self.null.requires_grad_(False)  # a black video stands where nothing is given
        self.latent_channels, self.patch, self.noise = latent_channels, (pt, ph, pw), noise
        self.changed_weight, self.changed_above = changed_weight, changed_above
        self._codec: tuple[VideoCodec, ...] = ()
        self._black: dict[Grid, Tensor] = {}

    def use_codec(self, codec: Any) -> None:
        self._codec, self._black = (codec,), {}

    def absent(self, grid: Grid) -> Tensor:
        """Tokens [S, C] of a black video of a token grid, coded in tiles and once for each size."""
        assert self.null is not None
        if grid not in self._black:
            (codec,) = self._codec
            (pt, ph, pw), t, s = self.patch, codec.temporal_factor, codec.spatial_factor
            size = ((grid.frames * pt - 1) * t + 1, grid.height * ph * s, grid.width * pw * s)
            with torch.no_grad():
                frame = torch.full((1, 3, 1, *size[1:]), -1.0, device=self.null.device)
                black = VideoClip(frame.expand(-1, -1, size[0], -1, -1), torch.zeros(1))
                self._black[grid] = patchify(encode_tiled(codec, black), self.patch)[0][0].float()
        return self._black[grid].to(self.null.device)

    def dropped(self, encoded: Tensor, gone: Tensor, grid: Grid) -> Tensor:
        return super().dropped(encoded, gone, grid) if gone.any() else encoded  # black is only coded then

    def empty(self, count: int, latent_grid: Grid) -> Sources:  # noqa: ARG002
        return Sources.none(count)

    def vary(self, inputs: Sources, rng: SampleRng) -> Sources:
        rows = inputs.made.nonzero().flatten().tolist()
        if not self.noise or inputs.values is None or not rows:
            return inputs
        values = inputs.values.clone()
        own = rng.part(rows)  # the others' streams go on as if nothing were drawn
        share = (self.noise * own.rand()).to(values).view(-1, 1, 1, 1, 1)
        values[rows] = (1 - share) * values[rows] + share * own.randn(*values.shape[1:]).to(values)
        return replace(inputs, values=values)

    def emphasis(self, inputs: Sources, x_1: Tensor, grid: Grid) -> Tensor | None:  # noqa: ARG002
        """Weights [B, S]: `changed_weight` where an edit changes its source, 1 elsewhere and without a source."""
        if self.changed_weight == 1 or inputs.values is None:
            return None
        source, _ = patchify(inputs.values.to(x_1), self.patch)
        changed = (x_1 - source).square().mean(dim=-1).sqrt() > self.changed_above
        changed &= inputs.given[:, None]
        return 1 + (self.changed_weight - 1) * changed.to(x_1.dtype)

    def window(self, inputs: Sources, start: int, stop: int) -> Sources:
        return inputs if inputs.values is None else replace(inputs, values=inputs.values[:, :, start:stop])

    def forward(self, inputs: Sources, grid: Grid) -> Tensor:
        """Channels [B, S, C * patch]."""
        if inputs.values is None:
            return self.absent(grid).expand(len(inputs.given), -1, -1)
        if inputs.values.shape[1] != self.latent_channels:
            raise ValueError(
                f"the source has {inputs.values.shape[1]} latent channels, this model takes {self.latent_channels}"
            )
        tokens, own = patchify(inputs.values, self.patch)
        if own != grid:
            raise ValueError(f"the source is of {own}, the clip is of {grid}")
        return self.dropped(tokens, ~inputs.given, grid)


class OfTask(Conditioner):
    """A table with a row for each task.

    Args:
        dim: model width.
        tasks: names, in the order of the rows; None for all of `EDIT_TASKS`. An exported model names its own, which
            stay what they are when the registry grows.
    """

    def __init__(self, dim: int, width: int, tasks: Sequence[str] | None, drop_prob: float):
        super().__init__(width=dim, drop_prob=drop_prob)
        self.tasks = tuple(EDIT_TASKS if tasks is None else tasks)
        self.field = replace(TASK, decode=partial(decode_task, known=self.tasks))
        if len(set(self.tasks)) < len(self.tasks) or not self.tasks:
            raise ValueError(f"tasks must be named, each once, got {list(self.tasks)}")
        self.table = nn.Embedding(len(self.tasks), width)
        nn.init.zeros_(self.table.weight)

    def described(self, node: Mapping[str, Any]) -> dict[str, Any]:
        return {**node, "tasks": list(self.tasks)}

    def empty(self, count: int, latent_grid: Grid) -> list[str]:  # noqa: ARG002
        return [TEXT_TO_VIDEO] * count

    def rows(self, inputs: Sequence[str]) -> Tensor:
        """The rows [B, W] of task names; ValueError for one that the model has not."""
        if unknown := sorted(set(inputs) - set(self.tasks)):
            raise ValueError(
                f"no edit task is called {unknown[0]!r}; this model knows {', '.join(self.tasks)}"
            )
        places = torch.tensor([self.tasks.index(name) for name in inputs], device=self.table.weight.device)
        return self.table(places)


class TaskTokens(OfTask):
    """Four tokens of each task, read by a second cross-attention whose gate starts at zero.

    With `appended` they stand beside the tokens of the text, as the paper has them.
    """

    port = "gated"

    def __init__(
        self,
        dim: int,
        tasks: Sequence[str] | None = None,
        appended: bool = False,
        drop_prob: float = 0.0,
    ):
        if appended:
            self.port = "context"  # type: ignore[misc]  (of this one alone)
        super().__init__(dim, NUM_TOKENS * dim, tasks, drop_prob)
        if not appended:  # with a gate of zero, tokens of zero would never learn
            nn.init.normal_(self.table.weight)

    def forward(self, inputs: Sequence[str], grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Tokens [B, 4, D] and a mask [B, 4] of ones."""
        tokens = self.rows(inputs).unflatten(-1, (NUM_TOKENS, -1))
        return tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)


class TaskVector(OfTask):
    """A vector of each task, added to the time embedding; zero at first."""

    port = "pooled"

    def __init__(self, dim: int, tasks: Sequence[str] | None = None, drop_prob: float = 0.0):
        super().__init__(dim, dim, tasks, drop_prob)

    def forward(self, inputs: Sequence[str], grid: Grid) -> Tensor:  # noqa: ARG002
        """Vectors [B, D]."""
        return self.rows(inputs)
