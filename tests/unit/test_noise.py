"""Noise and times are a pure function of (seed, global step, the sample's key): epochs differ, ranks do not matter."""

from pathlib import Path

import pytest
import torch
from shard_samples import latent_folder
from test_tasks import flow_task, latent_batch

from moviegen.data.batches import key_number
from moviegen.data.module import ShardData, Source
from moviegen.fields import LATENT, TEXT_FEATURES
from moviegen.flow.path import OTPath
from moviegen.rng import SampleRng
from moviegen.types import Batch

CLIPS, BATCH = 8, 4


class Noting(OTPath):
    """The straight path, noting what it is asked to mix."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "noted", [])

    def sample(self, x_1, x_0, t):
        self.noted.extend(zip(t.tolist(), x_0, strict=True))
        return super().sample(x_1, x_0, t)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return latent_folder(tmp_path_factory.mktemp("noise"), (CLIPS,))


def drawn(folder: Path, ranks: int, steps: int, first: int = 0) -> dict[tuple[int, str], tuple]:
    """(step, sample) -> (time, noise) that training on so many ranks draws."""
    found = {}
    for rank in range(ranks):
        data = ShardData(train={"all": Source(str(folder))}, batch_size=BATCH)
        data.use({"media": LATENT, "text": TEXT_FEATURES}, dp_rank=rank, dp_size=ranks)
        data.step = first
        loader, task = iter(data.train_dataloader()), flow_task()
        task.path = Noting()
        task.backbone = Answerless(task.backbone.config)
        for step in range(first, first + steps):
            batch = small(next(loader))
            task.path.noted.clear()
            task.losses(batch, step)
            for name, (time, noise) in zip(batch.names, task.path.noted, strict=True):
                found[step, name] = (time, noise)
    return found


class Answerless(torch.nn.Module):
    """A backbone that always answers zero."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, x, t, conditions):
        return torch.zeros_like(x)


def small(batch: Batch) -> Batch:
    """The batch with text features as wide as the task's encoder."""
    features, mask = batch.inputs["text"]
    return Batch(
        batch.keys, batch.media, {"text": (features.float().repeat(1, 1, 96), mask)}, names=batch.names
    )


def test_two_epochs_draw_different_noise_and_times(folder: Path) -> None:
    steps = 2 * CLIPS // BATCH
    found = drawn(folder, ranks=1, steps=steps)
    names = {name for _, name in found}
    assert len(names) == CLIPS and len(found) == 2 * CLIPS
    for name in names:
        (time, noise), (later, other) = (value for (_, n), value in sorted(found.items()) if n == name)
        assert time != later and not torch.allclose(noise, other)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_draw_what_one_process_draws(folder: Path, ranks: int) -> None:
    one, several = drawn(folder, 1, steps=3), drawn(folder, ranks, steps=3)
    assert one.keys() == several.keys()
    for where, (time, noise) in one.items():
        assert several[where][0] == time
        torch.testing.assert_close(several[where][1], noise, rtol=0, atol=0)


def test_a_run_that_goes_on_draws_what_an_unbroken_one_draws(folder: Path) -> None:
    whole, rest = drawn(folder, 1, steps=4), drawn(folder, 1, steps=2, first=2)
    for where, (time, noise) in rest.items():
        assert whole[where][0] == time
        torch.testing.assert_close(whole[where][1], noise, rtol=0, atol=0)


def test_each_of_seed_step_and_key_changes_the_stream() -> None:
    key = torch.tensor([key_number("train-000001")])
    base = SampleRng(0, 5, key).randn(64)
    torch.testing.assert_close(SampleRng(0, 5, key).randn(64), base, rtol=0, atol=0)
    for other in (SampleRng(1, 5, key), SampleRng(0, 6, key), SampleRng(0, 5, key + 1), SampleRng(5, 0, key)):
        assert (other.randn(64) - base).abs().max() > 0.5


def test_every_bit_of_a_key_changes_its_noise_and_its_time() -> None:
    number = key_number("train-000001")
    keys = [number, *(number ^ 1 << bit for bit in range(63))]
    keys.append(number + 2**63 if number < 0 else number - 2**63)  # the sign
    rng = SampleRng(0, 5, torch.tensor(keys))
    times, noise = rng.randn(), rng.randn(8)
    assert (
        len(keys) == 65
        and len(set(times.tolist())) == 65
        and len({tuple(row) for row in noise.tolist()}) == 65
    )


def test_the_hash_of_a_key_is_stable_and_uses_its_bits() -> None:
    assert key_number("train-000001") == -5691629815502395998
    numbers = [key_number(f"train-{i:06d}") for i in range(2000)]
    assert len(set(numbers)) == 2000 and all(-(2**63) <= n < 2**63 for n in numbers)
    assert min(numbers) < -(2**62) and max(numbers) > 2**62  # no bit is lost
    for bit in range(64):  # each is set for about half of the keys
        assert 800 < sum(n >> bit & 1 for n in numbers) < 1200


def test_held_out_losses_are_the_same_whatever_the_seed_of_the_run_and_the_step() -> None:
    task, batch = flow_task(), latent_batch()
    before = task.held_out(batch)
    task.seed = 5
    torch.testing.assert_close(task.held_out(batch), before)
    assert not torch.allclose(task.losses(batch, 3), flow_task().losses(batch, 3))
