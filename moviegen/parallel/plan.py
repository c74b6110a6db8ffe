"""How a model is laid out on the mesh, from outside and in place: tp, cp, checkpointing, compile, FSDP2, in that order.

All processes hold the same whole weights when a plan is applied (one seed, or one file); each keeps its part.

Under tensor parallelism the tokens between matrices are cut over `tp` (sequence parallelism): activations are DTensors
there, so that whatever is replicated gets the sum of its gradients over `tp` without anybody asking for it. The loss
counts once on `tp`: `join` cuts its gradient. On `cp` it counts on every process, and FSDP, which averages over
dp x cp, makes up for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleInputOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from moviegen.backbone.transformer import Backbone, Whole
from moviegen.parallel.blocks import checkpointed, in_8_bit
from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.context import context_attention, gather_tokens
from moviegen.parallel.mesh import MeshConfig, axes


class SplitTokens(Whole):
    """Tokens [..., S, D] of this process: a stretch over `cp`, and of that one over `tp`, as a DTensor."""

    def __init__(self, cp: DeviceMesh | None, tp: DeviceMesh | None):
        self.cp, self.tp = cp, tp
        self.degrees = MeshConfig(cp=cp.size() if cp else 1, tp=tp.size() if tp else 1)

    def split(self, tokens: Tensor) -> Tensor:
        self.degrees.check_tokens(tokens.shape[-2])
        if self.cp:
            tokens = tokens.chunk(self.cp.size(), dim=-2)[self.cp.get_local_rank()]
        return self.shared(tokens).redistribute(placements=[Shard(tokens.ndim - 2)]) if self.tp else tokens

    def join(self, tokens: Tensor) -> Tensor:
        if isinstance(tokens, DTensor):
            tokens = tokens.redistribute(placements=[Replicate()]).to_local()
        if self.cp:
            tokens = gather_tokens(tokens, tokens.ndim - 2, self.cp.get_group())
        return tokens.clone()  # FSDP hangs its backward hook on the output, which must be no view of anything

    def shared(self, value: Tensor) -> Any:
        return DTensor.from_local(value, self.tp, [Replicate()], run_check=False) if self.tp else value


def block_styles(block: nn.Module) -> dict[str, ParallelStyle]:
    """Tensor parallelism of a block whose tokens are cut over the same processes.

    Tokens are gathered before matrices that are cut by columns, and cut again as products of those cut by rows are
    summed. Heads lie on different processes: the norms of queries and keys, alike on all, are told that dim 1 is cut,
    or their gradients would not be summed and their weights drift apart without a word.
    """
    cut, whole = Shard(1), Replicate()
    styles: dict[str, ParallelStyle] = {
        "self_attn": PrepareModuleInput(input_layouts=(cut,), desired_input_layouts=(whole,)),
        "cross_attn": PrepareModuleInputOutput(
            input_layouts=(cut, None, None),
            desired_input_layouts=(whole, None, None),
            output_layouts=cut,
            desired_output_layouts=cut,
            use_local_output=False,
        ),
        "ffn": PrepareModuleInput(input_layouts=(cut,), desired_input_layouts=(whole,)),
        "self_attn.wo": RowwiseParallel(output_layouts=cut, use_local_output=False),
        "cross_attn.wo": RowwiseParallel(
            output_layouts=cut
        ),  # a plain tensor: the mask of samples is one, too
        "ffn.w2": RowwiseParallel(output_layouts=cut, use_local_output=False),
    }
    columns = [f"{attn}.{w}" for attn in ("self_attn", "cross_attn") for w in ("wq", "wk", "wv")]
    columns += [f"ffn.{w}" for w in ("w1", "w3") if hasattr(block.ffn, w)]
    norms = [f"{attn}.{n}" for attn in ("self_attn", "cross_attn") for n in ("q_norm", "k_norm")]
    norms = [name for name in norms if not isinstance(block.get_submodule(name), nn.Identity)]
    styles |= {name: ColwiseParallel() for name in columns}
    return styles | {name: SequenceParallel(sequence_dim=1, use_local_output=True) for name in norms}


def replicate(module: nn.Module, mesh: DeviceMesh) -> None:
    """Make DTensors of the parameters that are none yet, alike on all processes of the mesh, without communication."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if not isinstance(parameter, DTensor):
                value = DTensor.from_local(parameter.detach(), mesh, [Replicate()], run_check=False)
                part.register_parameter(name, nn.Parameter(value, requires_grad=parameter.requires_grad))


def tensor_parallel(model: Backbone, mesh: DeviceMesh) -> None:
    """Cut the matrices of all blocks over a mesh of one axis, in place; what sees cut tokens is replicated."""
    for block in model.blocks:
        parallelize_module(block, mesh, block_styles(block), src_data_rank=None)
        replicate(block, mesh)
    for end in (model.out_norm, model.out):
        replicate(end, mesh)


@dataclass(frozen=True)
class Plan:
    """What lays the parts of a task out on a mesh.

    Args:
        mesh: with the axes of `MeshConfig`; None for a lone process, where blocks are still checkpointed and compiled.
        config: the layout.
        dtype: of weights in products and on their way between processes, None for their own. FSDP sums gradients in 32
            bits.
    """

    mesh: DeviceMesh | None
    config: ParallelConfig
    dtype: torch.dtype | None = None

    def _axis(self, name: str) -> DeviceMesh | None:
        """An axis of more than one process."""
        return self.mesh[name] if self.mesh is not None and self.mesh[name].size() > 1 else None

    def backbone(self, model: Backbone) -> None:
        """Lay a flow transformer out: each block is a unit of its own."""
        cp, tp = self._axis("cp"), self._axis("tp")
        if self.config.fp8:
            in_8_bit(model.blocks, emulated=self.config.fp8 == "emulated")
        if tp is not None:
            tensor_parallel(model, tp)
        if cp is not None or tp is not None:
            model.tokens = SplitTokens(cp, tp)
        for block in model.blocks:
            if cp is not None:
                part = block.get_submodule("self_attn")
                whole = part.get_submodule("attention")
                part.attention = context_attention(self.config.context, whole, cp.get_group())
            checkpointed(block, self.config.checkpointing)
            if self.config.compile:
                # the method, not the module, whose parameters would get other names
                setattr(block, "forward", torch.compile(block.forward, backend=self.config.compile))  # noqa: B010
        self.shard(model, model.blocks)

    def shard(
        self, module: nn.Module, units: Iterable[nn.Module] = (), methods: Iterable[str] = ("forward",)
    ) -> None:
        """FSDP2: gather weights for each of `units` and for the rest of a module only while they are at work.

        `methods` are those by which the module is called. Between calls all weights are shards, so that averages may
        be swapped in.
        """
        if self.mesh is None or not any(True for _ in module.parameters()):
            return
        copied = self.mesh["dp_replicate"].size() > 1
        mesh = axes(self.mesh, "dp_replicate", "fsdp") if copied else axes(self.mesh, "fsdp")
        policy = MixedPrecisionPolicy(
            param_dtype=self.dtype,
            reduce_dtype=torch.float32 if self.dtype else None,
            cast_forward_inputs=False,  # times must stay exact; autocast casts what enters a product
        )
        # FSDP refuses scalars: frozen ones stay whole (open-clip has one that no feature depends on)
        scalars = {p for p in module.parameters() if not p.requires_grad and p.ndim == 0}
        for unit in (*units, module):
            fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=scalars)
        for name in methods:
            if name != "forward":
                register_fsdp_forward_method(module, name)

    def layers(self, model: nn.Module) -> None:
        """Shard a network layer by layer, where it has a list of layers: a frozen encoder that is too large to copy."""
        lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
        inner = {id(part) for one in lists for layer in one for part in layer.modules() if part is not layer}
        self.shard(model, [layer for one in lists for layer in one if id(layer) not in inner])
