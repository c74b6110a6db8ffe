"""Checkpoints of sharded weights (FSDP2 on gloo): each rank writes its part, any layout reads them, bit by bit."""

from __future__ import annotations

import faulthandler
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.ema import EMA
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import CheckpointError, read_manifest
from moviegen.tasks.sharded import whole

WORLD = 2


class Net(nn.Module):
    """Layers that two ranks do not share evenly; the last bias is of one rank alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.first(inputs).tanh())

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["stage"] = "one"

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        assert checkpoint == {"stage": "one"}


class Bench:
    """A model with all that training has, and a stand-in for the trainer that gives what callbacks ask for."""

    def __init__(self, folder: Path, place: Callable[[Net], None] = lambda model: None):
        self.model, self.ema = Net(), EMA(0.9)
        place(self.model)
        self.keeper = Checkpoints(str(folder), keep=3)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        loop = SimpleNamespace(
            state_dict=lambda: {"steps": self.trainer.global_step}, load_state_dict=self._loop
        )
        self.trainer: Any = SimpleNamespace(
            global_step=0, fit_loop=loop, optimizers=[optimizer], lr_scheduler_configs=[], datamodule=None,
            precision_plugin=SimpleNamespace(state_dict=dict), callbacks=[self.ema, self.keeper],
            is_global_zero=not dist.is_initialized() or dist.get_rank() == 0,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )  # fmt: skip
        self.ema.on_fit_start(self.trainer, self.model)  # type: ignore[arg-type]
        self.keeper.on_fit_start(self.trainer, self.model)  # type: ignore[arg-type]

    def _loop(self, state: dict) -> None:
        self.trainer.global_step = state["steps"]

    def train(self, steps: int) -> None:
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for _ in range(steps):
            step = self.trainer.global_step
            inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
            self.trainer.optimizers[0].zero_grad()
            self.model(inputs[rank::world]).square().mean().backward()
            self.trainer.optimizers[0].step()
            self.trainer.global_step += 1
            self.ema.on_train_batch_end(self.trainer, self.model)  # type: ignore[arg-type]

    def save(self, background: bool = False) -> None:
        self.keeper.save(self.trainer, self.model, background)  # type: ignore[arg-type]

    def everything(self) -> dict[str, Tensor]:
        """Weights, averages and optimizer state, whole."""
        found = {f"model/{name}": whole(p.detach()) for name, p in self.model.named_parameters()}
        found |= {f"ema/{name}": whole(value) for name, value in self.ema.average.items()}
        for name, p in self.model.named_parameters():
            for key, value in self.trainer.optimizers[0].state[p].items():
                found[f"{key}/{name}"] = whole(value)
        return {name: value.clone() for name, value in found.items()}


def sharded(model: Net) -> None:
    mesh = init_device_mesh("cpu", (WORLD,))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)


def by_columns(model: Net) -> None:
    """Another layout of the same tensors: matrices are cut along their inputs, vectors are whole everywhere."""
    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in (model.first, model.last):
        cut = distribute_tensor(layer.weight.detach(), mesh, [Shard(1)])
        layer.weight = nn.Parameter(cut)


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


def hybrid(model: Net) -> None:
    """Two copies of two shards."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    fully_shard(model.first, mesh=mesh)
    fully_shard(model, mesh=mesh)


def by_rows_and_columns(model: Net) -> None:
    """Every matrix cut both ways, as sharded data and tensor parallelism leave it together."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    cut = distribute_tensor(model.first.weight.detach(), mesh, [Shard(0), Shard(1)])
    model.first.weight = nn.Parameter(cut)


def on_ranks(work: Callable[[Path], None], folder: Path, world: int = WORLD) -> None:
    """Run `work(folder)` on forked ranks."""
    torch.multiprocessing.start_processes(_as_rank, (work, folder, world), nprocs=world, start_method="fork")


def _as_rank(rank: int, work: Callable[[Path], None], folder: Path, world: int) -> None:
    faulthandler.dump_traceback_later(240, exit=True, file=sys.__stderr__)  # a rank that hangs says where
    join = folder / f"join-{work.__name__}"
    dist.init_process_group("gloo", init_method=f"file://{join}", rank=rank, world_size=world)
    try:
        work(folder)
        dist.barrier()
    except BaseException:
        traceback.print_exc()
        raise
    dist.destroy_process_group()


def two_save(folder: Path) -> None:
    bench = Bench(folder / "runs", sharded)
    bench.train(2)
    bench.save()
    before = bench.everything()
    assert isinstance(bench.ema.average["first.weight"], DTensor)
    bench.train(1)
    again = Bench(folder / "runs", sharded)
    assert again.trainer.global_step == 2 and again.keeper.resumed == folder / "runs" / "step-000000002"
    same(again.everything(), before)
    again.train(1)
    same(again.everything(), bench.everything())
    columns = Bench(folder / "runs", by_columns)
    same(columns.everything(), before)
    after = bench.everything()  # both ranks together
    if dist.get_rank() == 0:
        torch.save(before, folder / "before.pt")
        torch.save(after, folder / "after.pt")


def test_two_ranks_save_and_go_on_bit_by_bit_and_any_layout_reads_it(tmp_path: Path) -> None:
    on_ranks(two_save, tmp_path)
    root = tmp_path / "runs"
    manifest = read_manifest(root / "step-000000002")
    assert manifest.num_ranks == WORLD and len(list((root / "step-000000002").glob("rank-*"))) == WORLD
    chunks = manifest.tensors["model/first.weight"].chunks
    assert sorted(chunk.sizes for chunk in chunks) == [(3, 5), (4, 5)]
    assert len(manifest.tensors["optimizers/0/state/first.weight/exp_avg"].chunks) == 2
    one = Bench(root)  # a single process, no shards
    same(one.everything(), torch.load(tmp_path / "before.pt", weights_only=True))
    one.train(1)
    for name, value in torch.load(tmp_path / "after.pt", weights_only=True).items():
        torch.testing.assert_close(one.everything()[name], value)


def four_save(folder: Path) -> None:
    bench = Bench(folder / "runs", hybrid)
    bench.train(2)
    bench.save()
    before = bench.everything()
    same(Bench(folder / "runs", hybrid).everything(), before)
    cut = Bench(folder / "runs", by_rows_and_columns)
    same(cut.everything(), before)
    cut.trainer.global_step = 3
    cut.save()
    same(Bench(folder / "runs", hybrid).everything(), before)
    if dist.get_rank() == 0:
        torch.save(before, folder / "before.pt")


def test_copies_are_written_once_and_tensors_cut_both_ways_come_back(tmp_path: Path) -> None:
    on_ranks(four_save, tmp_path, world=4)
    root = tmp_path / "runs"
    parts = [
        [
            chunk.sizes
            for chunk in read_manifest(root / f"step-{step:09d}").tensors["model/first.weight"].chunks
        ]
        for step in (2, 3)
    ]
    assert sorted(parts[0]) == [(3, 5), (4, 5)] and sorted(parts[1]) == [(3, 2), (3, 3), (4, 2), (4, 3)]
    same(Bench(root).everything(), torch.load(tmp_path / "before.pt", weights_only=True))


def one_was_saved(folder: Path) -> None:
    bench = Bench(folder / "runs", sharded)
    expected = torch.load(folder / "one.pt", weights_only=True)
    same(bench.everything(), expected)
    assert isinstance(bench.trainer.optimizers[0].state[bench.model.first.weight]["exp_avg"], DTensor)


def test_a_checkpoint_of_one_process_is_read_by_two_ranks(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "runs")
    bench.train(3)
    bench.save()
    torch.save(bench.everything(), tmp_path / "one.pt")
    on_ranks(one_was_saved, tmp_path)


def background(folder: Path) -> None:
    bench = Bench(folder / "runs", sharded)
    bench.train(1)
    bench.save(background=True)
    before = bench.everything()
    bench.train(3)  # in place, while it is written
    assert bench.keeper._pending is not None
    assert bench.keeper._finished()
    assert bench.keeper.saved_step == 1
    same(Bench(folder / "runs", sharded).everything(), before)


def test_a_save_in_the_background_is_of_its_moment(tmp_path: Path) -> None:
    on_ranks(background, tmp_path)
    bench = Bench(tmp_path / "alone")
    bench.train(1)
    bench.save(background=True)
    before = bench.everything()
    bench.train(3)
    assert bench.keeper._finished()
    same(Bench(tmp_path / "alone").everything(), before)


def damaged(folder: Path) -> None:
    """A part that only the second rank reads is damaged: both ranks refuse it, and go back to the one before."""
    for _ in range(2):
        bench = Bench(folder / "runs", sharded)
        bench.train(2)
        bench.save()
    if dist.get_rank() == 0:
        file = folder / "runs" / "step-000000004" / "rank-00001.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    dist.barrier()
    again = Bench(folder / "runs", sharded)
    assert again.trainer.global_step == 2
    if dist.get_rank() == 0:
        (folder / "runs" / "step-000000002" / "manifest.json").unlink()
    dist.barrier()
    with pytest.raises(CheckpointError):
        Bench(folder / "runs", sharded)


def test_damage_that_one_rank_finds_turns_all_of_them_back(tmp_path: Path) -> None:
    on_ranks(damaged, tmp_path)


def full(folder: Path) -> None:
    """The second rank's disk is full: both hear of it, and `latest` stays."""
    bench = Bench(folder / "runs", sharded)
    bench.train(1)
    bench.save()
    bench.train(1)
    if dist.get_rank() == 1:
        (folder / "runs" / ".step-000000002.part" / "rank-00001.safetensors").mkdir(parents=True)
    dist.barrier()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="rank-00001"):
        patch.setattr(Folders, "begin", lambda self, step: None)
        bench.save()
    dist.barrier()
    assert Bench(folder / "runs", sharded).trainer.global_step == 1


def test_a_rank_that_cannot_write_stops_all_and_latest_stays(tmp_path: Path) -> None:
    on_ranks(full, tmp_path)


def test_a_checkpoint_of_another_model_is_refused_by_the_callback(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.train(1)
    bench.save()

    def wider(model: Net) -> None:
        model.last = nn.Linear(7, 2)

    with pytest.raises(
        CheckpointError, match=r"of another model: last.weight is \(1, 7\) there, \(2, 7\) here"
    ):
        Bench(tmp_path, wider)
