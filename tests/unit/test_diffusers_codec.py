"""Public autoencoders behind the seam, with tiny random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import GENERATOR
from shard_samples import write_tar

pytest.importorskip("diffusers")

from moviegen import cli
from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.codec.diffusers_codec import FAMILIES, DiffusersCodec
from moviegen.codec.seams import compare_tiled
from moviegen.codec.streaming import reconstruct_stream
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.codec.tiling import Tiling, sliding_spans
from moviegen.config import UserError, build, compose
from moviegen.edit_files import edited_frames, kept_frames, read_source
from moviegen.keep import Keep
from moviegen.media import read_clip, write_video
from moviegen.modelfile import load_task, save_model
from moviegen.pixels import from_uint8, to_uint8
from moviegen.runfolder import file_sha256
from moviegen.tasks.flow_task import FlowTask
from moviegen.types import Batch, Latent, VideoClip

TINY = {
    "wan": {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
            "latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
    "hunyuan_video": {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "layers_per_block": 1,
                      "norm_num_groups": 4},
    "cogvideox": {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "layers_per_block": 1,
                  "norm_num_groups": 4},
    "ltx_video": {"block_out_channels": [8, 8, 8, 8], "decoder_block_out_channels": [8, 8, 8, 8],
                  "latent_channels": 8, "layers_per_block": [1, 1, 1, 1, 1],
                  "decoder_layers_per_block": [1, 1, 1, 1, 1]},
    "kl": {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4, "norm_num_groups": 4,
           "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4},
}  # fmt: skip


def codec(kind: str) -> DiffusersCodec:
    torch.manual_seed(0)
    return DiffusersCodec(kind, config=TINY[kind])


def clip(num_frames: int, size: int = 32, batch: int = 1) -> VideoClip:
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand(batch, 3, num_frames, size, size, generator=generator) * 2 - 1
    return VideoClip(frames, torch.full((batch,), 8.0))


@pytest.mark.parametrize("kind", FAMILIES)
def test_clips_of_any_length_keep_their_shape_and_the_latents_have_the_size_of_the_grid(kind: str) -> None:
    model = codec(kind)
    for num_frames in (1, 5, 8, 9):
        given = clip(num_frames)
        latent = model.encode(given)
        cells = model.grid(num_frames, 32, 32)
        assert latent.values.shape[1:] == (model.latent_channels, cells.frames, cells.height, cells.width)
        assert model.decode(latent, num_frames).frames.shape == given.frames.shape
    with pytest.raises(ValueError, match="32x33"):
        model.encode(VideoClip(torch.zeros(1, 3, 1, 32, 33), torch.zeros(1)))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_seam_is_the_library_s_own_encode_and_decode_with_its_pipeline_s_scaling(kind: str) -> None:
    model, given = codec(kind), clip(9)
    latent = model.encode(given)
    with torch.no_grad():
        x = given.frames if kind != "kl" else given.frames[0].transpose(0, 1)
        raw = model.model.encode(x).latent_dist.mode()
        frames = model.model.decode(raw).sample.clamp(-1, 1)
    if kind == "kl":
        raw, frames = raw.transpose(0, 1)[None], frames.transpose(0, 1)[None]
    config = model.model.config
    if kind == "wan":
        mean, std = (torch.tensor(config[f"latents_{name}"]).view(1, -1, 1, 1, 1) for name in ("mean", "std"))
        raw = (raw - mean) / std
    else:
        raw = raw * config["scaling_factor"]
    torch.testing.assert_close(latent.values, raw)
    torch.testing.assert_close(model.decode(latent, 9).frames, frames, rtol=1e-3, atol=1e-4)


def test_a_codec_comes_back_from_its_folder_and_from_a_pipeline_s_and_pickles_are_not_read(
    tmp_path: Path,
) -> None:
    model, given = codec("wan"), clip(5)
    model.model.save_pretrained(tmp_path / "pipeline" / "vae", safe_serialization=True)
    expected = model.encode(given).values
    for path in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        again = DiffusersCodec("wan", path=str(path))
        assert not again.random and torch.equal(again.encode(given).values, expected)
        assert [(row["name"], len(row["sha256"])) for row in again.weights] == [("wan_vae", 64)]
    with pytest.raises(ValueError, match="holds AutoencoderKLWan, not AutoencoderKLLTXVideo"):
        DiffusersCodec("ltx_video", path=str(tmp_path / "pipeline"))
    for file in (tmp_path / "pipeline" / "vae").glob("*.safetensors"):
        torch.save(model.model.state_dict(), file.with_suffix(".bin"))
        file.unlink()
    with pytest.raises(ValueError, match="cannot be loaded as AutoencoderKLWan"):
        DiffusersCodec("wan", path=str(tmp_path / "pipeline"))


def test_a_generator_on_a_public_codec_makes_clips(tmp_path: Path) -> None:
    codec("wan").model.save_pretrained(tmp_path / "vae", safe_serialization=True)
    named = {
        "_target_": "moviegen.codec.diffusers_codec.DiffusersCodec",
        "kind": "wan",
        "path": str(tmp_path / "vae"),
    }
    node = {**GENERATOR, "codec": named}
    save_model(tmp_path / "t2v", build(node), node, torch.float32, {})
    sampler = ["num_frames=5", "height=32", "width=32", "num_steps=1", "schedule=linear"]
    words = [f"model={tmp_path / 't2v'}", f"run_dir={tmp_path / 'out'}", "prompt=a star", "num_threads=1"]
    assert cli.main(["generate", *words, *(f"sampler.{word}" for word in sampler)]) == 0
    card = json.loads((tmp_path / "out" / "00001.json").read_text())
    (weights,) = (tmp_path / "vae").glob("*.safetensors")
    assert card["codec"] == file_sha256(weights)
    assert read_clip(tmp_path / "out" / "00001.mp4").frames.shape == (5, 32, 32, 3)


def test_wrong_settings_are_one_line() -> None:
    with pytest.raises(ValueError, match="either path"):
        DiffusersCodec("wan")
    with pytest.raises(ValueError, match=r"^some/hub-id is no local folder"):
        DiffusersCodec("wan", path="some/hub-id")
    with pytest.raises(ValueError, match="kind must be one of wan"):
        DiffusersCodec("sora", config={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="AutoencoderKLWan cannot be built"):
        DiffusersCodec("wan", config={"widths": 3})


@pytest.mark.parametrize("name", ["wan", "hunyuan_video", "cogvideox", "ltx_video", "kl"])
def test_each_config_of_a_public_codec_composes_and_asks_for_its_folder(name: str) -> None:
    node = compose("train", ["experiments=toy/tae", f"codec@task.codec={name}", "task.codec.path=absent"])
    with pytest.raises((UserError, ValueError), match="absent is no local folder"):
        build(node.task.codec)


def test_a_public_codec_is_the_latent_space_of_a_training_run() -> None:
    from test_tasks import text

    torch.manual_seed(0)
    node = {"_target_": "moviegen.codec.diffusers_codec.DiffusersCodec", "kind": "wan", "config": TINY["wan"]}
    config = BackboneConfig(32, 2, 2, 64, latent_channels=4, max_frames=3, max_height=2, max_width=2)
    task = FlowTask(
        Backbone(config),
        build(node),
        {"text": text},
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    )
    inputs = {"text": (torch.randn(2, 5, 384), torch.ones(2, 5, dtype=torch.bool))}
    batch = Batch(torch.tensor([1, 2]), clip(9, batch=2), inputs)
    optimizer = task.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.losses(batch, step=0, time=0.5).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None for p in task.codec.parameters())
    assert not any(name.startswith("codec") for name in task.state_dict())


def test_the_recipe_trains_the_toy_backbone_on_clips_that_a_public_codec_codes(tmp_path: Path) -> None:
    codec("wan").model.save_pretrained(tmp_path / "vae", safe_serialization=True)
    write_video(tmp_path / "a.mp4", to_uint8(clip(9).frames[0]), 8.0)
    for split in ("train", "val"):
        files = {"mp4": (tmp_path / "a.mp4").read_bytes(), "txt": "a star", "json": b"{}"}
        samples = [{"__key__": f"{split}-{number}", **files} for number in range(2)]
        (tmp_path / "shards").mkdir(exist_ok=True)
        write_tar(tmp_path / "shards" / f"{split}-toyworld-000000.tar", samples)
    run = tmp_path / "run"
    words = ["train", "experiments=codec/toy_t2v_wan", f"task.codec.path={tmp_path / 'vae'}"]
    words += [f"paths.shards={tmp_path / 'shards'}", f"run_dir={run}", "num_threads=1", "loggers.wandb=null"]
    size = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16, "latent_channels": 4}
    words += [f"task.backbone.config.{name}={value}" for name, value in size.items()]
    sampler = {"num_frames": 9, "height": 32, "width": 32, "num_steps": 2}
    words += [f"sampler.{name}={value}" for name, value in sampler.items()]
    words += ["trainer.max_steps=2", "trainer.val_check_interval=2", "callbacks.progress.refresh_rate=0"]
    assert cli.main([*words, "data.batch_size=2", "data.num_workers=0"]) == 0
    assert read_clip(run / "samples" / "step-000002" / "00.mp4").frames.shape == (9, 32, 32, 3)
    node = json.loads((run / "model.json").read_text())["task"]["codec"]
    assert node["kind"] == "wan" and node["path"] == str(tmp_path / "vae")
    trained = load_task(str(run / "model"))
    assert isinstance(trained.codec, DiffusersCodec) and not trained.codec.random


@pytest.mark.parametrize("kind", ["wan", "kl"])
def test_tiles_that_cover_the_clip_equal_the_whole_and_smaller_ones_differ_most_at_seams(kind: str) -> None:
    model, given = codec(kind), clip(9)
    same = compare_tiled(model, given, Tiling(16, 8, None))
    assert same.max_error == 0 and same.psnr == 100.0 and same.seam_psnr is None
    cut = compare_tiled(model, given, Tiling(None, 0, 16, 8))
    assert cut.num_seam_pixels > 0 and cut.max_error >= (cut.seam_max_error or 0) > 0 and cut.psnr < 100


@pytest.mark.parametrize("kind", ["wan", "ltx_video", "kl"])
@pytest.mark.parametrize("num_frames", [5, 16, 17, 40, 83])
def test_a_stream_through_a_public_codec_gives_each_frame_at_its_place(kind: str, num_frames: int) -> None:
    model, tiling = codec(kind), Tiling(16, 8, None)
    given = to_uint8(clip(num_frames).frames[0])
    pairs = list(reconstruct_stream(model, np.array_split(given, max(1, num_frames // 6)), 8.0, tiling))
    assert np.array_equal([source for source, _ in pairs], given)
    first = VideoClip(from_uint8(given)[None, :, :16], torch.tensor([8.0]))
    alone = to_uint8(model.decode(model.encode(first), min(16, num_frames)).frames[0])
    made = np.array([frame for _, frame in pairs])
    clear = slice(0, 8 if num_frames > 16 else 16)  # before the next tile is faded in
    assert np.abs(made[clear].astype(int) - alone[clear]).max() <= 1
    if kind != "kl":  # the last tile, of which at least the last frame is its own
        start = sliding_spans(num_frames, 16, 8)[-1][0]
        last = VideoClip(from_uint8(given[start:])[None], torch.tensor([8.0]))
        end = to_uint8(model.decode(model.encode(last), num_frames - start).frames[0])
        assert np.abs(made[-1].astype(int) - end[-1]).max() <= 1


def test_an_edit_of_more_than_a_tile_keeps_its_frames_through_a_causal_codec(tmp_path: Path) -> None:
    model, tiling = codec("wan"), Tiling(16, 8)
    write_video(tmp_path / "in.mp4", to_uint8(clip(37).frames[0]), 8.0)
    source = read_source(tmp_path / "in.mp4", model, (32, 32), tiling, 100, still=False)
    assert source.latent.shape[2] == model.grid(37, 32, 32).frames
    whole = to_uint8(model.decode(Latent(source.latent, torch.tensor([8.0])), 37).frames[0])
    assert np.array_equal(list(edited_frames(source.latent, source, model, tiling)), whole)
    parts: list[float] = []
    kept = kept_frames(source.latent, source, model, tiling, Keep(low=12, high=32), parts)
    assert np.array_equal(list(kept), read_clip(tmp_path / "in.mp4").frames) and len(parts) == 37


def test_reconstruct_takes_a_public_codec(tmp_path: Path, capsys) -> None:
    codec("wan").model.save_pretrained(tmp_path / "wan", safe_serialization=True)
    write_video(tmp_path / "in.mp4", to_uint8(clip(40).frames[0]), 8.0)
    words = ["reconstruct", f"video={tmp_path / 'in.mp4'}", f"run_dir={tmp_path / 'out'}", "+codec@codec=wan"]
    assert cli.main([*words, f"codec.path={tmp_path / 'wan'}"]) == 0
    assert read_clip(tmp_path / "out" / "out.mp4").frames.shape == (40, 32, 32, 3)
    capsys.readouterr()
    assert cli.main([*words, f"codec.path={tmp_path / 'none'}", f"run_dir={tmp_path / 'no'}"]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'none'} is no local folder of an autoencoder"
    )
    assert not (tmp_path / "no").exists()


def test_seams_of_our_own_codec_are_nothing_before_time_is_mixed_and_lie_where_its_tiles_end() -> None:
    torch.manual_seed(0)
    model = TemporalAutoencoder((8, 8, 8), 4, (1, 1, 1), (1, 1, 1), temporal_levels=2).eval()
    assert compare_tiled(model, clip(24, 16), Tiling(8, 4)).seam_max_error == 0  # as the image autoencoder
    for name, parameter in model.named_parameters():
        if "temporal" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    report = compare_tiled(model, clip(24, 16), Tiling(8, 4))
    assert report.seam_psnr is not None and report.seam_max_error is not None
    assert 0 < report.seam_max_error <= report.max_error and 0 < report.psnr < 100
    with pytest.raises(ValueError, match="multiple of the codec's 4"):
        compare_tiled(model, clip(24, 16), Tiling(6, 3))
