"""A training that hangs: it says where, and ends; one that does not hang is left alone."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

from moviegen.callbacks.watchdog import Watchdog


class Sleeper(L.LightningModule):
    """Takes `seconds` for step number 3."""

    def __init__(self, seconds: float):
        super().__init__()
        self.weight, self.seconds = torch.nn.Parameter(torch.zeros(())), seconds

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == 3:
            wait_for_nothing(self.seconds)
        return self.weight * batch.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def wait_for_nothing(seconds: float) -> None:
    time.sleep(seconds)


def train(folder: Path, sleep: float, **settings: Any) -> int:
    """Train in a process of its own; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            sys.stderr = (folder / "output.txt").open("w", buffering=1)
            trainer = L.Trainer(
                accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[Watchdog(str(folder), **settings)],
            )  # fmt: skip
            trainer.fit(Sleeper(sleep), DataLoader(torch.ones(8)))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stacks(folder: Path) -> Path:
    return folder / "stacks-rank-00000.txt"


def test_a_step_that_hangs_leaves_its_stack_and_ends_the_process(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert train(tmp_path, sleep=120, seconds=6.0) == 1
    assert time.monotonic() - begun < 100
    text = stacks(tmp_path).read_text()
    assert text.startswith("Timeout") and "in wait_for_nothing" in text and "in training_step" in text


def test_on_request_it_only_tells_and_training_goes_on(tmp_path: Path) -> None:
    assert train(tmp_path, sleep=2.5, seconds=1.5, end=False) == 0
    assert "in wait_for_nothing" in stacks(tmp_path).read_text()
    assert "a step took longer than 1.5 s: see" in (tmp_path / "output.txt").read_text()


def test_a_training_that_does_not_hang_leaves_no_file(tmp_path: Path) -> None:
    assert train(tmp_path, sleep=0, seconds=60) == 0
    assert not stacks(tmp_path).exists()


def test_a_clock_without_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0, got 0"):
        Watchdog(str(tmp_path), 0)
