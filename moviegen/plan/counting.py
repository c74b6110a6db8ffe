"""Operations and parameters of a backbone, counted by running it on the meta device: shapes without data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.types import Grid


@dataclass(frozen=True)
class Counted:
    """Of one sample: operations of a forward pass and of forward and backward together, and the model's parameters."""

    parameters: int
    forward_flops: int
    step_flops: int


def count(config: BackboneConfig, grid: Grid, context: int) -> Counted:
    """Run one sample of a token grid, which reads `context` tokens of text, forward and backward on the meta device.

    Raises ValueError for a grid beyond the model's positions.
    """
    with torch.device("meta"):
        model = Backbone(config)
        tokens = torch.empty(1, grid.num_tokens, config.token_channels)
        joined = config.input_channels - config.token_channels
        conditions = Conditions(
            grid=grid,
            context=torch.empty(1, context, config.dim),
            context_mask=torch.ones(1, context, dtype=torch.bool),
            concat=torch.empty(1, grid.num_tokens, joined) if joined else None,
        )
        forward, both = FlopCounterMode(display=False), FlopCounterMode(display=False)
        with both:
            with forward:
                velocity = model(tokens, torch.empty(1), conditions)
            velocity.sum().backward()
    parameters = sum(p.numel() for p in model.parameters())
    return Counted(parameters, forward.get_total_flops(), both.get_total_flops())
