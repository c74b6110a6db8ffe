"""Shapes, gradients and invariants of the flow transformer."""

import pytest
import torch

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.patchify import patchify, unpatchify
from moviegen.backbone.transformer import Backbone, Conditions
from moviegen.types import Grid

TINY = BackboneConfig(
    dim=32, num_layers=2, num_heads=2, ffn_dim=64, latent_channels=4, max_frames=4, max_height=4, max_width=4
)
GRID = Grid(2, 2, 2)


def conditions(batch: int = 2, keep: tuple[bool, ...] | None = None) -> Conditions:
    torch.manual_seed(1)
    mask = torch.ones(batch, 5, dtype=torch.bool)
    if keep is not None:
        mask = mask & torch.tensor(keep)[:, None]
    return Conditions(GRID, torch.randn(batch, 5, 32), mask)


def trained(config: BackboneConfig = TINY) -> Backbone:
    """A backbone whose zero-initialised layers are random, as after training."""
    torch.manual_seed(0)
    backbone = Backbone(config)
    for parameter in backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return backbone


def test_patchify_and_back_is_the_identity_and_orders_tokens_by_raster() -> None:
    latent = torch.arange(2 * 3 * 2 * 4 * 6, dtype=torch.float32).reshape(2, 3, 2, 4, 6)
    tokens, grid = patchify(latent, (1, 2, 2))
    assert tokens.shape == (2, 2 * 2 * 3, 12) and grid == Grid(2, 2, 3)
    torch.testing.assert_close(unpatchify(tokens, grid, (1, 2, 2)), latent)
    torch.testing.assert_close(tokens[0, 1].view(3, 2, 2), latent[0, :, 0, 0:2, 2:4])


def test_patchify_then_linear_equals_the_papers_strided_convolution() -> None:
    latent, conv = torch.randn(2, 4, 3, 6, 4), torch.nn.Conv3d(4, 8, (1, 2, 2), (1, 2, 2))
    tokens, _ = patchify(latent, (1, 2, 2))
    out = torch.nn.functional.linear(tokens, conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(out, conv(latent).flatten(2).transpose(1, 2))


def test_a_latent_that_does_not_divide_is_refused_with_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5, 4\).*\(1, 2, 2\)"):
        patchify(torch.randn(1, 4, 2, 5, 4), (1, 2, 2))


def test_velocity_has_the_shape_of_its_input_and_every_weight_gets_a_gradient() -> None:
    backbone = trained()
    x = torch.randn(2, 8, TINY.token_channels)
    velocity = backbone(x, torch.rand(2), conditions())
    assert velocity.shape == x.shape
    velocity.square().mean().backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


def test_a_new_backbone_answers_zero() -> None:
    velocity = Backbone(TINY)(torch.randn(2, 8, TINY.token_channels), torch.rand(2), conditions())
    torch.testing.assert_close(velocity, torch.zeros_like(velocity))


def test_samples_do_not_see_each_other_and_padding_is_masked() -> None:
    backbone, x, t = trained(), torch.randn(2, 8, TINY.token_channels), torch.rand(2)
    both = backbone(x, t, conditions())
    full = conditions()
    alone = backbone(x[:1], t[:1], Conditions(GRID, full.context[:1], full.context_mask[:1]))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)
    longer = torch.cat([full.context, torch.randn(2, 3, 32)], dim=1)
    padded = torch.cat([full.context_mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(backbone(x, t, Conditions(GRID, longer, padded)), both, rtol=1e-4, atol=1e-5)


def test_a_sample_that_lost_all_context_is_finite_and_independent_of_it() -> None:
    backbone, x, t = trained(), torch.randn(2, 8, TINY.token_channels), torch.rand(2)
    one = backbone(x, t, conditions(keep=(True, False)))
    lost = conditions(keep=(True, False))
    other = backbone(
        x, t, Conditions(GRID, lost.context * torch.tensor([1.0, -3.0])[:, None, None], lost.context_mask)
    )
    assert one.isfinite().all()
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one[1], backbone(x, t, conditions())[1])


def test_positions_tell_tokens_apart_and_a_grid_beyond_the_tables_is_refused() -> None:
    backbone = trained()
    x = torch.randn(1, 1, TINY.token_channels).expand(1, 8, -1)
    out = backbone(x, torch.rand(1), conditions(1))
    assert out.std(dim=1).max() > 1e-4
    with pytest.raises(ValueError, match="exceeds the learned positions"):
        backbone(
            torch.randn(1, 20, TINY.token_channels),
            torch.rand(1),
            Conditions(Grid(5, 2, 2), torch.randn(1, 5, 32), torch.ones(1, 5, dtype=torch.bool)),
        )


def test_positions_enter_every_layer() -> None:
    backbone, x, t = trained(), torch.randn(2, 8, TINY.token_channels), torch.rand(2)
    whole = backbone(x, t, conditions())
    seen = []
    for block in backbone.blocks:
        hook = block.register_forward_pre_hook(
            lambda _, given: (given[0], torch.zeros_like(given[1]), *given[2:])
        )
        seen.append((backbone(x, t, conditions()) - whole).abs().max())
        hook.remove()
    assert len(seen) > 1 and min(seen) > 1e-4  # each layer misses them


DIT = BackboneConfig(**{**vars(TINY), "block": "dit"})


def test_the_dit_block_has_layer_norm_a_plain_network_and_biases_and_the_llama_block_none_of_them() -> None:
    llama, dit = Backbone(TINY).blocks[0], Backbone(DIT).blocks[0]
    kinds = {name: {type(module).__name__ for module in block.modules()} for name, block in
             (("llama", llama), ("dit", dit))}  # fmt: skip
    assert "LayerNorm" in kinds["dit"] and "RMSNorm" not in kinds["dit"]
    assert "RMSNorm" in kinds["llama"] and "LayerNorm" not in kinds["llama"]
    assert [n for n, _ in llama.named_parameters() if n.endswith("bias")] == []
    with_bias = {n.rpartition(".")[0] for n, _ in dit.named_parameters() if n.endswith("bias")}
    assert {"self_attn.wq", "cross_attn.wo", "ffn.w1", "ffn.w2", "ffn_norm"} <= with_bias
    x = torch.randn(2, 3, TINY.dim)
    w1, w2 = dit.ffn.w1, dit.ffn.w2
    torch.testing.assert_close(dit.ffn(x), w2(torch.nn.functional.silu(w1(x))))


def test_a_dit_backbone_starts_at_zero_and_gives_every_weight_a_gradient() -> None:
    x, t = torch.randn(2, 8, TINY.token_channels), torch.rand(2)
    fresh = Backbone(DIT)(x, t, conditions())
    torch.testing.assert_close(fresh, torch.zeros_like(fresh))
    backbone = trained(DIT)
    backbone(x, t, conditions()).square().mean().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []
    with pytest.raises(ValueError, match="llama or dit, got 'gpt'"):
        BackboneConfig(**{**vars(TINY), "block": "gpt"})


def test_one_and_a_half_times_the_hidden_width_gives_the_dit_block_the_llama_block_s_weights() -> None:
    wide = BackboneConfig(**{**vars(DIT), "ffn_dim": TINY.ffn_dim * 3 // 2})
    matrices = [
        sum(p.numel() for n, p in Backbone(config).blocks[0].named_parameters() if n.endswith("weight") and p.ndim == 2)
        for config in (TINY, wide)
    ]  # fmt: skip
    assert matrices[0] == matrices[1]
