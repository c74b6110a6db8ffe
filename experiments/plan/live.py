"""The most bytes that live tensors took at any time: what operations give is watched until it is freed."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within this mode `peak` grows to the largest sum of bytes of all live storages, and `when` names the phase.

    A storage counts with the size that it has at the moment (FSDP2 frees by resizing to nothing). What a kernel
    allocates inside and frees before it returns is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, weakref.ref[Any]] = {}
        self.peak, self.phase, self.when = 0, "", ""

    def watch(self, *tensors: Tensor | None) -> bool:
        """Count the storages of tensors from now on; whether any is new."""
        before = len(self.storages)
        for tensor in tensors:
            if tensor is None:
                continue
            local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
            storage = local.untyped_storage()
            key = id(storage)
            if key not in self.storages:
                self.storages[key] = weakref.ref(storage, lambda _, key=key: self.storages.pop(key, None))
        return len(self.storages) > before

    def live(self) -> int:
        """Bytes of all storages that are alive now."""
        alive = [reference() for reference in list(self.storages.values())]
        return sum(storage.nbytes() for storage in alive if storage is not None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes back as operations on local tensors
        out = func(*args, **(kwargs or {}))
        new = self.watch(*(leaf for leaf in tree_leaves(out) if type(leaf) in (Tensor, torch.nn.Parameter)))
        if new or "copy" in str(func):  # FSDP2 fills what it has just resized by copies
            live = self.live()
            if live > self.peak:
                self.peak, self.when = live, self.phase
        return out
