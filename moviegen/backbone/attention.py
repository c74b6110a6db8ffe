"""Softmax attention behind one function. Faster kernels are found at run time, never required.

Legend: B batch, N heads, S queries, L keys, K head size. Padding is either masked or packed away: kernels that take no
mask (flash-attn, varlen) read the keys that count of all samples in one row, with the lengths of the samples beside it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from moviegen.backbone.config import BACKENDS

SDPA = {  # torch's own, with its kernel named
    "sdpa_math": SDPBackend.MATH,
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
}
FLASH = {  # flash-attn by generation: the module that has flash_attn_func and flash_attn_varlen_func
    "flash2": "flash_attn.flash_attn_interface",
    "flash3": "flash_attn_interface",
    "flash4": "flash_attn.cute",
}
PACKED = (*FLASH, "varlen", "xformers", "segments")  # padding is packed away, not masked
ON_CPU = ("auto", "eager", "sdpa", "sdpa_math", "sdpa_flash", "flex", "segments")
HALF = (torch.float16, torch.bfloat16)
HALF_ONLY = (*FLASH, "varlen", "sdpa_cudnn")
EAGER_PAIRS = 4096  # measured at 1,024 only: SDPA forward + backward 44 ms, plain 10 ms (bf16, one core)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


@functools.cache
def missing(backend: str, device: str) -> str | None:
    """Why a backend cannot run on a device type (cpu, cuda); None where it can."""
    if device != "cuda":
        return None if backend in ON_CPU else f"it needs a CUDA device, the tensors are on {device}"
    package = {**FLASH, "xformers": "xformers.ops"}.get(backend)
    if package is not None and not _installed(package):
        return f"the package of {package} is not installed"
    if not torch.cuda.is_available():  # a dry run for GPUs elsewhere
        return None
    generation = torch.cuda.get_device_capability()[0]
    if backend == "flash3" and generation != 9:
        return f"it is for Hopper (compute capability 9), this device has {generation}"
    return None


def choose(backend: str, device: str, dtype: torch.dtype, masked: bool, num_pairs: int) -> str:
    """The kernel for one call over `num_pairs` = S x L query-key pairs a head on a device type (cpu, cuda).

    `auto` takes flash-attn 3 or 2 where one applies (CUDA, 16 bit, no mask), plain matrix products for a few tokens on
    a CPU, else SDPA; flash-attn 4 compiles at run time and is taken by name alone.

    Raises ValueError for an unknown backend, or one that was asked for by name and cannot run: nothing else is taken
    in its place.
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        if device != "cuda":
            return "eager" if num_pairs <= EAGER_PAIRS else "sdpa"
        fast = (
            name
            for name in ("flash3", "flash2")
            if dtype in HALF and not masked and not missing(name, device)
        )
        return next(fast, "sdpa")
    reason = missing(backend, device)
    if reason is None and backend in HALF_ONLY and dtype not in HALF:
        reason = f"it takes float16 and bfloat16, the tensors are {str(dtype).removeprefix('torch.')}"
    if reason is not None:
        raise ValueError(f"attention backend {backend!r} cannot run: {reason}; 'auto' takes what there is")
    return backend


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Softmax attention of q [B, N, S, K] over k, v [B, N, L, K]; mask [B, 1, 1, L] is True where a key counts.

    Every sample needs a key that counts. Raises ValueError as `choose`.
    """
    kernel = choose(backend, q.device.type, q.dtype, mask is not None, q.shape[2] * k.shape[2])
    no_masks = kernel in PACKED or (kernel == "sdpa_flash" and q.is_cuda)
    if mask is not None and no_masks:
        used_BL = mask[:, 0, 0].expand(len(q), -1)
        rows = q.transpose(1, 2).flatten(0, 1)
        keys, values = (x.transpose(1, 2)[used_BL] for x in (k, v))
        out = attend_packed(rows, keys, values, [q.shape[2]] * len(q), used_BL.sum(1).tolist(), kernel)
        return out.unflatten(0, (len(q), -1)).transpose(1, 2)
    if kernel in FLASH or kernel == "xformers":
        return _tokens_first(kernel)(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    if kernel == "varlen":
        rows, keys, values = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
        out = attend_packed(rows, keys, values, [q.shape[2]] * len(q), [k.shape[2]] * len(k), kernel)
        return out.unflatten(0, (len(q), -1)).transpose(1, 2)
    if kernel == "flex":
        return _flex(q, k, v, mask)
    return _by_torch(q, k, v, mask, kernel)


def _by_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kernel: str) -> Tensor:
    if kernel == "eager":
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1).to(v.dtype) @ v
    if kernel in SDPA:
        with sdpa_kernel(SDPA[kernel]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, num_queries: list[int], num_keys: list[int], backend: str = "segments"
) -> Tensor:
    """Attention of samples that follow each other in one row: q [sum S, N, K] over k, v [sum L, N, K], without masks.

    Sample i has num_queries[i] queries and num_keys[i] > 0 keys, and sees no other. `segments` and torch's kernels take
    one call a sample and run everywhere; flash-attn, varlen and xformers take them all in one.

    Raises ValueError as `choose`, or for a backend that knows no packing.
    """
    kernel = choose(backend, q.device.type, q.dtype, False, len(q) * len(k))
    if kernel in FLASH or kernel == "varlen":
        ends = [
            torch.tensor([0, *accumulate(n)], dtype=torch.int32, device=q.device)
            for n in (num_queries, num_keys)
        ]
        return _packed_kernel(kernel)(q, k, v, *ends, max(num_queries), max(num_keys))
    if kernel == "xformers":
        from xformers.ops import memory_efficient_attention
        from xformers.ops.fmha import BlockDiagonalMask

        bias = BlockDiagonalMask.from_seqlens(num_queries, num_keys)
        return memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias)[0]
    if kernel == "flex":
        raise ValueError(f"attention backend {kernel!r} takes no packed samples; use varlen or segments")
    kernel = "sdpa" if kernel == "segments" else kernel
    queries, keys, values = (
        x.transpose(0, 1)[None].split(n, dim=2) for x, n in ((q, num_queries), (k, num_keys), (v, num_keys))
    )
    parts = [_by_torch(*one, None, kernel) for one in zip(queries, keys, values, strict=True)]
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def _tokens_first(kernel: str) -> Callable[..., Tensor]:
    """A function of q [B, S, N, K], k and v [B, L, N, K]."""
    if kernel == "xformers":
        from xformers.ops import memory_efficient_attention

        return memory_efficient_attention
    return functools.partial(_first, importlib.import_module(FLASH[kernel]).flash_attn_func)


def _packed_kernel(kernel: str) -> Callable[..., Tensor]:
    """A function of packed q, k, v, where samples end among queries and keys, and the longest of both."""
    if kernel == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        return functools.partial(_first, varlen_attn)
    varlen = importlib.import_module(FLASH[kernel]).flash_attn_varlen_func
    names = ("q", "k", "v", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
    return lambda *given: _first(varlen, **dict(zip(names, given, strict=True)))


def _first(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
    """The output of a kernel that may also return its normalisers, as some versions do."""
    out = function(*args, **kwargs)
    return out[0] if isinstance(out, tuple) else out


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """FlexAttention: compiled on a GPU; on a CPU torch runs it in plain operations and without gradients."""
    from torch.nn.attention.flex_attention import flex_attention

    if not q.is_cuda and any(x.requires_grad for x in (q, k, v)):
        raise ValueError("attention backend 'flex' has no gradients on a CPU; use 'sdpa'")
    if mask is None:
        return _compiled(flex_attention)(q, k, v) if q.is_cuda else flex_attention(q, k, v)
    used = mask[:, 0, 0].expand(len(q), -1)

    def hidden(score: Tensor, sample: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        return torch.where(used[sample, key], score, float("-inf"))

    return (_compiled(flex_attention) if q.is_cuda else flex_attention)(q, k, v, score_mod=hidden)


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)  # a static one stalls for seconds at each new length
