"""Learning rates: warm-up, constant, cosine, and a drop when the held-out loss stops falling."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning import Trainer

from moviegen.config import build, compose
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


def test_a_plateau_survives_a_checkpoint() -> None:
    def scheduled() -> tuple[DropOnPlateau, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = DropOnPlateau(patience=1)
        return schedule, torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)

    first, scheduler = scheduled()
    for loss in (1.0, 1.0):
        first.observe(loss)
    scheduler.optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [1.0]
    second, resumed = scheduled()
    resumed.load_state_dict(scheduler.state_dict())
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


def fitted(task: Task, steps: int = 4) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=1, check_val_every_n_epoch=None, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=0.1,
    )  # fmt: skip
    numbers = torch.utils.data.DataLoader(list(range(steps)), batch_size=None)
    trainer.fit(task, numbers, numbers)
    return trainer


def test_the_trainer_drops_the_rate_by_the_held_out_loss_and_logs_the_norm_before_clipping() -> None:
    trainer = fitted(Stuck(4.0, schedule=DropOnPlateau(patience=1)))
    # the first of four validations sets the best loss, the others each halve the rate of the step after
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / 4)
    assert trainer.callback_metrics["train/gradient_norm"] == pytest.approx(0.25, rel=1e-3)


def test_a_gradient_that_is_no_number_ends_the_run_before_a_weight_changes() -> None:
    task = Stuck(0.0)
    with pytest.raises(
        NotFiniteError, match="step 0: the norm of the gradients is inf; no weight was changed"
    ):
        fitted(task)
    assert float(task.weight) == 0.0
