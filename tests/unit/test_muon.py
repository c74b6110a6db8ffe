"""Muon: what it makes of a gradient, which tensors it takes, and that it resumes."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from moviegen.parallel.leaving import leave
from moviegen.tasks.muon import UPDATE_RMS, Muon, orthogonalize, shared_out


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32, 24), nn.Linear(24, 2))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = (net(x) - x[:, :2, 0, 0]).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_singular_values_are_brought_near_one_and_the_directions_stay() -> None:
    matrices = torch.randn(3, 20, 48, generator=torch.Generator().manual_seed(1))
    for x in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalize(x))
        assert values.min() > 0.6 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    nearest = u @ vh
    cosine = torch.cosine_similarity(orthogonalize(matrices).flatten(1), nearest.flatten(1))
    assert (cosine > 0.97).all()


def test_in_bfloat16_large_and_small_singular_values_are_brought_near_one_just_so() -> None:
    base = torch.randn(2, 32, 80, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(base, full_matrices=False)
    steep = u * torch.logspace(0, -2, 32) @ vh
    for x in (steep, steep.mT):
        exact, rough = orthogonalize(x), orthogonalize(x, torch.bfloat16)
        assert rough.dtype == torch.float32
        assert torch.cosine_similarity(exact.flatten(1), rough.flatten(1)).min() > 0.99


def test_a_step_under_autocast_is_the_step_without() -> None:
    """A task that steps its optimizers itself, as one with an adversary does, is inside the trainer's autocast."""
    nets = [model(), model()]
    x = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    for net, enabled in zip(nets, (False, True), strict=True):
        (net(x) - x[:, :2, 0, 0]).square().mean().backward()
        with torch.autocast("cpu", torch.bfloat16, enabled):
            Muon(net.parameters(), lr=0.02).step()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)


def share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for num in (1, 4, 5):
        matrices = torch.randn(num, 16, 24, generator=torch.Generator().manual_seed(num))
        seen: list[int] = []

        def work(part: torch.Tensor, seen: list[int] = seen) -> torch.Tensor:
            seen.append(len(part))
            return orthogonalize(part)

        torch.testing.assert_close(shared_out(matrices, work), orthogonalize(matrices))
        assert sum(seen) <= (num + 1) // 2
    Path(folder, f"done{rank}").touch()
    dist.barrier()
    leave()


def test_processes_share_the_work_and_all_get_every_matrix(tmp_path) -> None:
    mp.spawn(share, (str(tmp_path),), nprocs=2)
    assert (tmp_path / "done0").exists() and (tmp_path / "done1").exists()


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype must be bfloat16, float32 or float64, got 'half'"):
        Muon(model().parameters(), dtype="half")


def test_kernels_and_matrices_of_some_size_take_its_step_and_the_rest_adamws() -> None:
    net = model()
    optimizer = Muon(net.parameters(), lr=0.01)
    taken = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    assert {name for name, p in net.named_parameters() if id(p) in taken} == {"0.weight", "2.weight"}

    reference = copy.deepcopy(net)
    adamw = torch.optim.AdamW(reference.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    before = net[2].weight.detach().clone()
    x = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    step(net, optimizer, x)
    step(reference, adamw, x)
    torch.testing.assert_close(net[3].weight, reference[3].weight, rtol=0, atol=0)
    rms = (net[2].weight.detach() - before).square().mean().sqrt().item()
    expected = 0.01 * UPDATE_RMS * (2 / 24) ** 0.5  # two outputs: two of the 24 singular values are not zero
    assert 0.7 < rms / expected < 1.3


def test_it_trains_and_resumes_bit_for_bit() -> None:
    x = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(2))
    net = model()
    optimizer = Muon(net.parameters(), lr=0.02)
    losses = [step(net, optimizer, x) for _ in range(5)]
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict())
    losses += [step(net, optimizer, x) for _ in range(25)]
    assert losses[-1] < 0.05 * losses[0]

    again = model()
    again.load_state_dict(weights)
    resumed = Muon(again.parameters(), lr=0.02)
    resumed.load_state_dict(state)
    assert [step(again, resumed, x) for _ in range(25)] == losses[5:]
