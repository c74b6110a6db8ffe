"""Muon: momentum, made orthogonal, for weight matrices and convolution kernels; AdamW for everything else.

After Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the update's size follows Liu et al. 2025
(arXiv 2502.16982), so that learning rate and weight decay mean what they mean for AdamW. `torch.optim.Muon` takes
two-dimensional weights only and no others beside them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al.
ITERATIONS = 5
UPDATE_RMS = 0.2  # usual root mean square of an AdamW update, Liu et al. 2.2


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Approximately the nearest semi-orthogonal matrices of [N, rows, columns]: all singular values near 1.

    In full precision the iteration runs on the Gram matrix alone, which is the smaller side; in bfloat16 that would
    lose the small singular values, and the matrix itself is iterated.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]).to(dtype)
    x = (_directly(x) if dtype == torch.bfloat16 else _by_gram(x)).to(matrices.dtype)
    return x.mT if tall else x


def _by_gram(x: Tensor) -> Tensor:
    """Every iterate is a polynomial of the first Gram matrix times the first iterate."""
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand_as(gram)
    for _ in range(ITERATIONS):
        step = b * gram + c * gram @ gram
        step.diagonal(dim1=1, dim2=2).add_(a)
        product = step @ product
        gram = step @ gram @ step
    return product @ x


def _directly(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def shared_out(matrices: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on matrices [N, ...] that every process holds: each process does its part and gets all results."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world == 1:
        return work(matrices)
    part = -(-len(matrices) // world)
    own = matrices[dist.get_rank() * part :][:part]
    done = matrices.new_zeros(part, *matrices.shape[1:])
    if len(own):
        done[: len(own)] = work(own)
    parts = [torch.empty_like(done) for _ in range(world)]
    dist.all_gather(parts, done)
    return torch.cat(parts)[: len(matrices)]


class Muon(torch.optim.AdamW):
    """One optimizer for a whole model: tensors that are matrices of some size take the Muon step, others AdamW's.

    A kernel [out, in, ...] counts as the matrix [out, in * ...]. Not for sharded parameters: each matrix must be whole,
    and the same in every process; the processes share the matrices' work.

    Args:
        params: the parameters; no groups.
        lr, betas, weight_decay: as of AdamW; `lr` and `weight_decay` hold for both kinds.
        momentum: of the Muon step (Nesterov).
        min_side: matrices with fewer rows or columns take the AdamW step.
        dtype: bfloat16, float32 or float64, in which the matrices are made orthogonal.
    """

    whole_matrices = True  # a layout that cuts them is refused

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        min_side: int = 16,
        dtype: str = "float32",
    ):
        if dtype not in ("bfloat16", "float32", "float64"):
            raise ValueError(f"dtype must be bfloat16, float32 or float64, got {dtype!r}")
        self.momentum, self.dtype = momentum, getattr(torch, dtype)
        kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in params:
            matrix = parameter.ndim >= 2 and min(parameter.flatten(1).shape) >= min_side
            kinds[matrix].append(parameter)
        groups: list[dict[str, Any]] = [{"params": ps, "muon": kind} for kind, ps in kinds.items() if ps]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both kinds; returns what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """The Muon step of a group, matrices of one size together."""
        sizes: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                rows, columns = parameter.flatten(1).shape
                sizes[rows, columns].append(parameter)
        for size, parameters in sizes.items():
            averages = torch.stack([self._momentum(p).flatten(1) for p in parameters])
            # a step that a task takes itself runs under the trainer's autocast, where float32 would not be meant
            with torch.autocast(averages.device.type, enabled=False):
                updates = shared_out(averages, partial(orthogonalize, dtype=self.dtype))
            scale = group["lr"] * UPDATE_RMS * max(size) ** 0.5
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-scale)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """The Nesterov average of a parameter's gradients, after taking in the newest."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW's loading of a state asks every parameter for one
        average = state["momentum"]
        average.lerp_(parameter.grad, 1 - self.momentum)
        return parameter.grad.lerp(average, self.momentum)
