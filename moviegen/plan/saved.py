"""What autograd keeps of one block between its forward and its backward pass, read off `backbone.layers` and `.transformer`.

Sizes are channels per token, in activation precision unless said otherwise. Whether a tensor is cut by tensor parallelism
depends on where it stands: between matrices it is cut by heads or by feed-forward channels, outside them by tokens
(sequence parallelism), and what enters a column-cut matrix is whole again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moviegen.plan.layout import Checkpointing, Layout
from moviegen.plan.shapes import Transformer

Cut = Literal["tp", "whole", "keys"]  # over tp; not over tp; over tp, but of all tokens that cp gathers


@dataclass(frozen=True)
class Saved:
    """One tensor of a block's forward pass.

    Args:
        name: what it is, for whoever reads a plan.
        channels: per token.
        cut: over which processes it is cut.
        product: it is what a product or attention gives, so that selective checkpointing keeps it.
        needed: the backward pass asks for it; false of what selective checkpointing alone keeps.
    """

    name: str
    channels: float
    cut: Cut = "tp"
    product: bool = False
    needed: bool = True


def block_tensors(model: Transformer, fused_norms: bool) -> Iterator[Saved]:
    """The tensors of one block, in the order in which they come to be.

    `fused_norms` as on GPUs, where a norm is one kernel and keeps its input alone; elsewhere also the normed input.
    """
    dim, hidden = model.dim, model.ffn_dim
    yield Saved("block input", dim, needed=False)
    yield Saved("input with positions", dim)
    yield from _norm("attention norm", dim, fused_norms)
    yield Saved("modulated", dim, "whole")
    yield Saved("queries", dim, product=True)
    yield Saved("keys", dim * model.kv_share, "keys", product=True)
    yield Saved("values", dim * model.kv_share, "keys", product=True)
    yield Saved("attended", dim, product=True)
    yield Saved("attention output", dim, product=True)
    if model.cross:
        yield Saved("residual", dim)
        yield from _norm("cross norm", dim, fused_norms, last="whole")
        yield Saved("cross queries", dim, product=True)
        yield Saved("cross attended", dim, product=True)
        yield Saved("cross output", dim, product=True, needed=False)
    yield Saved("residual", dim)
    yield from _norm("feed-forward norm", dim, fused_norms)
    yield Saved("modulated", dim, "whole")
    yield Saved("gate", hidden, product=True)
    yield Saved("activated gate", hidden)
    if model.ffn_matrices == 3:
        yield Saved("up", hidden, product=True)
        yield Saved("gated", hidden)
    yield Saved("feed-forward output", dim, product=True)


def _norm(name: str, dim: int, fused: bool, last: Cut = "tp") -> Iterator[Saved]:
    if not fused:
        yield Saved(f"{name}: normed", dim)
    yield Saved(f"{name}: output", dim, last)


def kept(tensor: Saved, checkpointing: Checkpointing) -> bool:
    """Whether a tensor outlives its block's forward pass."""
    if checkpointing == "none":
        return tensor.needed
    return tensor.name == "block input" or (checkpointing == "selective" and tensor.product)


def elements(tensor: Saved, layout: Layout, tokens: int) -> float:
    """Elements that one device holds of a tensor of `tokens` tokens in all, over the samples of one pass."""
    mesh = layout.mesh
    local = layout.micro_batch * tokens / mesh.cp * tensor.channels
    if tensor.cut == "whole":
        return local
    gathered = mesh.cp if tensor.cut == "keys" and layout.context == "all_gather" else 1
    return local * gathered / mesh.tp


def statistics_bytes(model: Transformer, layout: Layout, tokens: int) -> float:
    """Bytes of the float32 sums of both attentions' softmax, one a query and head."""
    per_token = 4 * model.num_heads * (2 if model.cross else 1)
    return layout.micro_batch * tokens / layout.mesh.cp / layout.mesh.tp * per_token


def context_bytes(model: Transformer, layout: Layout, context: int, element: int) -> float:
    """Bytes of the keys and values of the text that one block keeps."""
    return 2 * layout.micro_batch * context * model.dim / layout.mesh.tp * element if model.cross else 0.0
