"""Lightning on a mesh: clipping, accumulation, averages and checkpoints give what one process gives by hand."""

from pathlib import Path

import layout_cases
import precision_cases
import pytest
import strategy_cases as cases

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.testing import Ranks


@pytest.mark.parametrize(
    "config",
    [
        ParallelConfig(dp_replicate=2, dp_shard=2),
        ParallelConfig(dp_shard=1, cp=2, tp=2, context="ulysses", checkpointing="selective"),
    ],
    ids=["hybrid to gathered context x tensor", "ulysses x tensor to shard"],
)
def test_training_stops_on_one_layout_and_goes_on_on_another(
    ranks: Ranks, config: ParallelConfig, tmp_path: Path
) -> None:
    for found in ranks.run(cases.differences, config, str(tmp_path)):
        assert max(found.values()) < 1e-5, found  # clipping keeps its norm in 32 bits


@pytest.mark.parametrize(
    "config",
    [ParallelConfig(dp_shard=4), ParallelConfig(dp_shard=1, cp=2, tp=2, context="ring")],
    ids=["shard", "ring x tensor"],
)
def test_half_precision_keeps_gradients_and_their_sums_in_32_bits(
    ranks: Ranks, config: ParallelConfig
) -> None:
    for loss, gradients, types in ranks.run(cases.half_precision, config):
        assert types == {"torch.float32"}
        assert abs(loss) < 0.02 and gradients < 0.05  # bf16 has 8 bits


@pytest.mark.parametrize(
    "config",
    [ParallelConfig(dp_shard=4), ParallelConfig(dp_replicate=2, dp_shard=2)],
    ids=["shard", "hybrid"],
)
def test_gradients_of_16_bits_are_summed_in_32(ranks: Ranks, config: ParallelConfig) -> None:
    for types in ranks.run(precision_cases.sums_of_a_step, config):
        assert types and set.union(*types.values()) == {"torch.float32"}, types
    for error, narrow in ranks.run(precision_cases.sums_of_a_layer, config):
        assert error < 1e-6 and narrow > 1e-3  # bf16 would show


def test_compiled_blocks_have_the_gradients_of_one_process(ranks: Ranks) -> None:
    config = ParallelConfig(dp_shard=4, compile="aot_eager", checkpointing="selective")
    for found in ranks.run(layout_cases.errors_of_one_block, config):
        assert max(found.values()) < 1e-10, found


@pytest.mark.parametrize(
    "config",
    [
        ParallelConfig(dp_shard=4, fp8="emulated"),
        ParallelConfig(dp_shard=2, cp=2, context="ring", checkpointing="selective", fp8="emulated"),
    ],
    ids=["shard", "shard x ring"],
)
def test_8_bit_products_of_shards_are_near_the_gradients_of_one_process(
    ranks: Ranks, config: ParallelConfig
) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed (pip install 'moviegen[fp8]')")
    for found in ranks.run(precision_cases.errors_in_8_bit, config):
        in_blocks = [error for name, error in found.items() if "blocks" in name]
        assert 0.01 < sum(in_blocks) / len(in_blocks) < 0.16, found  # as in one process, of fewer tokens each
        assert max(found.values()) < 0.45, (
            found
        )  # seen: .32 and .37, of queries and keys; a share left out is .5
