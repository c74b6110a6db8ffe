"""The commands of the whole path at the smallest size, as the integration tests call them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moviegen import cli
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.storage import verify
from moviegen.data.shards import Shard

SMALL_CODEC = [
    "task.codec.channels=[8,8,8]",
    "task.codec.latent_channels=4",
    "task.image_steps=2",
    "task.image_frames=1",
    "task.crop=null",
]
SMALL_BACKBONE = [
    "task.backbone.config.dim=32",
    "task.backbone.config.num_heads=2",
    "task.backbone.config.num_layers=2",
    "task.backbone.config.ffn_dim=48",
    "task.backbone.config.latent_channels=4",
]
QUICK = [  # no more than a test needs
    "num_threads=1",
    "data.num_workers=0",
    "loggers.wandb=null",
    "callbacks.progress.refresh_rate=0",
    "trainer.log_every_n_steps=1",
]
PROMPTS = ["a big red star moves left", "a small blue circle bounces"]


def moviegen(*words: str) -> None:
    assert cli.main(list(words)) == 0, words


@contextmanager
def note_reads(suffixes: set[str]) -> Iterator[None]:
    """Collect the suffix of every file that this process reads from shards; data workers must be off."""
    read_file = Shard._read_file

    def noted(self: Shard, row: int, key: str, suffix: str, optional: bool) -> bytes:
        suffixes.add(suffix)
        return read_file(self, row, key, suffix, optional)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Shard, "_read_file", noted)
        yield


def start(words: list[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """The console command in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("moviegen")), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
        process_group=0,
    )


def interrupt_after_checkpoint(
    run: Path, process: subprocess.Popen[str], sent: signal.Signals, send: Callable[..., None] = os.killpg
) -> str:
    """Once the run has a checkpoint send a signal to the process group; its standard error when it has ended."""
    deadline = time.monotonic() + 240
    try:
        while not (run / "checkpoints" / "latest").is_file():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        send(process.pid, sent)
        return process.communicate(timeout=400)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it would train on beside whatever runs next


def steps_of(run: Path) -> int:
    """The step of a run's latest checkpoint, every byte of which is checked."""
    latest = Folders(run / "checkpoints").latest()
    assert latest is not None
    return verify(*latest).step


def train_codec(run: Path, shards: Path, steps: int) -> None:
    moviegen(
        "train", "experiments=toy/tae", f"run_dir={run}", f"paths.shards={shards}", f"trainer.max_steps={steps}",
        "schedule=constant", "trainer.val_check_interval=3", "export_dtype=float32", "data=toyworld_clips",
        "data.batch_size=2", *SMALL_CODEC, *QUICK,
    )  # fmt: skip


def generator_words(run: Path, world: dict[str, Path], steps: int, *more: str) -> list[str]:
    """The command line that trains a tiny generator."""
    return [
        "train", "experiments=toy/t2v", f"run_dir={run}", f"paths.latents={world['latents']}",
        f"task.codec.path={world['codec']}", f"trainer.max_steps={steps}", "schedule=constant", "data.batch_size=4",
        "trainer.val_check_interval=3", "export_dtype=float32", "sampler.num_steps=2", f"prompts={json.dumps(PROMPTS)}",
        "trainer.precision=32-true", *SMALL_BACKBONE, *QUICK, *more,
    ]  # fmt: skip


def train_generator(run: Path, world: dict[str, Path], steps: int, *more: str) -> None:
    moviegen(*generator_words(run, world, steps, *more))
