"""Solvers, schedules and guidance of the sampler: orders, published values, two passes against one batch."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_tasks import SAMPLER, flow_task, latent_batch

from moviegen.callbacks.samples import Samples
from moviegen.config import build, compose
from moviegen.flow.guidance import GuidanceTerm, guided, guided_together, nested_guidance
from moviegen.flow.sampler import dopri5, euler, heun
from moviegen.flow.times import (
    linear_quadratic_mindone_times,
    linear_quadratic_times,
    linear_times,
    shifted_times,
)
from moviegen.tasks.sampling import SamplerConfig, sample_clips, sample_latents
from moviegen.tasks.solving import SCHEDULES

# 1000 - timesteps of mindone's examples/moviegen/mg/schedulers/rectified_flow.py for 50 of 1000 steps
MINDONE = {0: 0.0, 1: 1.0, 24: 24.0, 25: 24 + 976 / 676, 26: 24 + 976 * 4 / 676, 49: 24 + 976 * 625 / 676}
# 1000 * (1 - sigma) of genmoai/mochi's linear_quadratic_schedule(50, 0.025)
MOCHI = {0: 0.0, 1: 1.0, 24: 24.0, 25: 25.0, 26: 27.52, 27: 33.08, 49: 924.52}


def test_both_public_forms_of_25_and_25_steps_of_1000_have_their_published_values() -> None:
    for form, published in ((linear_quadratic_times, MOCHI), (linear_quadratic_mindone_times, MINDONE)):
        times = form(50, 1000) * 1000
        assert len(times) == 51 and times[-1] == pytest.approx(1000)
        for index, value in published.items():
            assert float(times[index]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("num_steps", "emulated"), [(50, 1000), (50, 250), (20, 400), (7, 100)])
def test_the_smooth_form_equals_the_function_that_diffusers_publishes(num_steps: int, emulated: int) -> None:
    mochi = pytest.importorskip("diffusers.pipelines.mochi.pipeline_mochi")
    sigmas = mochi.linear_quadratic_schedule(num_steps, (num_steps // 2) / emulated)
    theirs = 1 - torch.tensor([*sigmas, 0.0], dtype=torch.float64)
    torch.testing.assert_close(linear_quadratic_times(num_steps, emulated), theirs)


@pytest.mark.parametrize("num_steps", [2, 5, 50])
def test_every_schedule_runs_from_noise_to_data_without_turning(num_steps: int) -> None:
    for schedule in SCHEDULES:
        settings = vars(SAMPLER) | {"num_steps": num_steps, "schedule": schedule}
        times = SamplerConfig(**settings).times()
        assert len(times) == num_steps + 1 and times[0] == 0 and times[-1] == pytest.approx(1)
        assert (times.diff() > 0).all()


def test_a_shifted_schedule_spends_more_steps_near_the_noise() -> None:
    torch.testing.assert_close(shifted_times(10, 1.0), linear_times(10))
    torch.testing.assert_close(shifted_times(2, 3.0), torch.tensor([0, 0.25, 1], dtype=torch.float64))
    assert (shifted_times(10, 3.0)[1:-1] < linear_times(10)[1:-1]).all()


def exponential(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return x * (1 + t.view(-1, 1).cos())


TRUTH = math.exp(1 + math.sin(1))


def test_heun_is_of_second_order() -> None:
    x_0 = torch.ones(1, 1, dtype=torch.float64)
    errors = [abs(float(heun(exponential, x_0, linear_times(n))) - TRUTH) for n in (50, 100)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_dopri5_keeps_its_tolerance_with_few_evaluations() -> None:
    pytest.importorskip("torchdiffeq")
    calls = []

    def counted(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return exponential(x, t)

    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        x_0 = torch.ones(2, 1, dtype=dtype)
        out = dopri5(counted, x_0, linear_times(50), tolerance)
        assert out.dtype == dtype and out.shape == x_0.shape
        torch.testing.assert_close(
            out.double(), torch.full((2, 1), TRUTH).double(), rtol=100 * tolerance, atol=0
        )
    assert len(calls) < 300 and min(calls) >= 0 and max(calls) <= 1


def test_dopri5_without_its_package_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchdiffeq", None)
    with pytest.raises(ValueError, match=r"torchdiffeq.*pip install moviegen\[solvers\]"):
        dopri5(exponential, torch.ones(1, 1), linear_times(1))


def test_one_batch_of_both_terms_equals_two_passes() -> None:
    task, inputs, keys = flow_task(), {"text": latent_batch(3).inputs["text"]}, torch.tensor([1, 2, 3])
    two = sample_latents(task, inputs, keys, SAMPLER)
    together = SamplerConfig(**(vars(SAMPLER) | {"batched_guidance": True}))
    torch.testing.assert_close(
        sample_latents(task, inputs, keys, together).values, two.values, rtol=1e-4, atol=1e-5
    )
    unguided = SamplerConfig(**(vars(SAMPLER) | {"guidance": 1.0}))
    assert not torch.allclose(sample_latents(task, inputs, keys, unguided).values, two.values, atol=1e-3)


def test_guidance_in_one_batch_mixes_any_number_of_terms() -> None:
    terms = (
        GuidanceTerm(2.0),
        GuidanceTerm(-1.5, frozenset({"a"})),
        GuidanceTerm(0.5, frozenset({"a", "b"})),
    )

    def one(x, t, drop):
        return x * (1 + len(drop)) + t[:, None]

    def many(x, t, drops):
        return torch.cat([one(part, part_t, drop) for part, part_t, drop in
                          zip(x.chunk(len(drops)), t.chunk(len(drops)), drops, strict=True)])  # fmt: skip

    x, t = torch.randn(2, 3), torch.rand(2)
    torch.testing.assert_close(guided_together(many, terms)(x, t), guided(one, terms)(x, t))


def test_guidance_is_off_outside_of_its_interval() -> None:
    calls = []

    def velocity(x, t, drop):
        calls.append((float(t[0]), drop))
        return x * 0 + (5.0 if drop else 1.0)

    field = guided(velocity, nested_guidance({"text": 3.0}), interval=(0.3, 0.6))
    x = torch.zeros(1, 1)
    found = [float(field(x, torch.tensor([t]))) for t in (0.0, 0.3, 0.5, 0.6, 0.7)]
    assert found == [1.0, -7.0, -7.0, -7.0, 1.0]
    assert sum(bool(drop) for _, drop in calls) == 3 and len(calls) == 8
    for wrong in ((0.6, 0.3), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="guidance interval"):
            guided(velocity, nested_guidance({"text": 3.0}), interval=wrong)


def test_an_empty_interval_samples_as_without_guidance() -> None:
    task, prompts = flow_task(), ["a red star"]
    off = SamplerConfig(**(vars(SAMPLER) | {"guidance_from": 1.0}))
    plain = SamplerConfig(**(vars(SAMPLER) | {"guidance": 1.0}))
    torch.testing.assert_close(sample_clips(task, prompts, off), sample_clips(task, prompts, plain))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "dopri5"])
def test_every_solver_samples_and_all_come_to_the_same_latent(solver: str) -> None:
    if solver == "dopri5":
        pytest.importorskip("torchdiffeq")
    task, inputs, keys = flow_task(), {"text": latent_batch(2).inputs["text"]}, torch.tensor([1, 2])
    many = SamplerConfig(**(vars(SAMPLER) | {"num_steps": 200, "schedule": "linear"}))
    truth = sample_latents(task, inputs, keys, many).values
    own = SamplerConfig(**(vars(SAMPLER) | {"num_steps": 100, "schedule": "shifted", "solver": solver}))
    found = sample_latents(task, inputs, keys, own).values
    assert (found - truth).norm() < 0.02 * truth.norm()


def test_conditions_are_encoded_once_a_clip_and_not_in_every_step() -> None:
    task, inputs = flow_task(), {"text": latent_batch(2).inputs["text"]}
    seen = []
    task.conditioners.items["text"].register_forward_pre_hook(lambda module, args: seen.append(args))
    sample_latents(task, inputs, torch.tensor([1, 2]), SAMPLER)
    assert len(seen) == 2  # with the text and without


def test_the_sampler_config_offers_every_setting_and_refuses_wrong_ones() -> None:
    settings = ["solver=heun", "schedule=linear_quadratic_mindone", "batched_guidance=true",
                "guidance_from=0.1", "guidance_until=0.9", "shift=2", "tolerance=1e-5"]  # fmt: skip
    config = build(compose("generate", ["prompts=p.txt", *(f"sampler.{s}" for s in settings)]).sampler)
    assert config.interval == (0.1, 0.9) and config.batched_guidance and config.shift == 2.0
    for name, value in {"solver": "rk9", "schedule": "cosine", "num_steps": 0, "tolerance": 0.0, "shift": -1.0,
                        "guidance_from": 1.5, "guidance": math.nan}.items():  # fmt: skip
        with pytest.raises(ValueError, match=name.split("_")[0]):
            SamplerConfig(**(vars(SAMPLER) | {name: value}))


def test_samples_that_cannot_be_made_are_refused_when_training_starts() -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True)
    with pytest.raises(
        ValueError, match="num_steps=300: a linear-quadratic schedule has 2 to emulated_steps"
    ):
        SamplerConfig(**(vars(SAMPLER) | {"num_steps": 300}))
    sampler = SamplerConfig(**(vars(SAMPLER) | {"condition_guidance": {"identity": 2.0}}))
    with pytest.raises(ValueError, match=r"sampler\.condition_guidance\.identity: this model has no such"):
        Samples("unused", ["a star"], sampler).on_fit_start(trainer, flow_task())


def test_euler_visits_the_times_of_its_schedule() -> None:
    visited = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        visited.append(float(t[0]))
        return torch.zeros_like(x)

    times = linear_quadratic_times(10, 100)
    euler(velocity, torch.zeros(1, 1, dtype=torch.float64), times)
    assert visited == pytest.approx(times[:-1].tolist()) and all(a < b for a, b in pairwise(visited))
