"""Context parallelism: attention over tokens that lie on several processes, behind the interface of `Attention`.

Each process has the queries, keys and values of its own tokens, in the order of ranks. `all_gather` collects keys and
values (the paper's way); `ulysses` exchanges tokens for heads (arXiv 2309.14509); `ring`, in a file of its own, passes
keys and values round. Collectives are torch's functional ones: those of torch.distributed.nn gave right values
and wrong gradients with gloo.

Legend: B batch, N heads, S all tokens, s those of one process, K head size.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import _functional_collectives as collectives

from moviegen.parallel.mesh import ContextMethod

# the second is what the first was called before torch 2.15
_all_gather = (
    getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd
)


def gather_tokens(local: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """All processes' parts along `dim`; gradients are summed over processes and cut back."""
    return _all_gather(local.contiguous(), dim, group)


def exchange(local: Tensor, split: int, join: int, group: dist.ProcessGroup) -> Tensor:
    """Cut `split` into as many parts as processes, send each its part, and put what comes together along `join`."""
    world = dist.get_world_size(group)
    parts = torch.stack(local.chunk(world, dim=split))
    rows = parts.flatten(0, 1).contiguous()
    received = collectives.all_to_all_single_autograd(rows, None, None, group)
    return torch.cat(received.unflatten(0, (world, -1)).unbind(0), dim=join)


class GatheredAttention(nn.Module):
    """Queries stay, keys and values of all tokens are gathered; their gradients are reduced and scattered."""

    def __init__(self, attention: nn.Module, group: dist.ProcessGroup):
        super().__init__()
        self.attention, self.group = attention, group

    def forward(self, q_BNsK: Tensor, k_BNsK: Tensor, v_BNsK: Tensor) -> Tensor:
        k_BNSK, v_BNSK = gather_tokens(torch.stack([k_BNsK, v_BNsK]), 3, self.group).unbind(0)
        return self.attention(q_BNsK, k_BNSK, v_BNSK)


class UlyssesAttention(nn.Module):
    """Each process attends for some of the heads over all tokens; the number of heads divides by that of processes."""

    def __init__(self, attention: nn.Module, group: dist.ProcessGroup):
        super().__init__()
        self.attention, self.group = attention, group

    def forward(self, q_BNsK: Tensor, k_BNsK: Tensor, v_BNsK: Tensor) -> Tensor:
        qkv = torch.stack([q_BNsK, k_BNsK, v_BNsK], dim=1)  # [B, 3, N, s, K]: one exchange for the three
        q_BnSK, k_BnSK, v_BnSK = exchange(qkv, 2, 3, self.group).unbind(1)
        return exchange(self.attention(q_BnSK, k_BnSK, v_BnSK), 2, 1, self.group)


def context_attention(method: ContextMethod, attention: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    """`attention` of whole sequences, made one of sequences that lie on the processes of a group."""
    if method == "all_gather":
        return GatheredAttention(attention, group)
    if method == "ulysses":
        return UlyssesAttention(attention, group)
    from moviegen.parallel.ring import RingAttention

    return RingAttention(group)
