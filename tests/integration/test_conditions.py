"""Recipes of other inputs than text, and of text encoders, at the smallest size."""

from pathlib import Path

import torch
from toy_run import QUICK, moviegen

from moviegen import cli
from moviegen.conditioning.frames import FRAMES
from moviegen.conditioning.text import load_encoder
from moviegen.data.shards import ShardFolder
from moviegen.fields import VIDEO
from moviegen.modelfile import load_codec, load_task, read_info
from moviegen.types import VideoClip

STEPS = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.batch_size=4", "schedule=constant"]


def test_the_i2v_recipe_trains_from_the_shipped_weights_on_encoded_frames(
    world: dict[str, Path], tmp_path: Path
) -> None:
    latents, run = tmp_path / "latents", tmp_path / "run"
    words = [f"shards={world['shards']}", "num_threads=1", "precision=float32"]
    moviegen("encode", f"run_dir={latents}", *words, "frames=[0,-1,0]", "frame_rate_prefix=true")
    shard, source = (
        next(s for s in ShardFolder(f).shards if s.split == "val") for f in (latents, world["shards"])
    )
    sample = shard.read(0, FRAMES.suffixes)
    alone, places, clip = FRAMES.decode(*(sample.files[suffix] for suffix in FRAMES.suffixes))
    assert places == [0, 15] and alone.shape == (2, 16, 8, 8) and clip.shape == (16, 2, 8, 8)
    frames = VIDEO.collate([VIDEO.decode(source.read(0, ("mp4",)).files["mp4"])]).frames
    with torch.no_grad():
        codec = load_codec("experiments/toy/weights/tae")
        last = codec.encode(VideoClip(frames[:, :, -1:], torch.zeros(1))).values[0, :, 0]
    torch.testing.assert_close(torch.from_numpy(alone[1]).float(), last, rtol=1e-2, atol=1e-2)
    words = [f"run_dir={run}", f"paths.latents={latents}", "trainer.precision=32-true", "sampler.num_steps=2"]
    assert cli.main(["train", "experiments=toy/i2v", *words, *STEPS]) == 2  # FPS-8 is in the features alone
    words += ["task.conditioners.text.frame_rate_prefix=true"]
    moviegen("train", "experiments=toy/i2v", *words, *STEPS, "optimizer.dtype=float32", *QUICK)
    info = read_info(str(run / "model"))
    assert info["coded_frames"] == [0, 15] and info["height"] == info["width"] == [64.0, 64.0]
    trained = load_task(str(run / "model"))
    assert trained.backbone.embed.weight[:, 64:].any()
    assert sorted(path.name for path in run.glob("samples/*/*.mp4")) == ["00.mp4", "01.mp4"]
    words = [f"run_dir={tmp_path / 'x'}", f"shards={world['shards']}", "num_threads=1", "frames=[16]"]
    assert cli.main(["encode", *words]) == 2


def test_the_toy_clip_recipe_leaves_an_encoder_that_text_conditions_load(
    world: dict[str, Path], tmp_path: Path
) -> None:
    first, long = tmp_path / "first", tmp_path / "long"
    small = ["task.sizes.text_cfg.layers=1", "task.sizes.vision_cfg.layers=1", "trainer.precision=32-true"]
    words = ["train", "experiments=text/clip_toy", f"paths.shards={world['shards']}", *STEPS, *QUICK]
    moviegen(*words, f"run_dir={first}", *small)
    assert load_encoder(str(first / "clip"), 77).model.positional_embedding.shape == (77, 96)
    stretch = [
        "task.sizes=null",
        f"task.clip={first / 'clip'}",
        "task.context_length=256",
        "task.train_images=false",
    ]
    moviegen(*words, f"run_dir={long}", *stretch, "trainer.precision=32-true")
    features, _ = load_encoder(str(long / "clip"), 256)(["a red star " * 60])
    assert features.shape == (1, 182, 96) and features.isfinite().all()
