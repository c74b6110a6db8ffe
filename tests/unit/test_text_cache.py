# ruff: noqa: F811 (a fixture of another file)
"""Features of the paper's three text encoders in shards, and what becomes of captions above an encoder's limit."""

from __future__ import annotations

import io
import json
import logging
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from media_samples import config, read_tars, toys
from moviegen_data.build import build as build_shards
from safetensors.torch import load_file, save_file
from test_text_encoders import MINILM, SIGN, folders, joint  # noqa: F401 (a fixture)

from moviegen import cli
from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.text import JointText, Text
from moviegen.data.module import ShardData, Source
from moviegen.fields import named_features
from moviegen.modelfile import load_task, save_model
from moviegen.tasks.codec_task import CodecTask
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Batch, Grid

GRID = Grid(1, 2, 2)
CODEC = {
    "channels": [8, 8, 8, 8],
    "latent_channels": 4,
    "encoder_blocks": [0, 1, 1, 1],
    "decoder_blocks": [0, 1, 1, 1],
}
FILES = {"text.ul2.npy", "text.metaclip.npy", "text.byt5.npy"}


def words_of(folders: dict[str, str], key: str, *more: str) -> list[str]:
    """Overrides that give the paper's text condition, under a key of a config, the small encoders."""
    each = [f"{key}.parts.{name}.encoder={path}" for name, path in folders.items()]
    return [f"conditioner@{key}=text_paper", *each, *more]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small clips and an untrained codec."""
    folder = tmp_path_factory.mktemp("cache")
    build_shards(config(folder / "shards", toy=toys(4)))
    torch.manual_seed(0)
    node = {"_target_": "moviegen.codec.tae.TemporalAutoencoder", **CODEC}
    task = {"_target_": "moviegen.tasks.codec_task.CodecTask", "codec": node}
    save_model(folder / "tae", CodecTask(TemporalAutoencoder(**CODEC)), task, torch.float32, {})  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def latents(shards: Path, folders: dict[str, str]) -> Path:
    out = shards / "latents"
    words = [
        "encode",
        f"run_dir={out}",
        f"shards={shards / 'shards'}",
        f"model={shards / 'tae'}",
        "num_threads=1",
    ]
    assert cli.main([*words, *words_of(folders, "text")]) == 0
    return out


def array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def test_encode_writes_the_features_of_each_encoder_of_the_caption_behind_its_frame_rate(
    latents, folders
) -> None:
    text = JointText(1, {name: partial(Text, encoder=path, max_tokens=256) for name, path in folders.items()})
    samples = read_tars(latents)
    assert len(samples) == 4
    for sample in samples.values():
        assert set(sample) >= FILES and "text.npy" not in sample
        caption = f"FPS-8 {sample['txt'].decode()}"
        for name in ("ul2", "metaclip"):
            features, mask = text.encoders[name].features([caption])
            written = torch.from_numpy(array(sample[f"text.{name}.npy"])).float()
            torch.testing.assert_close(written, features[0][mask[0]], rtol=2e-3, atol=2e-3)  # float16
        assert array(sample["text.byt5.npy"]).shape == (0, 12)  # nothing stands in quotes
    told = json.loads((latents / "index.json").read_text())["features"]
    assert set(told) == FILES and told["text.byt5.npy"]["quoted_only"]


def flow_task(folders: dict[str, str], cached: bool) -> FlowTask:
    torch.manual_seed(0)
    size = BackboneConfig(32, 2, 2, 48, latent_channels=4, max_frames=2, max_height=2, max_width=2)
    text = {"text": lambda dim: joint(folders, dim=dim, frame_rate_prefix=True, cached=cached)}
    task = FlowTask(Backbone(size), TemporalAutoencoder(**CODEC).eval(), text, cached=True)  # type: ignore[arg-type]
    for parameter in task.backbone.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return task


def test_training_from_the_cache_has_the_losses_of_training_from_captions(latents, folders) -> None:
    losses = []
    for cached in (True, False):
        task = flow_task(folders, cached)
        data = ShardData({"all": Source(str(latents))}, batch_size=3)
        data.use(task.fields)
        batch: Batch = next(iter(data.train_dataloader()))
        assert isinstance(batch.inputs["text"], dict) == cached
        losses.append(task.losses(batch, step=2))
    torch.testing.assert_close(losses[0], losses[1], rtol=2e-3, atol=2e-3)
    assert flow_task(folders, cached=True).text_encoders() == {}  # none runs


def test_a_stage_of_the_paper_trains_from_cached_features_and_its_model_takes_prompts(
    latents,
    shards,
    folders,
    tmp_path,
    capsys,
) -> None:
    small = {"dim": 32, "num_heads": 2, "num_layers": 2, "ffn_dim": 48, "latent_channels": 4, "max_frames": 2}
    words = [
        "train",
        "experiments=t2v/paper/stage1",
        f"run_dir={tmp_path / 'run'}",
        f"paths.latents={latents}",
    ]
    words += [f"task.backbone.config.{name}={value}" for name, value in small.items()]
    words += [
        "data=toy_t2v",
        "~data.val",
        "data.batch_size=2",
        "trainer=cpu",
        "trainer.max_steps=2",
        "num_threads=1",
    ]
    words += [
        "trainer.precision=32-true",
        "loggers.wandb=null",
        f"task.codec.path={shards / 'tae'}",
        "schedule=constant",
        "prompts=[]",
    ]
    key = "task.conditioners.text"
    words += words_of(folders, key, f"{key}.cached=true")
    weights = load_file(shards / "tae.safetensors")
    save_file(weights | {"codec.stats.mean": weights["codec.stats.mean"] + 1}, tmp_path / "other.safetensors")
    (tmp_path / "other.json").write_text((shards / "tae.json").read_text())
    assert cli.main([*words, f"{key}.frame_rate_prefix=false"]) == 2
    assert "the condition text has frame_rate_prefix=False" in capsys.readouterr().err
    for more in ([], ["dry_run=true"]):
        assert cli.main([*words, f"task.codec.path={tmp_path / 'other'}", *more]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{latents} holds latents of the codec {shards / 'tae'}" in error
        assert f"take task.codec.path={shards / 'tae'}" in error and not (tmp_path / "run").exists()
    assert cli.main(words) == 0
    task = load_task(str(tmp_path / "run" / "model"))
    assert isinstance(task, FlowTask)
    text = task.conditioners.named()["text"]
    assert text.reads_features and set(text.field.suffixes) == FILES
    tokens, mask = text(text.features(text.prompts([SIGN], 8.0)), GRID)
    assert tokens.shape[2] == 32 and mask.all()


def test_features_of_several_encoders_are_collated_each_with_its_own_mask_and_travel_to_workers() -> None:
    field = pickle.loads(pickle.dumps(named_features(["a", "b"])))
    assert field.suffixes == ("text.a.npy", "text.b.npy")

    def npy(*shape: int) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.ones(shape, np.float16))
        return buffer.getvalue()

    batch = field.collate([field.decode(npy(3, 4), npy(0, 2)), field.decode(npy(1, 4), npy(0, 2))])
    assert batch["a"][0].shape == (2, 3, 4) and batch["a"][1].sum(1).tolist() == [3, 1]
    assert batch["b"][0].shape == (2, 0, 2) and not batch["b"][1].numel()
    with pytest.raises(ValueError, match=r"letters, digits and _, not 'a\.b'"):
        named_features(["a.b"])


def test_features_of_another_encoder_are_refused_with_both_widths(folders) -> None:
    text = Text(dim=8, encoder=folders["ul2"])
    with pytest.raises(ValueError, match=r"text features are 12 wide, those of .*ul2 are 16"):
        text((torch.zeros(1, 3, 12), torch.ones(1, 3, dtype=torch.bool)), GRID)


def test_captions_that_training_cuts_are_warned_of_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    text = Text(dim=8, encoder=MINILM, max_tokens=8)
    with caplog.at_level(logging.WARNING):
        text(["a red star"], GRID)
        assert not caplog.records
        for _ in range(11):
            text(["a red star moves left over a plain background", "a red star"], GRID)
    assert text.cut.num_read == 23 and text.cut.num_cut == 11
    said = [record.getMessage() for record in caplog.records]
    assert (
        len(said) == 2
        and "max_tokens=8: 1 of 3 captions so far are longer (11 tokens) and cut there" in said[0]
    )
    assert "10 of 21" in said[1]
    caplog.clear()
    text.features(["a red star moves left over a plain background"])  # not from a caption of training
    assert not caplog.records


def test_encode_counts_the_captions_that_one_of_the_encoders_cuts(shards, folders, tmp_path, capsys) -> None:
    words = [
        "encode",
        f"run_dir={tmp_path}",
        f"shards={shards / 'shards'}",
        f"model={shards / 'tae'}",
        "num_threads=1",
    ]
    assert cli.main([*words, *words_of(folders, "text", "text.parts.metaclip.max_tokens=10")]) == 0
    said = "4 captions were longer than ul2=256, metaclip=10, byt5=128 and cut there"
    assert said in capsys.readouterr().out
    for sample in read_tars(tmp_path).values():
        assert json.loads(sample["json"])["caption_tokens_cut"] > 0
        assert len(array(sample["text.metaclip.npy"])) == 10
