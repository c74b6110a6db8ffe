"""Classifier-free guidance as a weighted mix of velocities under partly dropped conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, ..., C], t [B]) -> dx/dt


@dataclass(frozen=True)
class GuidanceTerm:
    """One evaluation of the network: its weight, and the names of the conditions that are null in it."""

    weight: float
    drop: frozenset[str] = frozenset()


def text_guidance(scale: float) -> tuple[GuidanceTerm, ...]:
    """The usual two terms: scale s is (s, with text) and (1 - s, without). Scale 1 needs one evaluation only."""
    if scale == 1:
        return (GuidanceTerm(1.0),)
    return GuidanceTerm(scale), GuidanceTerm(1 - scale, frozenset({"text"}))


def guided(velocity: Callable[..., Tensor], terms: tuple[GuidanceTerm, ...]) -> Velocity:
    """Mix `velocity(x, t, drop=...)` over the terms; raises ValueError where weights do not sum to one."""
    if abs(sum(term.weight for term in terms) - 1) > 1e-6:
        raise ValueError(f"guidance weights must sum to 1, got {[term.weight for term in terms]}")

    def mixed(x: Tensor, t: Tensor) -> Tensor:
        total = terms[0].weight * velocity(x, t, drop=terms[0].drop)
        for term in terms[1:]:
            total = total + term.weight * velocity(x, t, drop=term.drop)
        return total

    return mixed
