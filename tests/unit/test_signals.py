"""Training that a signal breaks off: at which step it ends, and which weights the checkpoint then holds."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from checkpoint_samples import latest_tensors
from torch import Tensor, nn
from torch.utils.data import DataLoader

from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.ema import EMA
from moviegen.callbacks.preemption import Preempted, Preemption


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
    folder: Path,
    in_step: Callable[[int], None] = nothing,
    in_validation: Callable[[int], None] = nothing,
    steps: int = 8,
    requeue: Callable[[], None] | None = None,
    save_every: int = 100,
    more: tuple[L.Callback, ...] = (),
    **settings: Any,
) -> Line:
    """Train with validation every third step; the checkpoint stands before EMA, the wrong way round."""
    line = Line(in_step, in_validation)
    batches = DataLoader(torch.arange(1.0, 21.0).div(20).view(20, 1), batch_size=1)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=3, num_sanity_val_steps=0, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[
            Checkpoints(str(folder), every_n_train_steps=save_every), Preemption(requeue), EMA(decay=0.9), *more
        ], **{"limit_val_batches": 1, **settings},
    )  # fmt: skip
    try:
        trainer.fit(line, batches, batches)
    except SystemExit as error:
        line.ended_by = error
    return line


def test_ctrl_c_during_validation_saves_the_trained_weights_not_their_average(tmp_path: Path) -> None:
    line = train(tmp_path, in_validation=press(6, signal.SIGINT))
    step, tensors = latest_tensors(tmp_path)
    assert step == 6
    for name, value in line.trained.items():
        torch.testing.assert_close(tensors[f"model/{name}"], value, rtol=0, atol=0)
        assert not torch.allclose(tensors[f"callbacks/EMA/average/{name}"], value)


def test_ctrl_c_inside_an_optimizer_step_ends_training_after_that_step(tmp_path: Path) -> None:
    train(tmp_path / "broken", in_step=press(4, signal.SIGINT))
    whole = train(tmp_path / "whole", steps=5).state_dict()
    step, tensors = latest_tensors(tmp_path / "broken")
    assert step == 5
    for name, value in whole.items():
        torch.testing.assert_close(tensors[f"model/{name}"], value, rtol=0, atol=0)


def test_a_second_ctrl_c_ends_at_once_and_writes_nothing_half_updated(tmp_path: Path) -> None:
    line = train(tmp_path, in_step=press(4, signal.SIGINT, signal.SIGINT))
    assert line.global_step == 4 and list(tmp_path.iterdir()) == []
    assert isinstance(getattr(line.ended_by, "__context__", None), KeyboardInterrupt)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_scheduler_s_signal_saves_at_the_end_of_the_step_and_then_queues_again(
    tmp_path: Path, number: signal.Signals
) -> None:
    found: list[int] = []
    line = train(
        tmp_path, in_step=press(4, number, number), requeue=lambda: found.append(latest_tensors(tmp_path)[0])
    )
    assert isinstance(line.ended_by, Preempted) and line.ended_by.exit_code == 128 + number
    assert found == [5] == [latest_tensors(tmp_path)[0]]


def test_ctrl_c_does_not_queue_again(tmp_path: Path) -> None:
    found: list[int] = []
    train(tmp_path, in_step=press(4, signal.SIGINT), requeue=lambda: found.append(1))
    assert found == [] and latest_tensors(tmp_path)[0] == 5


def test_a_signal_while_gradients_are_added_up_waits_for_the_step(tmp_path: Path) -> None:
    pressed = press(2, signal.SIGTERM)

    class Early(Line):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if batch_idx == 6:  # the first of the three batches of step 2
                pressed(2)
            return super().training_step(batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "Line", Early)
        line = train(tmp_path, accumulate_grad_batches=3)
    assert isinstance(line.ended_by, Preempted) and latest_tensors(tmp_path)[0] == 3


@pytest.mark.parametrize("hook", [nothing, press(2, signal.SIGINT)])
def test_handlers_are_as_they_were_after_training(tmp_path: Path, hook: Callable[[int], None]) -> None:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in signals]
    train(tmp_path, in_step=hook)
    assert [signal.getsignal(number) for number in signals] == before


def test_an_ignored_ctrl_c_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tmp_path, in_step=press(4, signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert latest_tensors(tmp_path)[0] == 8


class Ended(L.Callback):
    """Notes the steps whose validation came to its end; `hook` is called there, as a callback that draws samples is."""

    def __init__(self, hook: Callable[[int], None] = nothing):
        self.hook, self.steps = hook, []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.hook(trainer.global_step)
        self.steps.append(trainer.global_step)


def killed(step: int) -> None:
    if step == 7:
        raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("where", "steps"),
    [
        ("in its second batch", [6]),
        ("in a callback at its end", [6]),
        ("in the step before it", [6]),
        ("in the step after it, with a checkpoint from before it", [6]),
        ("after the last step", []),
    ],
)
def test_a_validation_that_no_checkpoint_has_seen_the_end_of_is_run_whole_and_first(
    tmp_path: Path, where: str, steps: list[int]
) -> None:
    begun: list[int] = []

    def in_second_batch(step: int) -> None:
        begun.append(step)
        if where == "in its second batch" and begun[-2:] == [6, 6]:
            signal.raise_signal(signal.SIGTERM)

    at_end = press(6, signal.SIGTERM) if "at its end" in where else nothing
    in_step = press(5, signal.SIGTERM) if "before it" in where.partition(",")[0] else nothing
    try:
        train(
            tmp_path, killed if "checkpoint" in where else in_step, in_second_batch, limit_val_batches=3,
            steps=6 if where == "after the last step" else 8, save_every=3 if "checkpoint" in where else 100,
            more=(Ended(at_end),),
        )  # fmt: skip
    except RuntimeError:
        assert "checkpoint" in where
    assert latest_tensors(tmp_path)[0] == 6
    again, ended = [], Ended()
    line = train(tmp_path, in_validation=again.append, steps=9, limit_val_batches=3, more=(ended,))
    assert ended.steps == [*steps, 9] and again == [step for step in ended.steps for _ in range(3)]
    assert (
        line.trainer.fit_loop.epoch_loop._batches_that_stepped == line.global_step == 9
    )  # what loggers count by
