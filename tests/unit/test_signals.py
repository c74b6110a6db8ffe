"""Training that a signal breaks off: at which step it ends, and which weights the checkpoint then holds."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from moviegen.callbacks.ema import EMA
from moviegen.callbacks.last import SaveAtEnd


class Descent(torch.optim.Optimizer):
    """Gradient descent that calls `between` after each parameter, when a step is half done."""

    def __init__(self, params: Any, between: Callable[[], None]):
        super().__init__(params, {})
        self.between = between

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        with torch.enable_grad():
            closure()
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(0.1 * parameter.grad)
            self.between()


class Line(L.LightningModule):
    """A line that is fitted to noise; `hooks` are called in a step of the optimizer and of validation."""

    def __init__(self, in_step: Callable[[int], None], in_validation: Callable[[int], None]):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.in_step, self.in_validation = nn.Linear(1, 1), in_step, in_validation
        self.trained: dict[str, Tensor] = {}
        self.ended_by: SystemExit | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.layer(batch) - 3).square().mean()

    def on_train_batch_end(self, *args: Any) -> None:
        self.trained = {name: value.clone() for name, value in self.state_dict().items()}

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.in_validation(self.global_step)

    def configure_optimizers(self) -> Any:
        return Descent(self.parameters(), lambda: self.in_step(self.global_step))


def nothing(step: int) -> None:
    """No signal."""


def press(at: int, *signals: signal.Signals) -> Callable[[int], None]:
    """What sends the signals once, in step `at`."""
    left = list(signals)

    def hook(step: int) -> None:
        while step == at and left:
            signal.raise_signal(left.pop(0))

    return hook


def train(
    path: Path,
    in_step: Callable[[int], None] = nothing,
    in_validation: Callable[[int], None] = nothing,
    steps: int = 8,
) -> Line:
    """Train with validation every third step; SaveAtEnd stands before EMA, the wrong way round."""
    line = Line(in_step, in_validation)
    batches = DataLoader(torch.arange(1.0, 21.0).div(20).view(20, 1), batch_size=1)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=3, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1, default_root_dir=path.parent,
        callbacks=[SaveAtEnd(str(path)), EMA(decay=0.9)],
    )  # fmt: skip
    try:
        trainer.fit(line, batches, batches)
    except SystemExit as error:
        line.ended_by = error
    return line


def saved(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_ctrl_c_during_validation_saves_the_trained_weights_not_their_average(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    line = train(path, in_validation=press(6, signal.SIGINT))
    state = saved(path)
    assert state["global_step"] == 6
    average = next(value for name, value in state["callbacks"].items() if name.startswith("EMA"))["average"]
    for name, value in line.trained.items():
        torch.testing.assert_close(state["state_dict"][name], value, rtol=0, atol=0)
        assert not torch.allclose(average[name], value)


def test_ctrl_c_inside_an_optimizer_step_ends_training_after_that_step(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    train(path, in_step=press(4, signal.SIGINT))
    whole = train(tmp_path / "whole.ckpt", steps=5).state_dict()
    state = saved(path)
    assert state["global_step"] == 5
    for name, value in whole.items():
        torch.testing.assert_close(state["state_dict"][name], value, rtol=0, atol=0)


def test_a_second_ctrl_c_ends_at_once_and_writes_nothing_half_updated(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    line = train(path, in_step=press(4, signal.SIGINT, signal.SIGINT))
    assert line.global_step == 4 and not path.exists()
    assert isinstance(getattr(line.ended_by, "__context__", None), KeyboardInterrupt)


def test_sigterm_saves_at_the_end_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    line = train(path, in_step=press(4, signal.SIGTERM))
    assert isinstance(line.ended_by, SIGTERMException) and saved(path)["global_step"] == 5


@pytest.mark.parametrize("hook", [nothing, press(2, signal.SIGINT)])
def test_ctrl_c_is_as_it_was_after_training(tmp_path: Path, hook: Callable[[int], None]) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(tmp_path / "last.ckpt", in_step=hook)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tmp_path / "last.ckpt", in_step=press(4, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert saved(tmp_path / "last.ckpt")["global_step"] == 8
