"""Factorised learned positions: one table each for time, height and width (paper 3.1.2; NaViT)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moviegen.types import Grid


class Positions(nn.Module):
    """phi_t + phi_h + phi_w per token; the backbone adds the sum to the input of every layer."""

    def __init__(self, dim: int, max_frames: int, max_height: int, max_width: int):
        super().__init__()
        self.frames = nn.Parameter(torch.empty(max_frames, dim))
        self.height = nn.Parameter(torch.empty(max_height, dim))
        self.width = nn.Parameter(torch.empty(max_width, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in (self.frames, self.height, self.width):
            nn.init.normal_(table, std=0.02)

    def forward(self, grid: Grid, first_frame: Tensor | None = None) -> Tensor:
        """[S, D] in raster order; raises ValueError for a grid larger than the tables.

        With `first_frame` [B], the row that the only frame of each sample takes, [B, S, D].
        """
        limit = Grid(len(self.frames), len(self.height), len(self.width))
        if grid.frames > limit.frames or grid.height > limit.height or grid.width > limit.width:
            raise ValueError(f"token grid {grid} exceeds the learned positions {limit}")
        places = self.height[: grid.height, None] + self.width[None, : grid.width]
        if first_frame is not None:
            return self.frames[first_frame, None] + places.flatten(0, 1)
        return (self.frames[: grid.frames, None, None] + places).flatten(0, 2)


def grown(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an earlier stage with position tables as long as a model's own ones (paper 3.2.2).

    Height and width are stretched, so that a place keeps its meaning relative to the whole; the paper doubles and then
    triples them and does not say how: linear interpolation is our choice. New frames are added behind the old ones,
    with the values that `own` starts them with. A table that would shrink is left alone, to be refused by its shape.
    """
    result = dict(weights)
    for name, table in weights.items():
        kind = name.rpartition("positions.")[2]
        if kind not in ("frames", "height", "width") or name not in own or len(table) >= len(own[name]):
            continue
        if kind == "frames":
            result[name] = torch.cat([table, own[name][len(table) :].to(table)])
        else:
            result[name] = F.interpolate(table.T[None].float(), len(own[name]), mode="linear")[0].T.to(table)
    return result
