"""A conditioner is the unit of extension: it names the file it reads, encodes it, and enters one of five ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from moviegen.fields import Field
from moviegen.rng import SampleRng
from moviegen.types import Grid, Movable

Port = Literal["context", "gated", "concat", "aligned", "pooled"]

TOKENS = ("context", "gated")  # ports that tokens with a mask enter


class Conditioner(nn.Module):
    """Base class. A subclass names its data field and its port, and encodes a batch of inputs.

    `forward(inputs, grid)` returns, by port: context and gated (tokens [B, L, D], mask [B, L] bool); concat [B, S, C];
    aligned [B, S, D]; pooled [B, D]. `drop_prob` is the chance that a training sample loses this condition. A
    dropped context or gated condition is masked out of attention; on the other ports the dropped value is that of
    `absent`, by default `null`, learned, so guidance can ask for it at sampling time.
    """

    field: ClassVar[Field] | Field
    port: ClassVar[Port]

    def __init__(self, width: int, drop_prob: float):
        super().__init__()
        if not 0 <= drop_prob <= 1:
            raise ValueError(f"drop_prob must be a probability, got {drop_prob}")
        self.drop_prob = drop_prob
        self.null = nn.Parameter(torch.zeros(width)) if self.port not in TOKENS else None

    def forward(self, inputs: Any, grid: Grid) -> Any:
        raise NotImplementedError

    def vary(self, inputs: Any, rng: SampleRng) -> Any:  # noqa: ARG002
        """What a training step makes of a batch of inputs, drawn from the samples' own streams; by default nothing."""
        return inputs

    def window(self, inputs: Any, start: int, stop: int) -> Any:  # noqa: ARG002
        """What of a batch of inputs belongs to the latent frames start to stop; by default all of it."""
        return inputs

    def emphasis(self, inputs: Any, x_1: Tensor, grid: Grid) -> Tensor | None:  # noqa: ARG002
        """Weights [B, S] of the training losses of tokens x_1 [B, S, C], for a condition that says where it counts."""
        return None

    def described(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The config that this condition was built from, with what it took from elsewhere; an exported model has it."""
        return dict(node)

    def use_codec(self, codec: Any) -> None:
        """Be told the codec that the model works on."""

    def absent(self, grid: Grid) -> Tensor:  # noqa: ARG002
        """What stands in place of a dropped condition that has no mask: [C], or [S, C] of a token grid."""
        assert self.null is not None
        return self.null

    def dropped(self, encoded: Tensor, gone: Tensor, grid: Grid) -> Tensor:
        """What was encoded, [B, ...], with `absent` in the rows of `gone` [B] bool; of conditions without a mask."""
        rows = gone.to(encoded.device).view(-1, *[1] * (encoded.ndim - 1))
        return torch.where(rows, self.absent(grid).to(encoded.dtype), encoded)

    def empty(self, count: int, latent_grid: Grid) -> Any:  # noqa: ARG002
        """Inputs of `count` clips for whoever gives none; raises ValueError where the condition is a must."""
        raise ValueError(f"a model with {type(self).__name__} needs its input")


@dataclass
class Ports:
    """What the conditioners of a model gave, sorted by port; each list may be empty."""

    context: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    gated: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    concat: list[Tensor] = field(default_factory=list)
    aligned: list[Tensor] = field(default_factory=list)
    pooled: list[Tensor] = field(default_factory=list)


class ConditionerSet(nn.Module):
    """All conditioners of a model by name, in a fixed order; with `drop_all` a training sample loses every one."""

    def __init__(self, conditioners: Mapping[str, Conditioner], drop_all: float = 0.0):
        super().__init__()
        self.drop_all = drop_all
        self.items = nn.ModuleDict(dict(conditioners))

    def named(self) -> dict[str, Any]:
        """The conditioners by name, in their order."""
        return dict(self.items.items())

    @property
    def fields(self) -> dict[str, Field]:
        """The files that a training sample must have, by condition name."""
        return {name: conditioner.field for name, conditioner in self.named().items()}

    def random_drop(self, rng: SampleRng) -> dict[str, Tensor]:
        """Which samples lose which condition: name -> bool [B], drawn per sample and per condition."""
        drop = {name: rng.rand() < conditioner.drop_prob for name, conditioner in self.named().items()}
        if not self.drop_all:
            return drop
        everything = rng.rand() < self.drop_all
        return {name: gone | everything for name, gone in drop.items()}

    def window(self, inputs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Inputs of the latent frames start to stop, see `Conditioner.window`."""
        return {name: self.named()[name].window(value, start, stop) for name, value in inputs.items()}

    def vary(self, inputs: Mapping[str, Any], rng: SampleRng) -> dict[str, Any]:
        """Inputs as a training step takes them, see `Conditioner.vary`."""
        return {name: self.named()[name].vary(value, rng) for name, value in inputs.items()}

    def emphasis(self, inputs: Mapping[str, Any], x_1: Tensor, grid: Grid) -> Tensor | None:
        """The product of all conditions' weights [B, S], see `Conditioner.emphasis`; None for all alike."""
        asked = [self.named()[name].emphasis(value, x_1, grid) for name, value in inputs.items()]
        weights = [one for one in asked if one is not None]
        return torch.stack(weights).prod(dim=0) if weights else None

    def completed(self, inputs: Mapping[str, Any], count: int, latent_grid: Grid) -> dict[str, Any]:
        """Inputs of `count` clips, empty where a condition has none; raises ValueError where it must have one.

        Empty ones lie where the conditions' weights do.
        """
        device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
        empty = {n: c.empty(count, latent_grid) for n, c in self.named().items() if n not in inputs}
        moved = {n: value.to(device) if isinstance(value, Movable) else value for n, value in empty.items()}
        return {n: moved[n] if n in moved else inputs[n] for n in self.named()}

    def encode(self, inputs: Mapping[str, Any], grid: Grid, drop: Mapping[str, Tensor]) -> Ports:
        """Encode the inputs of every condition, with `drop` (name -> bool [B]) applied.

        Raises ValueError for an input or a drop that no conditioner has, or a missing input.
        """
        if unknown := sorted((set(inputs) | set(drop)) - set(self.items)):
            raise ValueError(f"no condition named {unknown[0]!r}; this model has {sorted(self.items)}")
        ports = Ports()
        for name, conditioner in self.named().items():
            if name not in inputs:
                raise ValueError(f"condition {name!r} has no input")
            encoded = conditioner(inputs[name], grid)
            if conditioner.port in TOKENS:
                tokens, mask = encoded
                if name in drop:
                    mask = mask & ~drop[name].to(mask.device)[:, None]
                getattr(ports, conditioner.port).append((tokens, mask))
                continue
            if name in drop:
                encoded = conditioner.dropped(encoded, drop[name], grid)
            getattr(ports, conditioner.port).append(encoded)
        return ports
