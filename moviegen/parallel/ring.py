"""Ring attention: keys and values go round the processes, while each attends to what it has (arXiv 2310.01889).

A process keeps its queries, adds up softmax parts by their log-sum-exp, and never holds the keys of all tokens. The
kernels are torch's flash attention, which gives that log-sum-exp: on a CPU for any precision, on CUDA for 16 bit. The
CUDA kernels were never run by us.

Legend: B batch, N heads, s tokens of one process, K head size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

aten = torch.ops.aten


class Part(NamedTuple):
    """Attention of queries to some of the keys: output, log-sum-exp [B, N, s], and what the kernel wants back."""

    out: Tensor
    lse: Tensor
    rest: tuple[Any, ...]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Part:
    if q.is_cuda:
        out, lse, *rest = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False)
        return Part(out, lse, tuple(rest[:6]))
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False)
    return Part(out, lse, ())


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, whole: Part
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from the keys k alone, where `whole` is the attention to all keys."""
    saved = (grad, q, k, v, whole.out, whole.lse)
    if q.is_cuda:
        begins_q, begins_k, most_q, most_k, seed, offset = whole.rest
        return aten._scaled_dot_product_flash_attention_backward(
            *saved, begins_q, begins_k, most_q, most_k, 0.0, False, seed, offset
        )
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(*saved, 0.0, False)


def _merged(one: Part, two: Part) -> Part:
    """Attention to the keys of both parts; sums are kept in at least 32 bits."""
    lse = torch.logaddexp(one.lse, two.lse)
    wide = torch.promote_types(one.out.dtype, torch.float32)
    weights = [(part.lse - lse).exp()[..., None].to(wide) for part in (one, two)]
    out = one.out.to(wide) * weights[0] + two.out.to(wide) * weights[1]
    return Part(out, lse, one.rest)


class _Passing:
    """A tensor on its way to the next process, and the one that comes from the process before."""

    def __init__(self, tensor: Tensor, group: dist.ProcessGroup):
        rank, world = dist.get_rank(group), dist.get_world_size(group)
        self.sent, self.received = (
            tensor,
            torch.empty_like(tensor),
        )  # what is sent must live until it has arrived
        after, before = (dist.get_global_rank(group, (rank + step) % world) for step in (1, -1))
        self.works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, tensor, after, group),
                dist.P2POp(dist.irecv, self.received, before, group),
            ]
        )

    def arrived(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.received


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, group: dist.ProcessGroup) -> Tensor:
        kv, world = torch.stack([k, v]), dist.get_world_size(group)
        whole: Part | None = None
        for turn in range(world):
            passing = _Passing(kv, group) if turn < world - 1 else None
            part = _attend(q, *kv.unbind(0))
            whole = part if whole is None else _merged(whole, part)
            kv = passing.arrived() if passing else kv
        assert whole is not None
        out = whole.out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, whole.lse)
        ctx.rest, ctx.group = whole.rest, group
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        group, whole, grad = ctx.group, Part(out, lse, ctx.rest), grads[0].contiguous()
        wide = torch.promote_types(q.dtype, torch.float32)
        kv, world = torch.stack([k, v]), dist.get_world_size(group)
        grad_q, grad_kv = torch.zeros_like(q, dtype=wide), torch.zeros_like(kv, dtype=wide)
        for turn in range(world):
            passing = _Passing(kv, group) if turn < world - 1 else None
            part_q, *part_kv = _attend_backward(grad, q, *kv.unbind(0), whole)
            grad_q += part_q
            grad_kv += torch.stack(part_kv)
            kv = passing.arrived() if passing else kv
            grad_kv = _Passing(grad_kv, group).arrived()  # goes with its keys; the last turn brings it home
        grad_k, grad_v = grad_kv.unbind(0)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None


@torch.compiler.disable  # sends and receives are no part of a compiled block
def _around(q: Tensor, k: Tensor, v: Tensor, group: dist.ProcessGroup) -> Any:
    return _Ring.apply(q, k, v, group)


class RingAttention(nn.Module):
    """Attention of tokens that lie on the processes of a group, in the order of its ranks."""

    def __init__(self, group: dist.ProcessGroup):
        super().__init__()
        self.group = group

    def forward(self, q_BNsK: Tensor, k_BNsK: Tensor, v_BNsK: Tensor) -> Tensor:
        if q_BNsK.is_cuda and q_BNsK.dtype not in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"mesh.context=ring takes 16-bit tensors on a GPU, these are {q_BNsK.dtype}: use "
                "trainer.precision=bf16-mixed, or mesh.context=ulysses"
            )
        q, k, v = q_BNsK.contiguous(), k_BNsK.contiguous(), v_BNsK.contiguous()
        return _around(q, k, v, self.group)  # pyright: ignore[reportCallIssue] (of the decorator)
