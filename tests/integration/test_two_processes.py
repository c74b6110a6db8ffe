"""Data-parallel training on a CPU: two processes take the steps that one takes."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from toy_run import generator_words, interrupt_after_checkpoint, start, steps_of, train_generator

ADAMW = ("optimizer=adamw", "optimizer.lr=1.2e-3")
TWO = ("trainer.devices=2", "trainer.strategy=ddp")


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> dict[str, torch.Tensor]:
    """Weights after four steps of AdamW in one process, started as plain Python."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    words = generator_words(folder, world, 4, *ADAMW)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "moviegen.train", *words], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("optimizer", "bound"),
    [(ADAMW, 1e-5), (("optimizer=muon_bf16",), 0.3)],
    ids=["adamw", "muon in bfloat16"],
)
def test_two_processes_take_the_steps_of_one(
    world, tmp_path, plain, optimizer: tuple[str, ...], bound: float
) -> None:
    """`bound` is of what a matrix that starts from zero becomes: Muon brings small singular values, and so what
    rounding changed of a gradient, near those of the large ones. In 64 bits it is exact (tests/parity).
    """

    one = plain
    if optimizer != ADAMW:
        train_generator(tmp_path / "one", world, 4, *optimizer)
        one = load_file(tmp_path / "one" / "model.safetensors")
    process = start(generator_words(tmp_path / "two", world, 4, *optimizer, *TWO))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    two = load_file(tmp_path / "two" / "model.safetensors")
    assert one.keys() == two.keys()
    moved = one["backbone.modulation.1.weight"]
    assert float((two["backbone.modulation.1.weight"] - moved).norm() / moved.norm()) < bound
    if optimizer == ADAMW:
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)


def test_torchrun_and_plain_python_start_the_same_training(world, tmp_path, plain) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    words = generator_words(tmp_path / "torchrun", world, 4, *ADAMW)[1:]
    done = subprocess.run([*torchrun, "moviegen.train", *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    two = load_file(tmp_path / "torchrun" / "model.safetensors")
    assert plain.keys() == two.keys()
    for name in plain:
        torch.testing.assert_close(two[name], plain[name], rtol=1e-4, atol=1e-5)
    config = json.loads((tmp_path / "torchrun" / "run.json").read_text())["config"]
    assert config["trainer"]["devices"] == 2 and config["trainer"]["num_nodes"] == config["nodes"] == 1


def test_ctrl_c_stops_two_processes_after_the_same_step_and_both_go_on(world, tmp_path) -> None:
    run = tmp_path / "run"
    process = start(generator_words(run, world, 100_000, "callbacks.checkpoint.every_n_train_steps=5", *TWO))
    errors = interrupt_after_checkpoint(run, process, signal.SIGINT)
    assert process.returncode == 130 and "Traceback" not in errors
    reached = steps_of(run)
    process = start(generator_words(run, world, reached + 2, *TWO))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert steps_of(run) == reached + 2
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
