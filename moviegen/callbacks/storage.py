"""Storage for torch's distributed checkpoint (DCP): one safetensors file a rank, a json manifest, no pickle.

DCP decides which rank writes and reads which part of which tensor, for any two layouts; its own storage keeps that
plan in a pickle and checks no digest. Here the digest of every part is checked when it is read.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import async_save as dcp_async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from moviegen.callbacks.folders import Folders, write_file
from moviegen.callbacks.manifest import DTYPES, CheckpointError, Chunk, Entry, Manifest, read_manifest

# said at each save of a single process, which is no mistake
warnings.filterwarnings("ignore", message="torch.distributed is disabled")
Tensors = Mapping[str, Tensor]


def save(tensors: Tensors, writer: Writer, group: dist.ProcessGroup | None = None) -> None:
    """Write a checkpoint, all ranks of a CPU group together; raises what the writing raised on one, on all."""
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    try:
        dcp_save(
            dict(tensors), storage_writer=writer, planner=planner, process_group=group, no_dist=group is None
        )
    except CheckpointException as error:
        raise cause(error) from None


def save_in_background(
    tensors: Tensors, writer: Writer, group: dist.ProcessGroup | None = None
) -> concurrent.futures.Future[Any]:
    """Copy the tensors to host memory, and write them in a thread; its future has what `save` raises, unopened."""
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    future = dcp_async_save(
        dict(tensors), storage_writer=writer, planner=planner, process_group=group, no_dist=group is None
    )
    assert isinstance(future, concurrent.futures.Future)
    return future


def load(tensors: Tensors, folder: Path, manifest: Manifest, group: dist.ProcessGroup | None = None) -> None:
    """Read a checkpoint's tensors of these names into them, whatever their sharding.

    Raises CheckpointError where a part is damaged or missing, on all ranks of the group.
    """
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    reader = Reader(folder, manifest)
    try:
        dcp_load(
            dict(tensors), storage_reader=reader, planner=planner, process_group=group, no_dist=group is None
        )
    except CheckpointException as error:
        raise cause(error) from None


class Writer(StorageWriter):
    """Writes one checkpoint into a hidden folder; the coordinator then publishes it (`Folders.publish`).

    Args:
        state: plain values that go into the manifest; only those of the coordinator count.
    """

    def __init__(self, folders: Folders, step: int, state: dict[str, Any]):
        self.folders, self.step, self.state = folders, step, state
        self.rank = dist.get_rank() if dist.is_initialized() else 0

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self.folders.begin(self.step)
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        items = sorted(plan.items, key=lambda item: -_dtype(item).itemsize)  # every value stays aligned
        path = self.folders.hidden(self.step) / f"rank-{self.rank:05d}.safetensors"
        digests: list[str] = []
        header, starts = _header(items)
        if items:
            write_file(path, _blocks(header, items, planner, digests))
        written = []
        for item, start, digest in zip(items, starts, digests, strict=True):
            size = _num_bytes(item)
            written.append(WriteResult(item.index, size, (path.name, start, size, digest)))
        done: Future[list[WriteResult]] = Future()
        done.set_result(written)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        places = {one.index: one.storage_data for part in results for one in part}
        tensors = {}
        for name, tensor in metadata.state_dict_metadata.items():
            assert isinstance(tensor, TensorStorageMetadata)
            chunks = tuple(
                Chunk(tuple(c.offsets), tuple(c.sizes), *places[MetadataIndex(name, c.offsets)])
                for c in _without_empty(tensor.chunks)
            )
            tensors[name] = Entry(_name(tensor.properties.dtype), tuple(tensor.size), chunks)
        self.folders.publish(Manifest(self.step, len(results), tensors, self.state))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        return False  # it is made for one folder


class Reader(StorageReader):
    """Reads a checkpoint; a part whose digest is not the manifest's raises CheckpointError, on all ranks."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002
        return Metadata({name: _storage_metadata(entry) for name, entry in self.manifest.tensors.items()})

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[MetadataIndex, list[Any]] = {}
        for item in plan.items:
            wanted.setdefault(item.storage_index, []).append(item)
        for index, items in wanted.items():
            entry = self.manifest.tensors[index.fqn]
            chunk = next(c for c in entry.chunks if torch.Size(c.offsets) == index.offset)
            values = read_chunk(self.folder, index.fqn, entry, chunk)
            for item in items:
                target = planner.resolve_tensor(item).detach()
                target.copy_(_within(values, item.storage_offsets, item.lengths))
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:  # noqa: ARG003
        return False


def read_chunk(folder: Path, name: str, entry: Entry, chunk: Chunk) -> Tensor:
    """A part of a tensor, once its digest is found right; raises CheckpointError."""
    path = folder / chunk.file
    try:
        with path.open("rb") as file:
            file.seek(chunk.start)
            data = bytearray(file.read(chunk.num_bytes))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {name} is lost") from error
    if len(data) != chunk.num_bytes:
        raise CheckpointError(f"{path} is cut short: {name} is lost")
    if hashlib.sha256(data).hexdigest() != chunk.sha256:
        raise CheckpointError(f"{path} is damaged: the digest of {name} is wrong")
    if not data:
        return torch.empty(chunk.sizes, dtype=entry.torch_dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(entry.torch_dtype).reshape(chunk.sizes)


def verify(folder: Path, sha256: str | None = None) -> Manifest:
    """Read the whole of a checkpoint and compare every digest; raises CheckpointError for the first that is wrong."""
    manifest = read_manifest(folder, sha256)
    for name, entry in manifest.tensors.items():
        for chunk in entry.chunks:
            read_chunk(folder, name, entry, chunk)
    return manifest


def cause(error: CheckpointException) -> Exception:
    """What went wrong on the first of the ranks that DCP names."""
    first = min(error.failures)
    found = error.failures[first][0]
    return (
        found
        if isinstance(found, Exception)
        else RuntimeError(f"rank {first}: {type(found).__name__}: {found}")
    )


def _name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise CheckpointError(f"tensors of {dtype} cannot be written to a checkpoint")
    return name


def _dtype(item: WriteItem) -> torch.dtype:
    if item.tensor_data is None:
        raise CheckpointError(f"{item.index.fqn} is no tensor: plain values belong into the manifest")
    return item.tensor_data.properties.dtype


def _num_bytes(item: WriteItem) -> int:
    """Of this part; DCP's own `tensor_storage_size` is that of the whole tensor."""
    assert item.tensor_data is not None and item.tensor_data.chunk is not None
    return item.tensor_data.chunk.sizes.numel() * _dtype(item).itemsize


def _header(items: Sequence[WriteItem]) -> tuple[bytes, list[int]]:
    """A safetensors header for parts in this order, and where in the file each starts."""
    described, first, starts = {}, 0, []
    for item in items:
        assert item.tensor_data is not None and item.tensor_data.chunk is not None
        offsets, sizes = item.tensor_data.chunk.offsets, list(item.tensor_data.chunk.sizes)
        whole = sizes == list(item.tensor_data.size)
        name = item.index.fqn + ("" if whole else str(list(offsets)))
        end = first + _num_bytes(item)
        described[name] = {"dtype": DTYPES[_name(_dtype(item))], "shape": sizes, "data_offsets": [first, end]}
        starts.append(first)
        first = end
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, [len(header) + start for start in starts]


def _blocks(
    header: bytes, items: Sequence[WriteItem], planner: SavePlanner, digests: list[str]
) -> Iterable[memoryview]:
    """The file's content, one part in memory at a time; the digest of each part is added to `digests`."""
    yield memoryview(header)
    for item in items:
        value = planner.resolve_data(item)
        assert isinstance(value, Tensor)
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        digests.append(hashlib.sha256(data).hexdigest())
        if data.nbytes:
            yield data


def _without_empty(chunks: Sequence[ChunkStorageMetadata]) -> list[ChunkStorageMetadata]:
    """The chunks with values in them: on more ranks than rows some hold nothing."""
    return [chunk for chunk in chunks if 0 not in chunk.sizes]


def _storage_metadata(entry: Entry) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in entry.chunks]
    return TensorStorageMetadata(TensorProperties(dtype=entry.torch_dtype), torch.Size(entry.shape), chunks)


def _within(values: Tensor, offsets: Sequence[int], lengths: Sequence[int]) -> Tensor:
    for dim, (first, length) in enumerate(zip(offsets, lengths, strict=True)):
        values = values.narrow(dim, first, length)
    return values
