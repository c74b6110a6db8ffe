"""What is done to a block wherever it runs: computed again in the backward pass, or in products of 8 bit.

Methods are replaced, not modules: the names of parameters stay, in checkpoints and everywhere.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from moviegen.parallel.config import Checkpointing
from moviegen.parallel.mesh import LayoutError

# Products of matrices, attention, and of what came over the network that which is no larger than what was sent. What
# was gathered is: the backward pass gathers it again (`plan.communication` counts that).
_NAMES = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_mm",
    "flash_attn::_flash_attn_forward",
    "flash_attn::_flash_attn_varlen_forward",
    "flash_attn_3::_flash_attn_forward",
    "torch_attn::_varlen_attn",
    "xformers_flash::flash_fwd",
    "_c10d_functional::reduce_scatter_tensor",
    "_c10d_functional::all_to_all_single",
)

_MULTIPLE = 16  # of the sizes of 8-bit products on GPUs


def kept(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:  # noqa: ARG001
    """Whether the result of an operation is kept for the backward pass under selective checkpointing."""
    known = operation.name().split(".")[0] in _NAMES
    return CheckpointPolicy.MUST_SAVE if known else CheckpointPolicy.PREFER_RECOMPUTE


def checkpointed(block: nn.Module, kind: Checkpointing) -> None:
    """Let a block keep only its inputs ("full"), or those and the dear results ("selective"), in place."""
    if kind == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # blocks draw no numbers
    if kind == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, kept)
    setattr(block, "forward", functools.partial(checkpoint, block.forward, **options))  # noqa: B010


def check_8_bit(emulated: bool = False) -> None:
    """Raise LayoutError where torchao is not installed or, unless `emulated`, the device has no products of 8 bit."""
    name = "mesh.fp8=emulated" if emulated else "mesh.fp8=true"
    if importlib.util.find_spec("torchao") is None:
        raise LayoutError(
            f"{name} needs torchao, which is not installed (pip install 'moviegen[fp8]'), or set mesh.fp8=false"
        )
    if not emulated and (not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9)):
        raise LayoutError(
            f"{name} needs a GPU with 8-bit products (compute capability 8.9 or above); set mesh.fp8=false, or "
            "mesh.fp8=emulated to see their rounding, slowly"
        )


def check_sizes_in_8_bit(blocks: nn.Module) -> None:
    """Raise LayoutError for a linear layer of a size that GPUs do not take in 8 bit; this machine need have none."""
    for path, part in blocks.named_modules():
        if isinstance(part, nn.Linear) and (part.in_features % _MULTIPLE or part.out_features % _MULTIPLE):
            raise LayoutError(
                f"mesh.fp8: 8-bit products take sizes that are multiples of {_MULTIPLE}, but blocks.{path} is "
                f"{part.in_features} x {part.out_features}; change backbone.config, or set mesh.fp8=false"
            )


def in_8_bit(blocks: nn.Module, emulated: bool = False) -> None:
    """Let the linear layers of the blocks multiply in 8-bit floats, scaled tensor by tensor (torchao), in place.

    Weights, their gradients and all else keep their precision and their names. Where `emulated`, values are rounded to
    8 bit as GPUs would have it, and multiplied in 32.
    """
    check_8_bit(emulated)
    check_sizes_in_8_bit(blocks)
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # the gradient of what reads a text is a product over its tokens, of which there may be any number: they are padded
    convert_to_float8_training(blocks, config=Float8LinearConfig(pad_inner_dim=True, emulate=emulated))


def check_compiler(backend: str) -> None:
    """Raise LayoutError for a backend that torch.compile does not know, or whose own compiler is not here."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise LayoutError(f"mesh.compile={backend!r}: must be one of {', '.join(known)}, or null")
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # inductor's choice
    if backend == "inductor" and not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise LayoutError(
            f"mesh.compile='inductor' needs a C++ compiler, and {compiler} is not on the PATH: install it, set CXX, "
            "or mesh.compile=null"
        )
