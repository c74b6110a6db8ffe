"""The named sizes of the transformer, on the meta device: their parameters and the operations of an evaluation."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.counts import block_parameters, forward_flops
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.config import build
from moviegen.types import Grid

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "backbone"
CLIP = Grid(32, 48, 48)  # tokens of 256 frames of 768 x 768 pixels (paper 3.1.2)


def on_meta(name: str) -> Backbone:
    node: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    with torch.device("meta"):
        return build(node)


def in_matrices_of_blocks(backbone: Backbone) -> int:
    return sum(
        module.weight.numel() for module in backbone.blocks.modules() if hasattr(module, "in_features")
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("toy", 3_358_720),
        ("1b", 905_969_664),
        ("5b", 4_831_838_208),  # paper: 32 layers, width 3072
        ("7b", 7_006_584_832),
        ("9b", 9_162_457_088),
        ("17b", 16_882_073_600),
        ("30b", 28_991_029_248),  # paper: 48 layers, width 6144
    ],
)
def test_each_size_has_its_parameters_in_blocks(name: str, parameters: int) -> None:
    backbone = on_meta(name)
    assert in_matrices_of_blocks(backbone) == block_parameters(backbone.config) == parameters


@pytest.mark.parametrize("name", ["1b", "5b", "7b", "9b", "17b", "30b"])
def test_the_large_sizes_have_heads_of_128_that_divide_over_four_devices(name: str) -> None:
    config = on_meta(name).config
    assert config.dim // config.num_heads == 128 and config.num_heads % 4 == 0 and config.ffn_dim % 256 == 0


def test_modulation_is_shared_so_that_outside_the_blocks_there_is_little() -> None:
    backbone = on_meta("30b")
    blocks = sum(p.numel() for p in backbone.blocks.parameters())
    everything = sum(p.numel() for p in backbone.parameters())
    assert (
        blocks - block_parameters(backbone.config) == 48 * (6 + 3) * 6144
    )  # a table and three norms a layer
    assert 0 < (everything - blocks) / blocks < 0.012


def test_the_30b_model_takes_the_papers_operations_for_a_clip() -> None:
    config = on_meta("30b").config
    assert forward_flops(config, CLIP.num_tokens, 512) == pytest.approx(10.2e15, rel=0.005)
    pairs = config.num_layers * 4 * CLIP.num_tokens * (CLIP.num_tokens + 512) * config.dim
    assert pairs / forward_flops(config, CLIP.num_tokens, 512) == pytest.approx(0.63, abs=0.01)


@pytest.mark.parametrize(("concat", "block"), [(0, "llama"), (24, "llama"), (0, "dit")])
def test_the_counts_equal_what_torch_counts(concat: int, block: Literal["llama", "dit"]) -> None:
    config = BackboneConfig(
        dim=256, num_layers=3, num_heads=2, ffn_dim=512, concat_channels=concat, attention="sdpa", block=block
    )
    grid = Grid(2, 4, 4)
    with torch.device("meta"):
        backbone = Backbone(config)
        extra = torch.zeros(1, grid.num_tokens, 4 * concat) if concat else None
        mask = torch.ones(1, 7, dtype=torch.bool)
        conditions = Conditions(grid, torch.zeros(1, 7, config.dim), mask, concat=extra)
        noisy, t = torch.zeros(1, grid.num_tokens, config.token_channels), torch.zeros(1)
    with FlopCounterMode(display=False) as counter:
        backbone(noisy, t, conditions)
    assert counter.get_total_flops() == forward_flops(config, grid.num_tokens, 7)
    assert in_matrices_of_blocks(backbone) == block_parameters(config)
