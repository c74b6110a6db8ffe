"""Training that is broken off: by Ctrl-C, and by a disk that is full. What was learned stays, and the run goes on."""

import resource
import signal
import time
from pathlib import Path

import torch
from toy_run import generator_words, start, train_generator

SMALL_FILES = 64 * 1024  # bytes; a checkpoint of the tiny generator is larger, its logs are not


def steps_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def test_ctrl_c_keeps_what_was_learned_and_the_run_goes_on(world, tmp_path) -> None:
    run = tmp_path / "run"
    process = start(generator_words(run, world, 100_000, "callbacks.checkpoint.every_n_train_steps=5"))
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # it would train on beside whatever runs next
    assert process.returncode == 130 and "Traceback" not in errors
    assert not (run / "model.safetensors").exists()
    reached = steps_of(run)
    assert reached >= 5
    train_generator(run, world, reached + 2)
    assert steps_of(run) == reached + 2 and (run / "model.safetensors").is_file()


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stays(world, tmp_path) -> None:
    run = tmp_path / "run"
    train_generator(run, world, 2)
    checkpoint = run / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    assert len(before) > SMALL_FILES

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))

    process = start(generator_words(run, world, 4), full)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in errors
    assert (
        "File too large" in errors.splitlines()[-1]
        and "last.ckpt is as it was before" in errors.splitlines()[-1]
    )
    assert checkpoint.read_bytes() == before and list(checkpoint.parent.iterdir()) == [checkpoint]
    train_generator(run, world, 4)
    assert steps_of(run) == 4
