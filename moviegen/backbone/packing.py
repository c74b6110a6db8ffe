"""Images and clips of several sizes in one sequence, without padding; only attention is told what belongs together.

A packed sequence is a batch of single tokens, [S, 1, C]: norms, feed-forward and modulation need no other code. An
attention layer is run on each group of equal grids as the batch that it is, so that attention is block-diagonal with
every backend, and no mask of S x S is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moviegen.types import Grid

if TYPE_CHECKING:
    from moviegen.backbone.transformer import Backbone, Conditions


@dataclass(frozen=True)
class Packing:
    """Where the tokens of each sample lie: groups of samples of one grid, one behind the other."""

    grids: tuple[Grid, ...]  # of each group
    counts: tuple[int, ...]  # samples in each group

    @property
    def sizes(self) -> list[int]:
        """Tokens of each group."""
        return [grid.num_tokens * count for grid, count in zip(self.grids, self.counts, strict=True)]

    @property
    def num_tokens(self) -> int:
        return sum(self.sizes)

    def join(self, groups: Sequence[Tensor]) -> Tensor:
        """[B_i, S_i, C] of each group -> [S, 1, C]."""
        return torch.cat([group.flatten(0, 1) for group in groups])[:, None]

    def split(self, tokens: Tensor) -> list[Tensor]:
        """Inverse of `join`."""
        parts = tokens[:, 0].split(self.sizes)
        return [part.unflatten(0, (count, -1)) for part, count in zip(parts, self.counts, strict=True)]

    def spread(self, samples: Tensor) -> Tensor:
        """What holds for a sample [B, ...] (its modulation) at each of its tokens: [S, ...]."""
        lengths = [grid.num_tokens for grid, n in zip(self.grids, self.counts, strict=True) for _ in range(n)]
        return samples.repeat_interleave(torch.tensor(lengths, device=samples.device), dim=0)

    def attend(self, layer: Callable[..., Tensor], tokens: Tensor, *by_sample: Tensor) -> Tensor:
        """An attention layer over packed tokens [S, 1, D], and what it reads for each sample [B, ...]."""
        parts = zip(self.split(tokens), *(values.split(self.counts) for values in by_sample), strict=True)
        return self.join([layer(*part) for part in parts])

    def positions(
        self, table: Callable[[Grid, Tensor | None], Tensor], first_frame: Tensor | None = None
    ) -> Tensor:
        """The positions of every token, [S, 1, D], by a table that knows one grid; `first_frame` [B] as it takes it."""
        starts = [None] * len(self.counts) if first_frame is None else first_frame.split(self.counts)
        groups = zip(self.grids, self.counts, starts, strict=True)
        return self.join(
            [
                table(grid, start if grid.frames == 1 else None).expand(count, -1, -1)
                for grid, count, start in groups
            ]
        )


def packed(conditions: Sequence[Conditions]) -> Conditions:
    """The conditions of several groups, each of one grid, as those of one packed sequence; contexts are padded."""
    grids = tuple(one.grid for one in conditions)
    assert all(isinstance(grid, Grid) for grid in grids)
    packing = Packing(grids, tuple(len(one.context) for one in conditions))  # type: ignore[arg-type]
    return replace(
        conditions[0],
        grid=packing,
        context=_padded([one.context for one in conditions]),
        context_mask=_padded([one.context_mask for one in conditions]),
        gated=_joined([one.gated for one in conditions], _padded),
        gated_mask=_joined([one.gated_mask for one in conditions], _padded),
        concat=_joined([one.concat for one in conditions], packing.join),
        aligned=_joined([one.aligned for one in conditions], packing.join),
        pooled=_joined([one.pooled for one in conditions], torch.cat),
        first_frame=_starts(conditions),
    )


def _starts(conditions: Sequence[Conditions]) -> Tensor | None:
    """Where samples stand in time, [B]; at 0 those that do not say."""
    if all(one.first_frame is None for one in conditions):
        return None
    zeros = [
        torch.zeros(len(one.context), dtype=torch.int64, device=one.context.device) for one in conditions
    ]
    pairs = zip(conditions, zeros, strict=True)
    return torch.cat([zero if one.first_frame is None else one.first_frame for one, zero in pairs])


def _padded(values: Sequence[Tensor]) -> Tensor:
    """[B_i, L_i, ...] of each group -> [B, L, ...], zeros where a group is shorter."""
    longest = max(value.shape[1] for value in values)
    blanks = [(0, 0) * (value.ndim - 2) + (0, longest - value.shape[1]) for value in values]
    pairs = zip(values, blanks, strict=True)
    return torch.cat([torch.nn.functional.pad(value, blank) for value, blank in pairs])


def _joined(values: list[Tensor | None], join: Callable[[list[Tensor]], Tensor]) -> Tensor | None:
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) < len(values):
        raise ValueError("packed samples must have the same conditions; one group lacks what another has")
    return join(given)


def packed_velocities(
    backbone: Backbone, x_t: Sequence[Tensor], t: Sequence[Tensor], conditions: Sequence[Conditions]
) -> list[Tensor]:
    """Velocities [B_i, S_i, C] of several groups in one pass; those that `backbone` gives for each alone."""
    if len(x_t) == 1:
        return [backbone(x_t[0], t[0], conditions[0])]
    together = packed(conditions)
    assert isinstance(together.grid, Packing)
    return together.grid.split(backbone(together.grid.join(x_t), torch.cat(list(t)), together))
