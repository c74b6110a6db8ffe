"""Classifier-free guidance as a weighted mix of velocities under partly dropped conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, ..., C], t [B]) -> dx/dt
Interval = tuple[float, float]  # times between which guidance is on, both included
ALWAYS: Interval = (0.0, 1.0)


@dataclass(frozen=True)
class GuidanceTerm:
    """One evaluation of the network: its weight, and the names of the conditions that are null in it."""

    weight: float
    drop: frozenset[str] = frozenset()


def nested_guidance(scales: Mapping[str, float]) -> tuple[GuidanceTerm, ...]:
    """Guidance with a scale for each of several conditions, which are added one after another in the order given.

    v() + sum of s_i (v(c_1 .. c_i) - v(c_1 .. c_{i-1})), as InstructPix2Pix has it for a picture and then the text.
    Scale 1 for all is no guidance; terms of weight 0 are left out.
    """
    names, weights = list(scales), [1.0, *scales.values(), 0.0]
    terms = [
        GuidanceTerm(weights[number] - weights[number + 1], frozenset(names[number:]))
        for number in range(len(names) + 1)
    ]
    return tuple(term for term in reversed(terms) if term.weight)


def guided(
    velocity: Callable[..., Tensor], terms: tuple[GuidanceTerm, ...], interval: Interval = ALWAYS
) -> Velocity:
    """Mix `velocity(x, t, drop=...)` over the terms, one evaluation each.

    Outside of `interval` the conditions speak unguided, in one evaluation (arXiv 2404.07724). Raises ValueError where
    weights do not sum to one, or for an interval that is none.
    """
    return _mixed(lambda x, t, drops: [velocity(x, t, drop=drop) for drop in drops], terms, interval)


def guided_together(
    velocity: Callable[..., Tensor], terms: tuple[GuidanceTerm, ...], interval: Interval = ALWAYS
) -> Velocity:
    """As `guided`, with all terms in one evaluation of a batch that is that many times as large.

    `velocity(x, t, drops=...)` is given x [n B, ..., C] and t [n B] with a copy of the batch for each of the n terms,
    and what is dropped in each.
    """

    def answers(x: Tensor, t: Tensor, drops: tuple[frozenset[str], ...]) -> Sequence[Tensor]:
        copies = (len(drops), *[1] * (x.ndim - 1))
        return velocity(x.repeat(copies), t.repeat(len(drops)), drops=drops).chunk(len(drops))

    return _mixed(answers, terms, interval)


def _mixed(
    answers: Callable[..., Sequence[Tensor]], terms: tuple[GuidanceTerm, ...], interval: Interval
) -> Velocity:
    if abs(sum(term.weight for term in terms) - 1) > 1e-6:
        raise ValueError(f"guidance weights must sum to 1, got {[term.weight for term in terms]}")
    check_interval(interval)
    plain = (GuidanceTerm(1.0),)

    def mixed(x: Tensor, t: Tensor) -> Tensor:
        # asking for a time waits for the device: only where the answer matters
        everywhere = interval == ALWAYS or len(terms) == 1
        used = terms if everywhere or bool(_inside(t, interval)) else plain
        each = answers(x, t, tuple(term.drop for term in used))
        total = used[0].weight * each[0]
        for term, answer in zip(used[1:], each[1:], strict=True):
            total = total + term.weight * answer
        return total

    return mixed


def check_interval(interval: Interval) -> None:
    """Raise ValueError for an interval that is not 0 <= low <= high <= 1."""
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"the guidance interval must be 0 <= low <= high <= 1, got {low} and {high}")


def _inside(t: Tensor, interval: Interval) -> Tensor:
    return torch.logical_and(t[0] >= interval[0], t[0] <= interval[1])
