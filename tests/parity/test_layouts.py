"""Every layout gives the loss and the gradients of one process; and where it would not, these tests say so."""

from __future__ import annotations

from typing import Any

import codec_cases
import layout_cases as cases
import pytest

from moviegen.parallel.config import ParallelConfig
from moviegen.parallel.testing import Ranks

LARGEST_ERROR = 1e-10  # relative to each tensor's norm; rounding stays below 1e-13


def layout(**given: Any) -> ParallelConfig:
    return ParallelConfig(**{"dp_shard": 1, **given})


LAYOUTS = {
    "shard 2": layout(dp_shard=2),
    "replicate 2": layout(dp_replicate=2),
    "tensor 2": layout(tp=2),
    "gathered context 2": layout(cp=2),
    "ulysses 2": layout(cp=2, context="ulysses"),
    "ring 2": layout(cp=2, context="ring"),
    "shard 4": layout(dp_shard=4),
    "replicate 4": layout(dp_replicate=4),
    "hybrid 2 x 2": layout(dp_replicate=2, dp_shard=2),
    "tensor 4": layout(tp=4),
    "gathered context 4": layout(cp=4),
    "ulysses 4": layout(cp=4, context="ulysses"),
    "ring 4": layout(cp=4, context="ring"),
    "shard x tensor": layout(dp_shard=2, tp=2),
    "replicate x tensor": layout(dp_replicate=2, tp=2),
    "shard x ulysses": layout(dp_shard=2, cp=2, context="ulysses"),
    "replicate x ring": layout(dp_replicate=2, cp=2, context="ring"),
    "gathered context x tensor": layout(cp=2, tp=2),
    "ulysses x tensor": layout(cp=2, tp=2, context="ulysses"),
    "ring x tensor": layout(cp=2, tp=2, context="ring"),
    "full checkpointing": layout(dp_shard=2, tp=2, checkpointing="full"),
    "selective checkpointing": layout(dp_shard=2, cp=2, checkpointing="selective"),
}


def worst(found: list[dict[str, float]]) -> tuple[float, str]:
    """The largest error of any rank, and of what."""
    return max((error, name) for one in found for name, error in one.items())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_has_the_loss_and_the_gradients_of_one_process_also_in_two_parts(
    ranks: Ranks, name: str
) -> None:
    error, where = worst(ranks.run(cases.errors_whole_and_in_parts, LAYOUTS[name]))
    assert error < LARGEST_ERROR, f"{where} is off by {error:.1e}"


@pytest.mark.parametrize("inner", ["dp_shard", "cp", "tp"])
def test_accumulated_shards_have_the_gradients_of_one_process(ranks: Ranks, inner: str) -> None:
    config = layout(dp_replicate=2, accumulate_sharded=True, **{inner: 2})
    error, where = worst(ranks.run(cases.errors, config, 2))
    assert error < LARGEST_ERROR, f"{where} is off by {error:.1e}"


def test_accumulation_reduces_gradients_once_a_batch(ranks: Ranks) -> None:
    hybrid = layout(dp_replicate=2, dp_shard=2)
    one, two = (ranks.run(cases.collectives, hybrid, parts)[0] for parts in (1, 2))
    assert one["scattered"] == two["scattered"] > 0
    assert one["summed"] == two["summed"] > 0
    shards = layout(dp_replicate=2, dp_shard=2, accumulate_sharded=True)
    often = ranks.run(cases.collectives, shards, 2)[0]
    assert often["scattered"] == 2 * one["scattered"] and often["summed"] == one["summed"]


@pytest.mark.parametrize("name", ["tensor 2", "shard x tensor", "ulysses x tensor"])
def test_the_other_block_of_the_paper_has_its_gradients_too(ranks: Ranks, name: str) -> None:
    error, where = worst(ranks.run(cases.errors_of_dit, LAYOUTS[name]))
    assert error < LARGEST_ERROR, f"{where} is off by {error:.1e}"


@pytest.mark.parametrize(("name", "linear"), [("shard 2", False), ("shard 4", True), ("hybrid 2 x 2", False)])
def test_a_codec_on_shards_has_the_gradients_of_one_process(ranks: Ranks, name: str, linear: bool) -> None:
    error, where = worst(ranks.run(codec_cases.errors, LAYOUTS[name], linear))
    assert error < LARGEST_ERROR, f"{where} is off by {error:.1e}"


def test_a_sharded_text_encoder_gives_the_features_of_a_whole_one(ranks: Ranks) -> None:
    for error, held in ranks.run(cases.encoder_on_shards, LAYOUTS["shard 4"]):
        assert error < LARGEST_ERROR and held < 0.4


@pytest.mark.parametrize(
    ("fault", "name", "silent"),
    [
        ("shuffled", "shard 2", False),
        ("no gradients of context", "gathered context 2", True),
        ("drifting norms", "tensor 2", True),
    ],
)
def test_a_fault_that_once_went_unseen_is_found(ranks: Ranks, fault: str, name: str, silent: bool) -> None:
    found = ranks.run(cases.with_fault, fault, LAYOUTS[name])
    error, where = worst(found)
    assert error > 1e-4, f"planted: {fault}, found: {where} is off by {error:.1e}"
    assert (found[0]["loss"] < LARGEST_ERROR) == silent  # the loss of the first step says nothing


def test_clipping_works_where_that_of_torch_fails(ranks: Ranks) -> None:
    config = LAYOUTS["shard x tensor"]
    assert all("mesh" in said for said in ranks.run(cases.clip_of_torch, config))
    assert ranks.run(cases.errors, config)[0]["clipped"] < LARGEST_ERROR
