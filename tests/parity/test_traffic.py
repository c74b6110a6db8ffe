"""What the planner says that tp and cp send is what they send, whatever is computed again in the backward pass."""

from __future__ import annotations

import layout_cases as cases
import pytest

from moviegen.config import build, compose
from moviegen.parallel.config import CHECKPOINTING, Checkpointing, ParallelConfig
from moviegen.parallel.mesh import ContextMethod
from moviegen.parallel.testing import Ranks
from moviegen.plan.communication import context_traffic, tensor_traffic
from moviegen.plan.layout import Job, Layout
from moviegen.plan.shapes import Transformer

BLOCK = Transformer(num_layers=1, dim=32, ffn_dim=48, num_heads=4, cross=True)
JOB = Job(BLOCK, batch=cases.SAMPLES, tokens=16, context=cases.WORDS)


def layout(checkpointing: Checkpointing, cp: int = 1, tp: int = 1, context: ContextMethod = "all_gather"):
    """A layout of two processes as the model takes it and as the planner does."""
    config = ParallelConfig(dp_shard=1, cp=cp, tp=tp, context=context, checkpointing=checkpointing)
    return config, Layout(config.mesh(2), context, checkpointing, micro_batch=cases.SAMPLES)


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
def test_tokens_are_gathered_and_scattered_as_often_as_planned(
    ranks: Ranks, checkpointing: Checkpointing
) -> None:
    config, planned = layout(checkpointing, tp=2)
    sent = ranks.run(cases.traffic_of_a_block, config)[0]
    counted = sent["all_gather_into_tensor"] + sent["reduce_scatter_tensor"]
    assert counted == tensor_traffic(JOB, planned, build(compose("plan", ["hardware=cpu"])["hardware"])).calls


@pytest.mark.parametrize("checkpointing", CHECKPOINTING)
@pytest.mark.parametrize("context", ["all_gather", "ulysses", "ring"])
def test_keys_and_values_are_sent_as_often_as_planned(
    ranks: Ranks, context: ContextMethod, checkpointing: Checkpointing
) -> None:
    config, planned = layout(checkpointing, cp=2, context=context)
    sent = ranks.run(cases.traffic_of_a_block, config)[0]
    calls = context_traffic(JOB, planned, build(compose("plan", ["hardware=cpu"])["hardware"])).calls
    if context == "ring":  # of two: gradients are passed twice, so that they come home
        assert sent == {"passing": calls + 1}
    else:
        assert sum(sent.values()) == calls, sent
