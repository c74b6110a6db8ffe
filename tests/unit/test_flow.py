"""The objective, the schedules, guidance and solvers against closed forms."""

import pytest
import torch

from moviegen.flow.guidance import GuidanceTerm, guided, nested_guidance
from moviegen.flow.path import OTPath
from moviegen.flow.sampler import euler, midpoint
from moviegen.flow.times import LogitNormal, linear_quadratic_times, linear_times


def test_the_path_starts_at_noise_and_ends_at_data_up_to_sigma_min() -> None:
    x_1, x_0 = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    path = OTPath()
    torch.testing.assert_close(path.sample(x_1, x_0, torch.zeros(2, dtype=torch.float64)).x_t, x_0)
    torch.testing.assert_close(
        path.sample(x_1, x_0, torch.ones(2, dtype=torch.float64)).x_t, x_1 + 1e-5 * x_0
    )


def test_the_target_is_the_derivative_of_the_path() -> None:
    x_1, x_0 = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    t = torch.rand(4, dtype=torch.float64)
    _, slope = torch.func.jvp(lambda s: OTPath().sample(x_1, x_0, s).x_t, (t,), (torch.ones_like(t),))
    torch.testing.assert_close(slope, OTPath().sample(x_1, x_0, t).target)


@pytest.mark.parametrize("solver", [euler, midpoint])
def test_solvers_are_exact_on_straight_paths(solver) -> None:
    x_1, x_0 = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    out = solver(lambda x, t: x_1 - x_0, x_0, linear_quadratic_times(10))
    torch.testing.assert_close(out, x_1)


def test_midpoint_is_of_second_order_and_euler_of_first() -> None:
    x_0 = torch.ones(1, 1, dtype=torch.float64)
    truth = torch.e

    def error(solver, steps: int) -> float:
        return abs(float(solver(lambda x, t: x, x_0, linear_times(steps))) - truth)

    assert error(euler, 50) / error(euler, 100) == pytest.approx(2, rel=0.05)
    assert error(midpoint, 50) / error(midpoint, 100) == pytest.approx(4, rel=0.05)


def test_the_linear_quadratic_schedule_begins_like_250_linear_steps_and_ends_at_one() -> None:
    times = linear_quadratic_times(50, 250)
    assert len(times) == 51
    torch.testing.assert_close(times[:26], linear_times(250)[:26])
    assert times[-1] == pytest.approx(1)
    steps = times.diff()
    assert (steps[25:].diff() > 0).all() and steps[25] >= steps[24] - 1e-12
    second = steps[25:].diff()
    torch.testing.assert_close(second, second[:1].expand_as(second))


def test_logit_normal_times_have_the_logits_asked_for() -> None:
    normal = torch.randn(20_000, dtype=torch.float64)
    logits = torch.logit(LogitNormal(mean=0.5, std=2.0)(normal))
    torch.testing.assert_close(logits, 0.5 + 2 * normal)


def test_guidance_is_the_usual_extrapolation_and_costs_one_call_at_scale_one() -> None:
    calls = []

    def velocity(x, t, drop):
        calls.append(drop)
        return x * (0.0 if "text" in drop else 1.0)

    x, t = torch.ones(2, 3), torch.zeros(2)
    torch.testing.assert_close(
        guided(velocity, nested_guidance({"text": 3.0}))(x, t), torch.full((2, 3), 3.0)
    )
    calls.clear()
    guided(velocity, nested_guidance({"text": 1.0}))(x, t)
    assert calls == [frozenset()]


def test_guidance_weights_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        guided(lambda x, t, drop: x, (GuidanceTerm(0.5),))
