"""Learning rates: warm-up, constant, cosine, and a drop when the held-out loss stops falling."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from lightning import Callback, Trainer
from torch.optim.lr_scheduler import LambdaLR

from moviegen.callbacks.checkpoint import Checkpoints
from moviegen.callbacks.manifest import Manifest
from moviegen.callbacks.preemption import Preempted, Preemption
from moviegen.callbacks.states import set_schedule_state
from moviegen.checkpoint import Saved, _check_schedule
from moviegen.config import UserError, build, compose
from moviegen.tasks.base import NotFiniteError, Task
from moviegen.tasks.schedule import Constant, DropOnPlateau, WarmupCosine


@pytest.mark.parametrize("schedule", [Constant(4), WarmupCosine(4, 20), DropOnPlateau(4)])
def test_every_schedule_warms_up_linearly_to_the_full_rate(schedule) -> None:
    assert [schedule(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule(4) == pytest.approx(1.0)


def test_a_constant_rate_stays_and_a_cosine_ends_at_its_floor() -> None:
    assert Constant(4)(10**6) == 1.0
    cosine = WarmupCosine(0, 100, final=0.1)
    assert cosine(50) == pytest.approx(0.55) and cosine(100) == cosine(10**6) == pytest.approx(0.1)


def test_the_rate_is_halved_each_time_the_loss_has_waited_long_enough() -> None:
    schedule = DropOnPlateau(patience=2, threshold=0.01, final=0.2)
    rates = []
    for loss in (1.0, 0.9, 0.899, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7, 0.7):
        schedule.observe(loss)
        rates.append(schedule(100))
    # 0.899 is no improvement by 1 %; the floor is 0.2, not 0.125
    assert rates == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


S = TypeVar("S", WarmupCosine, DropOnPlateau)


def scheduled(schedule: S, rate: float = 2.0) -> tuple[S, LambdaLR]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    return schedule, LambdaLR(optimizer, schedule)


def stepped(scheduler: LambdaLR, steps: int) -> list[float]:
    """The rates of so many steps."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_a_longer_schedule_goes_on_at_its_own_rates(caplog) -> None:
    (_, first), (_, whole) = scheduled(WarmupCosine(2, 10)), scheduled(WarmupCosine(2, 20), 4.0)
    stepped(first, 10)
    (schedule, resumed), expected = scheduled(WarmupCosine(2, 20), 4.0), stepped(whole, 20)
    set_schedule_state(resumed, first.state_dict())
    assert schedule == WarmupCosine(2, 20) and stepped(resumed, 10) == expected[10:]
    told = [record.getMessage() for record in caplog.records if record.name == set_schedule_state.__module__]
    assert told == ["schedule.total_steps was 10 and is now 20, from this step on"]


def test_a_plateau_that_goes_on_takes_new_settings_and_keeps_its_state() -> None:
    first, scheduler = scheduled(DropOnPlateau(patience=1, factor=0.5))
    for loss in (1.0, 1.0):
        first.observe(loss)
    stepped(scheduler, 3)
    second, resumed = scheduled(DropOnPlateau(patience=2, factor=0.1))
    set_schedule_state(resumed, scheduler.state_dict())
    assert (second.best, second.scale, second.patience, second.factor) == (1.0, 0.5, 2, 0.1)
    assert resumed.optimizer.param_groups[0]["lr"] == 1.0


def test_a_schedule_of_another_kind_is_refused() -> None:
    more: dict[str, Any] = {}
    Stuck(1.0, schedule=WarmupCosine(2, 10)).on_save_checkpoint(more)
    saved = Saved(Path("run/checkpoints/step-1"), Manifest(1, 1, {}, {"more": more}))
    _check_schedule(saved, Stuck(1.0, schedule=WarmupCosine(2, 20)))
    with pytest.raises(
        UserError, match="step-1 was written with another schedule, WarmupCosine, than Constant"
    ):
        _check_schedule(saved, Stuck(1.0, schedule=Constant(4)))
    with pytest.raises(UserError, match=r"than none; choose the one in run/config\.yaml, or another run_dir"):
        _check_schedule(saved, Stuck(1.0))


def test_a_plateau_survives_a_checkpoint() -> None:
    first, scheduler = scheduled(DropOnPlateau(patience=1))
    for loss in (1.0, 1.0):
        first.observe(loss)
    scheduler.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [1.0]
    second, resumed = scheduled(DropOnPlateau(patience=1))
    set_schedule_state(resumed, scheduler.state_dict())
    assert (second.best, second.scale) == (1.0, 0.5)
    second.observe(1.0)
    resumed.optimizer.step()
    resumed.step()
    assert resumed.get_last_lr() == [0.5]


def test_the_shipped_plateau_is_built_from_its_config() -> None:
    schedule = build(compose("train", ["schedule=plateau"]).schedule)
    assert isinstance(schedule, DropOnPlateau) and schedule.factor == 0.5


@pytest.mark.parametrize("wrong", [{"factor": 1.0}, {"patience": 0}, {"threshold": -0.1}, {"final": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="factor and final lie in"):
        DropOnPlateau(**wrong)


class Stuck(Task):
    """A model whose held-out loss never falls; the root's slope at a weight of zero is infinite."""

    def __init__(self, weight: float, **settings) -> None:
        super().__init__(optimizer=partial(torch.optim.SGD, lr=1e-3), **settings)
        self.weight = torch.nn.Parameter(torch.tensor([weight]))

    def training_step(self, batch, batch_idx) -> torch.Tensor:
        return self.weight.sqrt().sum()

    def validation_step(self, batch, batch_idx) -> None:
        self.log("val/loss", torch.tensor(1.0), batch_size=1)


def fitted(task: Task, steps: int = 4, callbacks: Sequence[Callback] = ()) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=1, check_val_every_n_epoch=None, logger=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=0.1,
        enable_checkpointing=bool(callbacks), callbacks=list(callbacks),
    )  # fmt: skip
    numbers = torch.utils.data.DataLoader(list(range(4)), batch_size=None)
    trainer.fit(task, numbers, numbers)
    return trainer


def test_the_trainer_drops_the_rate_by_the_held_out_loss_and_logs_the_norm_before_clipping() -> None:
    trainer = fitted(Stuck(4.0, schedule=DropOnPlateau(patience=1)))
    # the first of four validations sets the best loss, the others each halve the rate of the step after
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 4)
    assert trainer.callback_metrics["train/gradient_norm"] == pytest.approx(0.25, rel=1e-3)


def test_a_plateau_of_a_run_that_was_stopped_in_a_validation_is_that_of_an_unbroken_one(tmp_path) -> None:
    class Stopped(Stuck):
        def validation_step(self, batch, batch_idx) -> None:
            super().validation_step(batch, batch_idx)
            if (self.global_step, batch_idx) == (2, 1):
                signal.raise_signal(signal.SIGTERM)

    def plateau() -> DropOnPlateau:
        return DropOnPlateau(patience=2)

    callbacks = [Checkpoints(str(tmp_path)), Preemption()]
    with pytest.raises(Preempted):
        fitted(Stopped(4.0, schedule=plateau()), callbacks=callbacks)
    parts, whole = Stuck(4.0, schedule=plateau()), Stuck(4.0, schedule=plateau())
    rates = [fitted(parts, callbacks=callbacks), fitted(whole)]
    assert vars(parts.schedule) == vars(whole.schedule) and whole.schedule.scale == 0.5
    assert len({trainer.optimizers[0].param_groups[0]["lr"] for trainer in rates}) == 1
    assert torch.equal(parts.weight, whole.weight)


def test_a_gradient_that_is_no_number_ends_the_run_before_a_weight_changes() -> None:
    task = Stuck(0.0)
    with pytest.raises(
        NotFiniteError, match="step 0: the norm of the gradients is inf; no weight was changed"
    ):
        fitted(task)
    assert float(task.weight) == 0.0
