"""Commands that are broken off, by a signal or a full disk: what is finished stays, and the run goes on."""

import os
import resource
import signal
from pathlib import Path

import pytest
from toy_run import generator_words, interrupt_after_checkpoint, start, steps_of, train_generator

from moviegen import cli, encode
from moviegen.data.shards import ShardFolder

SMALL_FILES = 64 * 1024  # bytes; a checkpoint of the tiny generator is larger, its logs are not


def full(size: int = SMALL_FILES) -> None:
    """A disk that takes files of up to `size` bytes only, for the process that this runs in."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_a_signal_keeps_what_was_learned_and_the_run_goes_on(world, tmp_path, sent, code) -> None:
    run = tmp_path / "run"
    words = (
        "callbacks.checkpoint.every_n_train_steps=10",
        "data.num_workers=1",
    )  # it reaches the worker as well
    process = start(generator_words(run, world, 100_000, *words))
    errors = interrupt_after_checkpoint(run, process, sent)
    assert process.returncode == code and "Traceback" not in errors
    assert not (run / "model.safetensors").exists()
    reached = steps_of(run)
    assert reached >= 5
    train_generator(run, world, reached + 2)
    assert steps_of(run) == reached + 2 and (run / "model.safetensors").is_file()


@pytest.mark.parametrize("whom", ["all", "first"])
def test_sigterm_ends_two_ranks_together_with_a_checkpoint(world, tmp_path, whom) -> None:
    run = tmp_path / "run"
    two = ("trainer.devices=2", "trainer.strategy=ddp", "callbacks.checkpoint.every_n_train_steps=10")
    two += ("data.num_workers=1",)
    process = start(generator_words(run, world, 100_000, *two))
    errors = interrupt_after_checkpoint(run, process, signal.SIGTERM, os.killpg if whom == "all" else os.kill)
    assert process.returncode == 143 and "Traceback" not in errors
    reached = steps_of(run)
    assert reached >= 5
    train_generator(run, world, reached + 2)
    assert steps_of(run) == reached + 2


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_stays(world, tmp_path) -> None:
    run = tmp_path / "run"
    train_generator(run, world, 2)
    before = contents(run / "checkpoints")
    assert max(map(len, before.values())) > SMALL_FILES

    process = start(generator_words(run, world, 4), full)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 2 and "Traceback" not in errors
    assert (
        "File too large" in errors.splitlines()[-1]
        and "step-000000002 is as it was before" in errors.splitlines()[-1]
    )
    after = contents(run / "checkpoints")
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".step-000000004.part/") for name in after.keys() - before.keys())
    train_generator(run, world, 4)
    assert steps_of(run) == 4


def test_a_full_disk_at_the_export_is_one_line_and_the_same_command_exports_later(world, tmp_path) -> None:
    run = tmp_path / "run"
    train_generator(run, world, 2)
    weights, kept = run / "model.safetensors", steps_of(run)
    before = {path: path.read_bytes() for path in (weights, run / "model.json")}
    process = start(generator_words(run, world, 2), full)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: cannot write {weights}") and "give the same command again" in line
    assert {path: path.read_bytes() for path in before} == before
    assert not list(run.glob(".*")) and steps_of(run) == kept
    weights.unlink()
    train_generator(run, world, 2)
    assert weights.read_bytes() == before[weights]


def encode_words(world: dict[str, Path], out: Path) -> list[str]:
    given = [f"run_dir={out}", f"shards={world['shards']}", f"model={world['codec']}"]
    return ["encode", *given, "num_threads=1", "batch_size=2"]


def test_ctrl_c_in_encode_keeps_finished_tars_and_the_same_command_goes_on(
    world, tmp_path, monkeypatch, capsys
) -> None:
    out, batches = tmp_path / "latents", []
    real = encode.text_features

    def interrupted(*values):
        batches.append(values)
        if len(batches) == 8:  # the first tar has six batches
            signal.raise_signal(signal.SIGINT)
        return real(*values)

    monkeypatch.setattr(encode, "text_features", interrupted)
    assert cli.main(encode_words(world, out)) == 130
    assert "what is finished is kept" in capsys.readouterr().err
    (first,) = out.glob("*.tar")
    assert {path.name for path in out.iterdir()} == {"UNFINISHED", first.name, f"{first.name}.json"}
    kept = first.stat().st_mtime_ns
    assert cli.main(encode_words(world, out)) == 0
    assert first.stat().st_mtime_ns == kept and len(batches) == 10
    counts = [[len(shard) for shard in ShardFolder(str(folder)).shards] for folder in (out, world["latents"])]
    assert counts == [[12, 4], [12, 4]]


def test_a_full_disk_in_encode_is_one_line_and_leaves_no_half_tar(world, tmp_path) -> None:
    out = tmp_path / "latents"
    process = start(encode_words(world, out), lambda: full(16 * 1024))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: {out}/") and "cannot be written: File too large" in line
    assert [path.name for path in out.iterdir()] == ["UNFINISHED"]
    assert cli.main(encode_words(world, out)) == 0


def test_a_full_disk_in_reconstruct_is_one_line_and_leaves_no_hidden_file(world, tmp_path) -> None:
    out = tmp_path / "pairs"
    words = ["reconstruct", f"run_dir={out}", f"codec={world['codec']}", f"shards={world['shards']}"]
    process = start([*words, "max_clips=1", "num_threads=1"], lambda: full(8 * 1024))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 2 and "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"error: cannot write {out}") and "File too large" in line
    assert list(out.iterdir()) == []
