"""The layout of processes: four named axes, outermost first, and what a model must divide by to fit it.

Copies of the weights lie along `dp_replicate`; each copy is sharded over `dp_shard` x `cp` and cut by `tp`. Samples are
split over `dp_replicate` x `dp_shard`, tokens of a sample over `cp` x `tp`. Torch is imported by `build` alone, so that
a plan for thousands of devices needs none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from math import prod
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

ContextMethod = Literal["all_gather", "ulysses", "ring"]
CONTEXT_METHODS: tuple[ContextMethod, ...] = get_args(ContextMethod)
AXES = ("dp_replicate", "dp_shard", "cp", "tp")


class LayoutError(ValueError):
    """A layout that does not fit the model, the data or the devices; the message says what would."""


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def _shown(numbers: Iterable[int], most: int = 10) -> str:
    numbers = list(numbers)
    text = ", ".join(str(n) for n in numbers[:most])
    return f"{text}, ... {numbers[-1]}" if len(numbers) > most else text


@dataclass(frozen=True)
class MeshConfig:
    """Degrees of the mesh axes, outermost first; `tp` neighbors share a node."""

    dp_replicate: int = 1  # whole copies of the (sharded) weights
    dp_shard: int = 1  # processes with different samples that share one copy (FSDP2)
    cp: int = 1  # context parallelism: processes that share a sample's tokens
    tp: int = 1  # tensor parallelism: processes that share each matrix, and the tokens between matrices

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise LayoutError(f"mesh.{field.name}={value!r}: must be a whole number of at least 1")

    def __str__(self) -> str:
        return " x ".join(f"{axis}={n}" for axis, n in zip(AXES, astuple(self), strict=True))

    @property
    def world_size(self) -> int:
        """Processes, one a device."""
        return prod(astuple(self))

    @property
    def dp(self) -> int:
        """Processes that read different samples."""
        return self.dp_replicate * self.dp_shard

    @property
    def fsdp(self) -> int:
        """Processes that share one copy of what `tp` leaves of a weight."""
        return self.dp_shard * self.cp

    def check_devices(self, devices: int, per_node: int | None = None) -> None:
        """Raise LayoutError unless the layout takes exactly `devices`, and tp stays within nodes of `per_node`."""
        if self.world_size != devices:
            rest = self.cp * self.tp
            fits = f"dp_replicate * dp_shard = {devices // rest}" if devices % rest == 0 else None
            fits = fits or f"a cp * tp that divides {devices} ({_shown(divisors(devices))})"
            raise LayoutError(
                f"the layout {self} takes {self.world_size} processes, there are {devices}: take {fits}"
            )
        if per_node and per_node % self.tp:
            raise LayoutError(
                f"mesh.tp={self.tp} does not divide the {per_node} devices of a node: "
                f"take one of {_shown(divisors(per_node))}"
            )

    def check_model(
        self,
        num_heads: int,
        ffn_dim: int,
        context: ContextMethod = "all_gather",
        num_layers: int | None = None,
    ) -> None:
        """Raise LayoutError unless heads and feed-forward width divide as the layout asks.

        Layers are never split between processes: any `num_layers` of at least 1 fits every layout.
        """
        if context not in CONTEXT_METHODS:
            raise LayoutError(f"mesh.context={context!r}: must be one of {', '.join(CONTEXT_METHODS)}")
        if num_layers is not None and num_layers < 1:
            raise LayoutError(f"a model of {num_layers} layers cannot be laid out; it needs at least 1")
        fitting = [n for n in divisors(num_heads) if ffn_dim % n == 0]
        if self.tp not in fitting:
            raise LayoutError(
                f"mesh.tp={self.tp} does not divide {num_heads} heads and a feed-forward width of {ffn_dim}: "
                f"take one of {_shown(fitting)}"
            )
        heads = num_heads // self.tp
        if context == "ulysses" and heads % self.cp:
            raise LayoutError(
                f"mesh.cp={self.cp} with ulysses does not divide the {heads} heads that tp={self.tp} leaves to a "
                f"process: take one of {_shown(divisors(heads))}, or mesh.context=ring or all_gather"
            )

    def check_tokens(self, num_tokens: int, name: str = "a sample") -> None:
        """Raise LayoutError unless the tokens of a sample divide over cp x tp; `name` says of what they are."""
        if num_tokens % (self.cp * self.tp):
            raise LayoutError(
                f"{name} has {num_tokens} tokens, which cp={self.cp} x tp={self.tp} does not divide: "
                f"take a cp * tp of {_shown(divisors(num_tokens))}, or sizes of other clips"
            )

    def check_batch(self, batch_size: int) -> None:
        """Raise LayoutError unless the samples of a step divide over the data-parallel processes."""
        if batch_size % self.dp:
            raise LayoutError(
                f"a batch of {batch_size} samples does not divide over the {self.dp} data-parallel processes of "
                f"{self}: take a multiple of {self.dp}, or a dp_replicate * dp_shard of "
                f"{_shown(divisors(batch_size))}"
            )

    def build(self, device_type: str, copies: int = 1) -> DeviceMesh:
        """The mesh over all processes of the default group, with `dp` and `fsdp` flattened.

        The group must have world_size x `copies` processes; copies of a layout know nothing of each other.
        """
        from torch.distributed.device_mesh import init_device_mesh

        names, degrees = (AXES, astuple(self)) if copies == 1 else (("copy", *AXES), (copies, *astuple(self)))
        mesh = init_device_mesh(device_type, degrees, mesh_dim_names=names)
        mesh["dp_replicate", "dp_shard"]._flatten("dp")  # processes that read different samples
        mesh["dp_shard", "cp"]._flatten("fsdp")  # processes that share one copy of the weights
        return mesh


def axes(mesh: DeviceMesh, *names: str) -> DeviceMesh:
    """Some axes of a mesh, flattened ones too; torch warns that one day their slices will be got otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Slicing a flattened dim")
        return mesh[names]
