"""Two processes with sharded weights (FSDP2 on gloo): averages, gradient norms and errors are those of one process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from moviegen.callbacks.ema import EMA
from moviegen.parallel.leaving import leave
from moviegen.tasks.base import NotFiniteError
from moviegen.tasks.sharded import clip_gradients, gradient_norm, placed_like, whole
from moviegen.types import Batch, Latent

WORLD, STEPS, LARGEST = 2, 3, 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def data() -> Tensor:
    return torch.randn(STEPS, WORLD, 4, 5, generator=torch.Generator().manual_seed(1))


def trained(model: nn.Module, inputs: Tensor, ema: EMA) -> list[float]:
    """Clipped steps on inputs [steps, B, 5], averaged after each; the norms before clipping."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer = SimpleNamespace(global_step=0)
    ema.on_fit_start(trainer, model)  # type: ignore[arg-type]
    norms = []
    for batch in inputs:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        norms.append(float(clip_gradients(list(model.parameters()), LARGEST)))
        assert (
            float(gradient_norm([p.grad for p in model.parameters() if p.grad is not None])) <= LARGEST + 1e-6
        )
        optimizer.step()
        trainer.global_step += 1
        ema.on_train_batch_end(trainer, model)  # type: ignore[arg-type]
    return norms


def sharded() -> nn.Module:
    """The network with each layer sharded on a mesh of its own, as tensor parallelism leaves some layers."""
    model = network()
    fully_shard(model[0], mesh=init_device_mesh("cpu", (WORLD,), mesh_dim_names=("dp",)))
    fully_shard(model[2], mesh=init_device_mesh("cpu", (WORLD, 1), mesh_dim_names=("fsdp", "tp"))["fsdp"])
    return model


def batch_of(*names: str) -> Batch:
    latent = Latent(torch.zeros(len(names), 1, 1, 1, 1), torch.zeros(len(names)))
    return Batch(torch.arange(len(names)), latent, {}, names)


def on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/join", rank=rank, world_size=WORLD)
    model, ema = sharded(), EMA(0.9)
    norms = trained(model, data()[:, rank], ema)
    assert all(isinstance(value, DTensor) for value in ema.average.values())
    assert sum(value.to_local().numel() for value in ema.average.values()) < sum(
        p.numel() for p in network().parameters()
    )
    weights = {name: whole(p.detach()) for name, p in model.named_parameters()}
    ema.swap_in(model)  # type: ignore[arg-type]
    averages = {name: whole(p.detach()) for name, p in model.named_parameters()}
    ema.swap_out(model)  # type: ignore[arg-type]
    for name, p in model.named_parameters():
        torch.testing.assert_close(whole(p.detach()), weights[name], rtol=0, atol=0)
    if rank == 0:
        torch.save({"norms": norms, "weights": weights, "averages": averages}, f"{folder}/out.pt")
    losses = torch.tensor([1.0, float("nan") if rank == 1 else 2.0])
    NotFiniteError.check(losses[:1], batch_of("good"), 6)
    with pytest.raises(NotFiniteError, match="step 7: the loss of sample bad-1 is nan"):
        NotFiniteError.check(losses, batch_of("fine", f"bad-{rank}"), 7)
    dist.barrier()
    leave()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What two processes with shards gave, and what one process gives."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(on_rank, (str(folder),), nprocs=WORLD, start_method="spawn")
    model, ema = network(), EMA(0.9)
    norms = trained(model, data().flatten(1, 2), ema)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return torch.load(folder / "out.pt", weights_only=True), {
        "norms": norms, "weights": weights, "averages": ema.average,
    }  # fmt: skip


def test_sharded_averages_weights_and_norms_are_those_of_one_process(results) -> None:
    two, one = results
    assert max(one["norms"]) > LARGEST
    torch.testing.assert_close(torch.tensor(two["norms"]), torch.tensor(one["norms"]))
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value)
        torch.testing.assert_close(two["averages"][name], one["averages"][name])
        assert not torch.equal(value, one["averages"][name])


def test_clipping_is_that_of_torch_and_none_leaves_the_gradients() -> None:
    ours, theirs = network(), network()
    for model in (ours, theirs):
        model(data()[0, 0]).square().mean().backward()
    free = [p.grad.clone() for p in ours.parameters()]
    norm = clip_gradients(list(ours.parameters()), None)
    assert all(torch.equal(p.grad, before) for p, before in zip(ours.parameters(), free, strict=True))
    assert float(norm) == float(clip_gradients(list(ours.parameters()), 0.01))
    assert float(norm) == float(nn.utils.clip_grad_norm_(theirs.parameters(), 0.01))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


def test_a_norm_that_is_no_number_is_refused_and_no_gradients_have_norm_zero() -> None:
    assert float(gradient_norm([])) == 0
    with pytest.raises(
        NotFiniteError, match="step 3: the norm of the gradients is inf; no weight was changed"
    ):
        NotFiniteError.check_norm(gradient_norm([torch.tensor([1.0, float("inf")])]), 3)


def test_plain_tensors_pass_through(tmp_path: Path) -> None:
    value = torch.randn(3, dtype=torch.float64)
    assert whole(value) is value
    assert placed_like(value, torch.zeros(3)).dtype == torch.float32
