"""What conf/mesh/ chooses: the degrees of the layout and how blocks are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moviegen.parallel.mesh import CONTEXT_METHODS, ContextMethod, LayoutError, MeshConfig, divisors

Checkpointing = Literal["none", "selective", "full"]
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "full")
Products8 = bool | Literal["emulated"]


@dataclass(frozen=True)
class ParallelConfig:
    """One layout. Of `dp_replicate` and `dp_shard` one may be None: as many as the devices leave.

    Args:
        dp_replicate, dp_shard, cp, tp: see `MeshConfig`.
        context: how attention reaches the tokens of other processes, where cp is above 1.
        checkpointing: what of a block is computed again in the backward pass: nothing, all but products of matrices
            and attention ("selective"), or all.
        compile: backend of torch.compile for each block ("inductor"), None for none.
        fp8: products of the blocks' matrices in 8 bit (torchao), on GPUs that have them; "emulated": rounded to 8 bit
            and multiplied in 32, anywhere and slowly, to see what the rounding does.
        accumulate_sharded: with gradient accumulation, add up shards after each part of a batch instead of whole
            gradients: less memory, more communication.
        shard_encoders: names of text encoders that are sharded like the model; the others are on every device (the
            paper shards UL2 and copies ByT5 and MetaCLIP).
    """

    dp_replicate: int | None = 1
    dp_shard: int | None = None
    cp: int = 1
    tp: int = 1
    context: ContextMethod = "all_gather"
    checkpointing: Checkpointing = "none"
    compile: str | None = None
    fp8: Products8 = False
    accumulate_sharded: bool = False
    shard_encoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.context not in CONTEXT_METHODS:
            raise LayoutError(f"mesh.context={self.context!r}: must be one of {', '.join(CONTEXT_METHODS)}")
        if self.checkpointing not in CHECKPOINTING:
            raise LayoutError(
                f"mesh.checkpointing={self.checkpointing!r}: must be one of {', '.join(CHECKPOINTING)}"
            )
        if self.dp_replicate is None and self.dp_shard is None:
            raise LayoutError("mesh.dp_replicate and mesh.dp_shard are both null: give one of them a number")
        if self.fp8 not in (False, True, "emulated"):
            raise LayoutError(f"mesh.fp8={self.fp8!r}: must be one of false, true, emulated")
        if self.fp8 and self.tp > 1:
            raise LayoutError(
                f"mesh.fp8={_word(self.fp8)} goes with tp=1 only, got tp={self.tp}: use dp_shard or cp"
            )

    def mesh(self, devices: int) -> MeshConfig:
        """The layout of so many devices, with what was left open filled in; raises LayoutError where none fits."""
        fixed = MeshConfig(self.dp_replicate or 1, self.dp_shard or 1, self.cp, self.tp)
        if self.dp_replicate is not None and self.dp_shard is not None:
            mesh = fixed
        elif devices % fixed.world_size:
            name = "dp_replicate" if self.dp_replicate is None else "dp_shard"
            raise LayoutError(
                f"mesh.{name}=null takes what {devices} devices leave, but {fixed} takes {fixed.world_size}, which "
                f"does not divide {devices}: take a product of {', '.join(map(str, divisors(devices)))}"
            )
        else:
            rest = devices // fixed.world_size
            shard = self.dp_replicate is not None
            mesh = MeshConfig(
                self.dp_replicate or rest, rest if shard else self.dp_shard or 1, self.cp, self.tp
            )
        mesh.check_devices(devices)
        return mesh


def _word(value: Products8) -> str:
    """As a command has it."""
    return str(value).lower()
