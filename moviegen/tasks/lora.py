"""LoRA through peft: small trainable matrices beside the frozen linear layers of a backbone (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moviegen.tasks.base import Task

MARK = "lora_"  # in the names of peft's parameters


def under_lora(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights by the names `own` that they have beside LoRA's matrices, which are zero."""
    if not any(MARK in name for name in own):
        return dict(weights)
    plain = {name.replace(".base_layer.", "."): name for name in own if MARK not in name}
    zeros = {name: torch.zeros_like(value) for name, value in own.items() if MARK in name}
    return {plain.get(name, name): value for name, value in weights.items()} | zeros


@dataclass(frozen=True)
class Lora:
    """What is added to a backbone: W x becomes W x + alpha / rank B A x, B starting at zero.

    Args:
        rank: inner size of B A.
        targets: last names of the linear layers that get one.
    """

    rank: int = 16
    alpha: int = 16
    targets: tuple[str, ...] = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise ValueError(f"rank and alpha must be at least 1, got {self.rank} and {self.alpha}")
        if not self.targets:
            raise ValueError("an adapter needs targets, e.g. wq; got none")

    def inject(self, task: Task) -> None:
        """Add the matrices to a generator's backbone and freeze everything else of it.

        Raises ValueError where peft is not installed, or no layer has one of the target names.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ValueError(
                "adapter=lora needs peft, which is not installed (pip install moviegen[lora])"
            ) from error
        backbone = getattr(task, "backbone", None)
        if not isinstance(backbone, nn.Module):
            raise ValueError(
                f"an adapter is for a generator with a backbone, this is a {type(task).__name__}"
            )
        names = {
            name.rpartition(".")[2] for name, part in backbone.named_modules() if isinstance(part, nn.Linear)
        }
        if not names & set(self.targets):
            raise ValueError(
                f"no linear layer is called {', '.join(self.targets)}; there are {', '.join(sorted(names))}"
            )
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets))
        inject_adapter_in_model(config, backbone)
        for name, parameter in task.named_parameters():
            parameter.requires_grad_(MARK in name)
