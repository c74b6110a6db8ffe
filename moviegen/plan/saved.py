"""What autograd keeps of one block between its forward and backward pass, read off `backbone.transformer.Block`.

Sizes are channels per token, in activation precision unless said otherwise. Whether a tensor is cut by tensor
parallelism depends on where it stands: between matrices it is cut by heads or by feed-forward channels, outside them by
tokens (sequence parallelism), and what enters a column-cut matrix is whole again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moviegen.parallel.config import Checkpointing
from moviegen.plan.layout import Layout
from moviegen.plan.shapes import Transformer

Cut = Literal["tp", "whole", "keys"]  # over tp; not over tp; over tp, but of all tokens that cp gathers
ALWAYS: tuple[Checkpointing, ...] = ("none", "selective")


@dataclass(frozen=True)
class Saved:
    """One tensor of a block's forward pass.

    Args:
        name: what it is, for whoever reads a plan.
        channels: per token.
        cut: over which processes it is cut.
        kept: under which kinds of checkpointing it outlives the forward pass. "none" keeps what the backward pass asks
            for; "selective" the results of products and attention, what was scattered or exchanged, but nothing that
            was gathered (`parallel.blocks`); "full" the input.
    """

    name: str
    channels: float
    cut: Cut = "tp"
    kept: tuple[Checkpointing, ...] = ("none",)


def block_tensors(model: Transformer, layout: Layout, fused_norms: bool) -> Iterator[Saved]:
    """The tensors of one block, in the order in which they come to be.

    `fused_norms` as on GPUs, where a norm is one kernel and keeps its input alone; elsewhere also the normed input.
    """
    dim, hidden, tp = model.dim, model.ffn_dim, layout.mesh.tp
    yield Saved("block input", dim, kept=("selective", "full"))
    yield Saved("input with positions", dim)
    yield from _norm("attention norm", dim, fused_norms)
    yield Saved("modulated", dim, "whole")
    yield from _attention(model, layout)
    yield from _summed("attention output", dim, tp)
    if model.cross:
        yield Saved("residual", dim)
        yield from _norm("cross norm", dim, fused_norms, last="whole")
        yield Saved("cross queries", dim, kept=ALWAYS)
        yield Saved("cross attended", dim, kept=ALWAYS)
        yield from _summed("cross output", dim, tp, kept=("selective",))
    yield Saved("residual", dim)
    yield from _norm("feed-forward norm", dim, fused_norms)
    yield Saved("modulated", dim, "whole")
    yield Saved("gate", hidden, kept=ALWAYS)
    yield Saved("activated gate", hidden)
    if model.ffn_matrices == 3:
        yield Saved("up", hidden, kept=ALWAYS)
        yield Saved("gated", hidden)
    yield from _summed("feed-forward output", dim, tp)


def _norm(name: str, dim: int, fused: bool, last: Cut = "tp") -> Iterator[Saved]:
    if not fused:
        yield Saved(f"{name}: normed", dim)
    yield Saved(f"{name}: output", dim, last)


def _summed(name: str, dim: int, tp: int, kept: tuple[Checkpointing, ...] = ALWAYS) -> Iterator[Saved]:
    """What a matrix cut by rows gives: of all tokens until it is summed over tp, a part of them afterwards."""
    if tp > 1:
        yield Saved(f"{name}, not yet summed", dim, "whole", kept=("selective",))
    yield Saved(name, dim, kept=kept)


def _attention(model: Transformer, layout: Layout) -> Iterator[Saved]:
    """Queries, keys, values and result of self-attention, as context parallelism (`parallel.context`) has them."""
    dim, keys = model.dim, 2 * model.dim * model.kv_share
    method = layout.context if layout.mesh.cp > 1 else None
    if method == "ulysses":
        yield Saved("queries, keys and values", dim + keys, kept=("selective",))
        yield Saved("exchanged queries, keys and values", dim + keys, kept=ALWAYS)
        yield Saved("attended heads", dim, kept=ALWAYS)
    elif method == "all_gather":
        yield Saved("queries", dim, kept=ALWAYS)
        yield Saved("keys and values", keys, kept=("selective",))
        yield Saved("gathered keys and values", keys, "keys")
    else:
        yield Saved("queries, keys and values", dim + keys, kept=ALWAYS)
    if method == "ring":
        yield Saved("attended, part by part", dim * layout.mesh.cp, kept=("selective",))
    yield Saved("attended", dim, kept=("none",) if method == "ring" else ALWAYS)


def elements(tensor: Saved, layout: Layout, tokens: int) -> float:
    """Elements that one device holds of a tensor of `tokens` tokens in all, over the samples of one pass."""
    mesh = layout.mesh
    local = layout.micro_batch * tokens / mesh.cp * tensor.channels
    if tensor.cut == "whole":
        return local
    gathered = mesh.cp if tensor.cut == "keys" else 1
    return local * gathered / mesh.tp


def statistics_bytes(model: Transformer, layout: Layout, tokens: int) -> float:
    """Bytes of the float32 sums of both attentions' softmax, one a query and head."""
    per_token = 4 * model.num_heads * (2 if model.cross else 1)
    return layout.micro_batch * tokens / layout.mesh.cp / layout.mesh.tp * per_token


def context_bytes(model: Transformer, layout: Layout, context: int, element: int) -> float:
    """Bytes of the keys and values of the text that one block keeps."""
    return 2 * layout.micro_batch * context * model.dim / layout.mesh.tp * element if model.cross else 0.0
