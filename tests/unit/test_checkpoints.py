"""Checkpoints on the disk: what is written comes back bit by bit, what is damaged or hostile never does."""

import copy
import json
import math
import os
import pickle
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_samples import latest_tensors, load, save
from safetensors.torch import load_file
from torch import Tensor, nn

from moviegen import checkpoint
from moviegen.callbacks import states
from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import DIGEST, NAME, CheckpointError, digest_line, read_manifest
from moviegen.callbacks.storage import Writer, verify
from moviegen.config import UserError
from moviegen.tasks.muon import Muon

KINDS = {
    "float": torch.randn(3, 5),
    "half": torch.randn(4).bfloat16(),
    "transposed": torch.randn(3, 4).T,
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False]),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "counts": torch.tensor([2**60, -1]),
}


def test_every_kind_of_tensor_comes_back_bit_by_bit(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, KINDS, {"note": "of the run"})
    found = load(folder)
    for name, value in KINDS.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    manifest = read_manifest(folder)
    assert (manifest.step, manifest.num_ranks, manifest.state) == (3, 1, {"note": "of the run"})


def test_the_files_are_safetensors_and_json_and_sha256sum_reads_the_digest(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, KINDS)
    assert sorted(path.name for path in folder.iterdir()) == [NAME, DIGEST, "rank-00000.safetensors"]
    found = load_file(folder / "rank-00000.safetensors")
    assert all(torch.equal(found[name], value) for name, value in KINDS.items())
    subprocess.run(["sha256sum", "-c", "--quiet", DIGEST], cwd=folder, check=True)


def test_a_type_that_no_file_holds_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="complex64 cannot be written"):
        save(tmp_path, 1, {"x": torch.zeros(2, dtype=torch.complex64)})
    assert Folders(tmp_path).latest() is None


class Payload:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch unpickled",))


def test_a_pickle_in_the_folder_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "checkpoints", 1, KINDS)
    for name in (".metadata", "meta.pt", "__0_0.distcp"):  # of DCP's own storage, and Lightning's
        (folder / name).write_bytes(pickle.dumps(Payload()))
    load(folder)
    (folder / "rank-00000.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        load(folder)
    assert not (tmp_path / "unpickled").exists()


def forged(folder: Path, change: Any) -> None:
    """A manifest that somebody has rewritten, with the digest that belongs to it."""
    node = json.loads((folder / NAME).read_text())
    change(node)
    text = json.dumps(node).encode()
    (folder / NAME).write_bytes(text)
    (folder / DIGEST).write_bytes(digest_line(text))


def chunk_of(node: dict, name: str = "float") -> dict:
    return node["tensors"][name]["chunks"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: chunk_of(node).update(file="../secret"), "not in the folder"),
        (lambda node: chunk_of(node).update(file="/etc/hostname"), "not in the folder"),
        (lambda node: chunk_of(node).update(offsets=[1, 0]), "does not lie within"),
        (lambda node: chunk_of(node).update(num_bytes=4), "does not lie within"),
        (lambda node: chunk_of(node).update(start=-8), "where a count is wanted"),
        (
            lambda node: node["tensors"]["float"].update(chunks=[]),
            "the parts of float have 0 of its 15 values",
        ),
        (lambda node: node["tensors"]["float"].update(dtype="object"), "unknown type 'object'"),
        (lambda node: node.update(format=9), "is of format 9, this version reads 1"),
        (lambda node: node.update(tensors=[]), "not what this version writes"),
        (lambda node: node.pop("state"), "not what this version writes"),
        (lambda node: chunk_of(node).update(sha256="0" * 64), "the digest of float is wrong"),
    ],
)
def test_a_manifest_that_lies_is_refused_in_one_line(tmp_path: Path, change: Any, message: str) -> None:
    folder = save(tmp_path, 1, KINDS)
    forged(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        verify(folder)
    assert len(str(caught.value).splitlines()) == 1 and str(folder) in str(caught.value)


def test_latest_pins_its_manifest(tmp_path: Path) -> None:
    folder = save(tmp_path, 1, KINDS)
    forged(folder, lambda node: node.update(step=2))
    named = Folders(tmp_path).latest()
    assert named is not None
    with pytest.raises(CheckpointError, match="its digest is not the one that was written"):
        verify(*named)


def test_the_newest_stay_and_what_is_hidden_goes(tmp_path: Path) -> None:
    (tmp_path / ".step-000000007.part").mkdir()
    (tmp_path / "mine").mkdir()
    for step in (1, 2, 3, 4):
        save(tmp_path, step, {"x": torch.tensor([step])}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest", "mine", "step-000000003", "step-000000004",
    ]  # fmt: skip
    assert latest_tensors(tmp_path)[1]["x"].tolist() == [4]


def test_a_run_that_went_back_keeps_what_came_later_until_it_is_there_again(tmp_path: Path) -> None:
    for step in (4, 8, 6):
        save(tmp_path, step, {"x": torch.tensor([step])}, keep=2)
    folders = Folders(tmp_path)
    assert latest_tensors(tmp_path)[0] == 6
    assert [path.name[-1] for path in folders.whole()] == ["8", "6", "4"]
    save(tmp_path, 8, {"x": torch.tensor([80])}, keep=2)
    assert latest_tensors(tmp_path)[1]["x"].tolist() == [80]
    assert [path.name[-1] for path in folders.whole()] == ["8", "6"]


@pytest.mark.parametrize("text", ["", "{", '{"folder": "../step-000000001", "manifest_sha256": "0"}', "[]"])
def test_where_latest_is_unreadable_the_newest_is_tried(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1, {"x": torch.zeros(1)})
    newest = save(tmp_path, 2, {"x": torch.ones(1)})
    (tmp_path / "latest").write_text(text)
    assert Folders(tmp_path).candidates()[0] == (newest, None)


def test_states_come_back_as_they_were() -> None:
    state = {
        "plain": [1, 2.5, None, True, "text"],
        "infinite": [math.inf, -math.inf],
        "pair": (0.9, (0.95,)),
        7: {"numbered": torch.arange(3)},
        "__odd__": np.float64(0.1),
    }
    tensors: dict[str, Tensor] = {}
    node = json.loads(json.dumps(states.encode(state, "part", tensors), allow_nan=False))
    found = states.decode(node, tensors)
    assert torch.equal(found[7].pop("numbered"), torch.arange(3))
    state[7] = {}
    assert found == state and isinstance(found["pair"][1], tuple)
    with pytest.raises(CheckpointError, match=r"part/of/0 is a object, which a checkpoint cannot hold"):
        states.encode({"of": [object()]}, "part", {})


def test_random_numbers_go_on_where_they_were() -> None:
    random.gauss(0, 1), np.random.randn()
    state = {name: value.clone() for name, value in states.rng_state().items()}
    first = [torch.rand(3).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()]
    states.set_rng_state(state)
    assert first == [torch.rand(3).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1), random.random()]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, Muon])
def test_an_optimizer_goes_on_as_if_it_had_not_stopped(kind: Any) -> None:
    def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            inputs = torch.randn(4, 20, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 1))
    optimizer = kind(model.parameters(), lr=0.01)
    trained(model, optimizer, range(3))
    names = {id(p): name for name, p in states.named_parameters(model).items()}
    tensors: dict[str, Tensor] = {}
    node = states.encode(states.optimizer_state(optimizer, names), "optimizers/0", tensors)
    other = copy.deepcopy(model)
    fresh = kind(other.parameters(), lr=0.01)
    kept = {name: value.clone() for name, value in tensors.items()}
    states.set_optimizer_state(fresh, states.decode(node, kept), states.named_parameters(other))
    trained(model, optimizer, range(3, 5))
    trained(other, fresh, range(3, 5))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_optimizer_that_goes_on_has_the_settings_of_its_run_and_says_which_changed(caplog) -> None:
    model = nn.Linear(2, 2)
    parameters = states.named_parameters(model)
    first = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    kept = states.optimizer_state(first, {id(p): name for name, p in parameters.items()})
    fresh = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    states.set_optimizer_state(fresh, kept, parameters)
    assert (fresh.param_groups[0]["lr"], fresh.param_groups[0]["weight_decay"]) == (0.02, 0.1)
    assert [r.getMessage() for r in caplog.records if r.name == states.__name__] == [
        "optimizer.lr was 0.01 and is now 0.02, from this step on"
    ]


def test_names_are_those_without_compilation() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    model["a"] = torch.compile(model["a"])  # type: ignore[assignment]
    assert list(states.named_parameters(model)) == ["a.weight", "a.bias"]


@pytest.mark.parametrize("settings", [{"every_n_train_steps": 0}, {"keep": 0}])
def test_settings_that_keep_nothing_are_refused(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        Checkpoints(str(tmp_path), **settings)


class SlowestDisk:
    """In place of the storage: what is saved in the background is on the disk when it is waited for, not before."""

    def __init__(self, step: int):
        self.step = step  # of the newest checkpoint

    def save(self, tensors: dict, writer: Writer, group: None) -> None:
        self.step = writer.step

    def save_in_background(self, tensors: dict, writer: Writer, group: None) -> Any:
        return SimpleNamespace(done=lambda: False, result=lambda: setattr(self, "step", writer.step))


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 7])
def test_a_crash_loses_an_interval_at_most_however_long_a_save_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, background: bool
) -> None:
    monkeypatch.setattr(states, "collect", lambda *_: ({}, {}))
    for first in range(every):  # where the run goes on from
        disk, keeper = SlowestDisk(first), Checkpoints(str(tmp_path), every, background=background)
        for name in ("save", "save_in_background"):
            monkeypatch.setattr(f"moviegen.callbacks.checkpoint.{name}", getattr(disk, name))
        trainer: Any = SimpleNamespace(global_step=first)
        lost, beside = [], 0
        for step in range(first + 1, first + 5 * every):
            beside += keeper._pending is not None
            keeper.on_train_batch_start(trainer)
            trainer.global_step = step
            lost.append(step - disk.step)  # by a crash before this step's end is dealt with
            keeper.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
        assert max(lost) == every
        assert (beside > 0) == (background and every > 1)  # else nothing was trained while one was written


def task_of(size: int) -> Any:
    return nn.Linear(size, size, bias=False)


def test_a_disk_without_room_is_refused_with_what_would_fit(tmp_path: Path, monkeypatch) -> None:
    one = checkpoint.checkpoint_bytes(task_of(1000))
    assert one == 16_000_000  # weights, averages and two values of the optimizer
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3 * one))
    checkpoint.check_room(tmp_path, task_of(1000), keep=2)
    refused = r"has 48 MB free; a checkpoint takes 16 MB, and 5 are there at a time: .*keep=2 fits"
    with pytest.raises(UserError, match=refused):
        checkpoint.check_room(tmp_path / "deeper" / "run", task_of(1000), keep=4)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=one))
    with pytest.raises(UserError, match="not even one fits; make room, or give another run_dir"):
        checkpoint.check_room(tmp_path, task_of(1000), keep=1)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write to .*file \(Not a directory\): give a run_dir"):
        checkpoint.check_room(tmp_path / "file" / "run", task_of(2), keep=1)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    pid = os.fork()
    if pid == 0:  # as root everything can be written
        code = 1
        try:
            tmp_path.chmod(0o755)
            for above in tmp_path.parents:
                if above.owner() == tmp_path.owner() and len(above.parts) > 2:
                    above.chmod(above.stat().st_mode | 0o055)
            if os.getuid() == 0:
                os.setuid(65534)
            checkpoint.check_room(tmp_path / "closed" / "run", task_of(2), keep=1)
        except UserError as error:
            code = 0 if "cannot write to" in str(error) and "give a run_dir in a folder" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
