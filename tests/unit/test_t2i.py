"""The paper's text-to-image recipe: a frame-wise autoencoder, 1024 px, and the 30B transformer, all without weights."""

from pathlib import Path

import pytest
import torch
from media_samples import moving

from moviegen import cli
from moviegen.backbone.patchify import patchify
from moviegen.backbone.transformer import Conditions
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.config import build, compose, plain
from moviegen.fields import VIDEO
from moviegen.media import to_png_bytes
from moviegen.tasks.codec_task import CodecTask
from moviegen.types import VideoClip


@pytest.fixture(scope="module")
def recipe() -> dict:
    return compose("train", ["experiments=t2i/paper_1024"])


def test_an_image_of_1024_pixels_is_4096_tokens_of_the_30b_transformer(recipe: dict) -> None:
    codec_recipe = compose("train", ["experiments=codec/paper_image"])
    assert recipe["task"]["codec"]["path"] == f"{codec_recipe['run_dir']}/model"
    with torch.device("meta"):
        codec, backbone = build(codec_recipe["task"]["codec"]), build(recipe["task"]["backbone"])
        latent = codec.encode(VideoClip(torch.empty(1, 3, 1, 1024, 1024), torch.zeros(1)))
        x, grid = patchify(latent.values, backbone.config.patch)
        context, mask = torch.empty(1, 8, backbone.config.dim), torch.ones(1, 8, dtype=torch.bool)
        velocity = backbone(x, torch.zeros(1), Conditions(grid, context, mask))
        image = codec.decode(latent, 1)
    assert latent.values.shape == (1, 16, 1, 128, 128) and grid.num_tokens == 4096
    assert velocity.shape == x.shape == (1, 4096, 64) and image.frames.shape == (1, 3, 1, 1024, 1024)
    assert sum(p.numel() for p in backbone.blocks.parameters()) == pytest.approx(28.99e9, rel=2e-3)
    size = [recipe["sampler"][name] for name in ("num_frames", "height", "width")]
    assert size == [1, 1024, 1024] and codec.grid(*size).num_tokens == 4 * grid.num_tokens


def test_the_joint_transformer_fits_the_recipe_of_images_and_of_quality_tuning(recipe: dict) -> None:
    tuning = compose("train", ["experiments=t2i/paper_quality"])
    assert tuning["task"] == recipe["task"] and tuning["init_from"] == f"{recipe['run_dir']}/model"
    assert (tuning["after"], recipe["after"]) == (recipe["stage"], "stage3")
    assert (tuning["trainer"]["max_steps"], tuning["optimizer"]["lr"], tuning["data"]["batch_size"]) == (
        6000,
        1e-5,
        64,
    )
    assert build(tuning["schedule"])(1999) == 1.0 and build(tuning["schedule"])(999) == 0.5
    joint = compose("train", ["experiments=t2v/paper/stage3"])
    with torch.device("meta"):
        ours, theirs = (build(cfg["task"]["backbone"]).state_dict() for cfg in (recipe, joint))
    assert {n: p.shape for n, p in ours.items()} == {n: p.shape for n, p in theirs.items()}


def test_a_frame_wise_autoencoder_codes_each_frame_alone_and_no_step_of_its_training_inflates_it() -> None:
    cfg = compose("train", ["experiments=codec/paper_image"])
    node = plain(cfg["task"]["codec"]) | {"channels": [8, 8, 8, 8]}
    torch.manual_seed(0)
    codec: TemporalAutoencoder = build(node).eval()
    frames = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        whole = codec.encode(VideoClip(frames, torch.ones(1))).values
        alone = codec.encode(VideoClip(frames[:, :, 3:4], torch.ones(1))).values
    assert whole.shape == (1, 16, 5, 2, 2) and codec.temporal_factor == 1
    torch.testing.assert_close(whole[:, :, 3:4], alone)
    task = CodecTask(codec, image_steps=cfg["task"]["image_steps"])
    assert task.in_image_stage(cfg["trainer"]["max_steps"])


def test_photographs_of_ones_own_become_shards_that_the_recipe_of_images_reads(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture = to_png_bytes(moving(1, 64, 64, seed=number)[0])
        (tmp_path / "photos" / f"{number}.png").write_bytes(picture)
    words = ["source=own_photos", f"sources.own_photos.paths=[{tmp_path / 'photos'}]", "workers=0"]
    words += ["sources.own_photos.licence=CC0-1.0", f"out={tmp_path / 'shards'}"]
    assert cli.main(["data", "build", *words]) == 0
    small = ["data.batch_size=1", "data.num_workers=0", f"paths.shards={tmp_path / 'shards'}"]
    data = build(compose("train", ["experiments=codec/paper_image", *small]).data)
    data.use({"media": VIDEO}, dp_rank=0, dp_size=1)
    assert len(next(iter(data.train_dataloader()))) == 1
    assert [len(batch) for batch in data.val_dataloader()] == [1]
