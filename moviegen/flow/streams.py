"""Multi-diffusion over samples that never end: frames go in and come out, and a few windows are in memory at a time.

Each step of Euler is a stage that slides its windows over the frames which the stage before gives out. The result is
that of `euler` with the velocity of `windows.averaged` along time, frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from moviegen.flow.windows import Axis, Shape, weights

# (x_t [B, T, ..., C] of a window, t [B], its frames) -> dx/dt there
WindowVelocity = Callable[[Tensor, Tensor, slice], Tensor]


def streamed_euler(
    velocity: WindowVelocity,
    noise: Iterable[Tensor],
    times: Tensor,
    length: int,
    window: int,
    hop: int,
    shape: Shape = "triangular",
) -> Iterator[Tensor]:
    """Frames x_1 [B, 1, ..., C], one by one, from those of the noise, along increasing times [N + 1] from 0 to 1.

    Args:
        velocity: called for each window and time, windows of one time in order.
        noise: `length` frames x_0 [B, 1, ..., C].
        window, hop: frames of a window, and from one window to the next.
    """
    frames: Iterable[Tensor] = noise
    for t, t_next in pairwise(times.tolist()):
        frames = _step(velocity, frames, (t, t_next), Axis(1, window, hop).spans(length), shape)
    yield from frames


def _step(
    velocity: WindowVelocity,
    frames: Iterable[Tensor],
    times: tuple[float, float],
    spans: list[slice],
    shape: Shape,
) -> Iterator[Tensor]:
    """One step of Euler for frames that come one by one; a frame goes out when no window reaches it any more."""
    source = iter(frames)
    kept: list[Tensor] = []  # frames from `first` on
    moved: list[tuple[Tensor, float]] = []  # of each, the weighted sum of velocities and of weights
    first = 0
    for number, span in enumerate(spans):
        while first + len(kept) < span.stop:
            kept.append(next(source))
            moved.append((torch.zeros_like(kept[-1]), 0.0))
        x = torch.cat(kept[span.start - first : span.stop - first], dim=1)
        answer = velocity(x, torch.full((len(x),), times[0], device=x.device, dtype=x.dtype), span)
        for place, weight in enumerate(weights(span.stop - span.start, shape).tolist()):
            index = span.start + place - first
            total, count = moved[index]
            moved[index] = total + weight * answer[:, place : place + 1].to(total), count + weight
        done = spans[number + 1].start if number + 1 < len(spans) else span.stop
        while first < done:
            total, count = moved.pop(0)
            yield kept.pop(0) + (times[1] - times[0]) / count * total
            first += 1
