"""`moviegen train mesh=...`: two processes that share matrices and tokens end with the model of one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_run import PROMPTS, generator_words, start, train_generator

from moviegen import cli
from moviegen.callbacks.folders import Folders

COMMON = (
    "optimizer=adamw",
    "optimizer.lr=1.2e-3",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=4",
)


@pytest.fixture(scope="module")
def one(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process has trained."""
    folder = tmp_path_factory.mktemp("mesh") / "one"
    train_generator(folder, world, 2, *COMMON)
    return folder


def on_two(run: Path, world: dict[str, Path], *more: str) -> dict[str, torch.Tensor]:
    """The model that two processes train by the command."""
    process = start(generator_words(run, world, 2, *COMMON, "trainer.devices=2", *more))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return load_file(run / "model.safetensors")


def test_a_layout_trains_samples_and_exports_the_model_of_one_process(world, tmp_path, one: Path) -> None:
    (tmp_path / "one").symlink_to(one)
    two = on_two(tmp_path / "two", world, "mesh=tensor")
    alone = load_file(one / "model.safetensors")
    assert alone.keys() == two.keys()
    for name in alone:
        torch.testing.assert_close(two[name], alone[name], rtol=1e-4, atol=1e-5)
    latest = Folders(tmp_path / "two" / "checkpoints").latest()
    assert latest is not None and latest[0].name == "step-000000002"
    assert len(list(latest[0].glob("rank-*.safetensors"))) == 2
    clips = [sorted((tmp_path / name / "samples").rglob("*.mp4")) for name in ("one", "two")]
    assert len(clips[0]) == len(clips[1]) > 0
    lines = (tmp_path / "two" / "held_out.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "one" / "held_out.jsonl").read_text().splitlines())
    assert json.loads(lines[-1])["numbers"]


def test_8_bit_products_train_on_shards_and_leave_a_model_that_needs_none(world, tmp_path, one: Path) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed (pip install 'moviegen[fp8]')")
    words = ("mesh=node", "mesh.fp8=emulated", "mesh.checkpointing=selective", "trainer.precision=bf16-mixed")
    eight, alone = on_two(tmp_path / "eight", world, *words), load_file(one / "model.safetensors")
    assert eight.keys() == alone.keys()
    for name in alone:
        assert eight[name].dtype == alone[name].dtype
        # each has made two steps of at most 1.2e-3
        torch.testing.assert_close(eight[name], alone[name], rtol=0, atol=6e-3)
    assert any(not torch.equal(eight[name], alone[name]) for name in alone)
    # weights are gathered in half precision, by validation too
    assert len(list((tmp_path / "eight" / "samples").rglob("*.mp4"))) == len(PROMPTS)
    assert json.loads((tmp_path / "eight" / "held_out.jsonl").read_text())["numbers"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("mesh=tensor", "trainer.devices=3"), "which does not divide 3: take a product of 1, 3"),
        (("mesh=tensor", "mesh.tp=4", "trainer.devices=4"), "mesh.tp=4 does not divide 2 heads"),
        (("mesh=context", "mesh.cp=4", "trainer.devices=4"), "mesh.cp=4 with ulysses does not divide the 2 heads"),
        (("mesh=node", "trainer.devices=3"), "a batch of 4 samples does not divide over the 3 data-parallel"),
        (("mesh=node", "trainer.devices=2", "optimizer=muon"), "optimizer Muon needs whole matrices"),
        (("mesh=node", "trainer=gpu", "trainer.devices=8"), "this machine has no GPU"),
        (("mesh=node", "mesh.shard_encoders=[ul2]"), "mesh.shard_encoders names 'ul2'"),
        (("mesh=single", "mesh.fp8=true"), "mesh.fp8=true needs "),
        (("mesh=single", "mesh.fp8=maybe"), "fp8"),
        (("mesh=single", "mesh.fp8=emulated", "task.backbone.config.ffn_dim=40"), "mesh.fp8"),
        (("mesh=single", "mesh.compile=inducter"), "mesh.compile='inducter': must be one of "),
    ],
)  # fmt: skip
def test_a_layout_that_does_not_fit_is_refused_before_anything_is_written(
    world, tmp_path, capsys, monkeypatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert cli.main(generator_words(tmp_path / "run", world, 4, "optimizer=adamw", *more)) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
