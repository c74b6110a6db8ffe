"""Training times, the diffusion path, loss weights: against closed forms, and sampled to the end."""

import pytest
import torch
from test_tasks import SAMPLER, flow_task, latent_batch, overfit

from moviegen.config import build, compose
from moviegen.flow.path import DiffusionPath, MinSNR, OTPath
from moviegen.flow.sampler import ddim, euler
from moviegen.flow.times import LogitNormal, Shifted, Uniform, linear_times, shift_towards_noise
from moviegen.tasks.flow_task import FlowTask
from moviegen.tasks.sampling import SamplerConfig, sample_clips


def draws(count: int = 20_000) -> torch.Tensor:
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_uniform_times_fill_the_interval_evenly() -> None:
    times = Uniform()(draws()).sort().values
    grid = torch.linspace(0, 1, len(times), dtype=torch.float64)
    assert (times - grid).abs().max() < 0.015  # Kolmogorov-Smirnov at 20,000 draws: 0.0136 at p = 0.001


def test_a_shift_multiplies_the_noise_to_data_ratio() -> None:
    t = LogitNormal()(draws(100))
    shifted = Shifted(3.0, LogitNormal())(draws(100))
    torch.testing.assert_close((1 - shifted) / shifted, 3 * (1 - t) / t)
    torch.testing.assert_close(shift_towards_noise(t, 1.0), t)
    ends = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(shift_towards_noise(ends, 5.0), ends)
    with pytest.raises(ValueError, match="shift must be positive"):
        Shifted(0.0)


def test_diffusion_begins_at_exactly_pure_noise_and_ends_at_data() -> None:
    path, ends = DiffusionPath(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert path.alpha(ends)[0] == 0 and path.sigma(ends)[0] == 1
    torch.testing.assert_close(path.alpha(ends)[1], torch.tensor(1.0, dtype=torch.float64))
    assert (path.angles().diff() > 0).all()
    t = torch.rand(50, dtype=torch.float64)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))


def test_the_noise_levels_are_those_of_diffusers_with_zero_terminal_snr() -> None:
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    theirs = schedulers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    ours = DiffusionPath().angles().sin()[:-1].flip(0) ** 2
    torch.testing.assert_close(
        theirs.alphas_cumprod.double(), ours, rtol=1e-3, atol=1e-6
    )  # theirs are float32


@pytest.mark.parametrize("path", [OTPath(), DiffusionPath()], ids=lambda path: type(path).__name__)
def test_the_velocity_that_follows_from_the_target_is_the_derivative_of_the_path(path) -> None:
    x_1, x_0 = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    t = (torch.arange(4, dtype=torch.float64) * 250 + 100.5) / 1000  # between two levels of diffusion
    _, slope = torch.func.jvp(lambda s: path.sample(x_1, x_0, s).x_t, (t,), (torch.ones_like(t),))
    sample = path.sample(x_1, x_0, t)
    torch.testing.assert_close(path.velocity(sample.target, t), slope)
    shares = path.alpha(t)[:, None] * x_1 + path.sigma(t)[:, None] * x_0
    torch.testing.assert_close(sample.x_t, shares)


def test_an_error_of_the_answer_is_sigma_times_that_error_in_the_data() -> None:
    """What MinSNR assumes: with x_t given, x_1 moves by sigma(t) where the answer moves by one (up to its sign)."""
    t = torch.tensor([0.3], dtype=torch.float64)
    for path, sign in ((OTPath(), 1), (DiffusionPath(), -1)):
        a, s = path.alpha(t).item(), path.sigma(t).item()
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        by_data, by_noise = path.sample(one, zero, t).target.item(), path.sample(zero, one, t).target.item()
        mixing = torch.tensor([[a, s], [by_data, by_noise]], dtype=torch.float64)
        assert mixing.inverse()[0, 1].item() == pytest.approx(sign * s)


def test_min_snr_weights_are_those_of_the_paper_for_v_prediction() -> None:
    path, t = DiffusionPath(), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    snr = path.alpha(t) ** 2 / path.sigma(t) ** 2
    torch.testing.assert_close(MinSNR(5.0)(path, t), snr.clamp(max=5.0) / (snr + 1))
    assert (snr > 5).any() and (snr < 5).any()
    with pytest.raises(ValueError, match="gamma"):
        MinSNR(0.0)


def test_ddim_is_exact_in_few_steps_where_noise_and_data_stay_as_predicted() -> None:
    path = DiffusionPath()
    x_1, x_0 = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return path.velocity(path.sample(x_1, x_0, t).target, t)

    torch.testing.assert_close(ddim(velocity, x_0, linear_times(5), path), x_1)
    few, many = (
        (euler(velocity, x_0, linear_times(n)) - x_1).abs().max() for n in (50, 1000)
    )  # the ODE solvers agree, in the limit
    assert many < 0.1 * few


def diffusion_task() -> FlowTask:
    task = flow_task()
    task.path, task.times, task.weighting = DiffusionPath(), Uniform(), MinSNR()
    return task


def test_a_diffusion_task_learns_one_batch_and_samples_it_by_ddim_and_by_heun() -> None:
    task, batch = diffusion_task(), latent_batch()
    overfit(task, batch)
    settings = vars(SAMPLER) | {"num_steps": 200, "schedule": "linear"}
    clips = [
        sample_clips(task, ["a red star"], SamplerConfig(**(settings | {"solver": solver})))
        for solver in ("ddim", "heun")
    ]
    assert clips[0].std() > 0.05  # two solvers of one equation come to the same clip
    assert (clips[0] - clips[1]).square().mean().sqrt() < 0.05 * clips[0].std()


def test_weights_apply_to_training_and_not_to_held_out_losses() -> None:
    plain, weighted, batch = flow_task(), flow_task(), latent_batch()
    weighted.weighting = MinSNR(5.0)
    torch.testing.assert_close(weighted.losses(batch, 3, time=0.7), plain.losses(batch, 3, time=0.7))
    seen = []
    path_sample = OTPath().sample

    class Noting(OTPath):
        def sample(self, x_1, x_0, t):
            seen.append(t)
            return path_sample(x_1, x_0, t)

    plain.path = weighted.path = Noting()
    torch.testing.assert_close(
        weighted.losses(batch, 3), plain.losses(batch, 3) * MinSNR()(OTPath(), seen[0])
    )


def test_ddim_is_refused_on_the_straight_path() -> None:
    with pytest.raises(ValueError, match=r"ddim is for diffusion models.*OTPath"):
        sample_clips(flow_task(), ["a red star"], SamplerConfig(**(vars(SAMPLER) | {"solver": "ddim"})))


def test_every_switch_of_the_objective_is_an_option_of_the_training_config() -> None:
    options = ["path@task.path=diffusion", "times@task.times=shifted", "weighting@task.weighting=min_snr"]
    node = compose("train", options).task
    assert build(node.path) == DiffusionPath()
    assert build(node.times) == Shifted(3.0, LogitNormal())
    assert build(node.weighting) == MinSNR(5.0)
    default = compose("train").task
    assert build(default.path) == OTPath(1e-5) and build(default.times) == LogitNormal()
    assert default.get("weighting") is None
    assert build(compose("train", ["times@task.times=uniform"]).task.times) == Uniform()
