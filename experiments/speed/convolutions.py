"""The ceiling of convolutional nets: the best FLOP/s over a fixed list of convolutions, contestants' own among them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

SECONDS = 0.1  # of each convolution in one reading


@dataclass(frozen=True)
class Convolution:
    """One convolution by its sizes; 2D or 3D by the length of the kernel."""

    x: tuple[int, ...]  # [B, C_in, (T,) H, W]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    @property
    def flops(self) -> int:
        sizes = zip(self.x[2:], self.weight[2:], self.stride, self.padding, strict=True)
        sites = prod((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        return 2 * self.x[0] * sites * prod(self.weight)


REFERENCE = Convolution((1, 256, 64, 64), (256, 256, 3, 3), (1, 1), (1, 1), 1)


class Recorder(TorchDispatchMode):
    """Counts every convolution that runs under it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Convolution] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, _, stride, padding, _, transposed, _, groups = args
            if not transposed and min(x.shape) > 0:
                dims = weight.ndim - 2
                both = (tuple(v) * dims if len(v) == 1 else tuple(v) for v in (stride, padding))
                self.seen[Convolution(tuple(x.shape), tuple(weight.shape), *both, groups)] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def counted(run: Callable[[], Any]) -> tuple[float, list[Convolution]]:
    """FLOPs of a call, and its convolutions, those with the most work first."""
    with FlopCounterMode(display=False) as flops:
        run()
    with Recorder() as recorder:
        run()
    by_work = sorted(recorder.seen, key=lambda c: -recorder.seen[c] * c.flops)
    return float(flops.get_total_flops()), by_work


class Ceiling:
    """Best FLOP/s over a list of convolutions in channels-last memory; each call is one reading."""

    def __init__(self, convolutions: list[Convolution], dtype: torch.dtype, device: str = "cpu"):
        self.cases = [
            (c, *self._tensors(c, dtype, device)) for c in dict.fromkeys([REFERENCE, *convolutions])
        ]
        self.best: Convolution | None = None

    @staticmethod
    def _tensors(case: Convolution, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
        layout = torch.channels_last if len(case.x) == 4 else torch.channels_last_3d
        x, weight = (torch.randn(size, dtype=dtype, device=device) for size in (case.x, case.weight))
        return x.to(memory_format=layout), weight.to(memory_format=layout)

    @torch.no_grad()
    def __call__(self) -> float:
        found = {case: self._rate(case, x, weight) for case, x, weight in self.cases}
        self.best = max(found, key=lambda case: found[case])
        return found[self.best]

    @staticmethod
    def _rate(case: Convolution, x: Tensor, weight: Tensor) -> float:
        conv = torch.nn.functional.conv2d if len(case.x) == 4 else torch.nn.functional.conv3d

        def wait() -> None:
            if x.is_cuda:
                torch.cuda.synchronize()

        def run() -> None:
            conv(x, weight, stride=case.stride, padding=case.padding, groups=case.groups)

        run()
        wait()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            run()
            wait()
            count += 1
        return count * case.flops / (time.perf_counter() - start)
