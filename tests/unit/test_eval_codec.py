"""`moviegen eval codec` on tiny codecs: figures, table, motion, real files, and errors that write nothing."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from media_samples import moving, video_file
from model_samples import CODEC
from moviegen_data.toyworld import World
from moviegen_eval.codec import CodecScores, codec
from moviegen_eval.codec_figures import codec_figures
from moviegen_eval.config import CodecEvalConfig, parse_config
from moviegen_eval.numbers import read_numbers
from moviegen_eval.sources import SourceClip, crop, motion_bin, temporal_information, write_sources
from odd_samples import rotate, sixteen_bits
from test_eval_codec_metrics import Script

from moviegen import cli, roundtrip
from moviegen.config import build, compose
from moviegen.media import Limits, MediaError, read_clip, reading, to_png_bytes
from moviegen.modelfile import save_model

WAN = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
WAN |= {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
ROOT = Path(__file__).resolve().parents[2]
OURS = {
    "_target_": "moviegen.codec.tae.TemporalAutoencoder",
    "channels": [8, 8, 8],
    "latent_channels": 4,
    "encoder_blocks": [1, 1, 1],
    "decoder_blocks": [1, 1, 1],
    "temporal_levels": 2,
}


def settings(out: Path, **changed) -> dict:
    values = {
        "out": str(out),
        "codecs": {"ours": OURS},
        "toyworld_images": 2,
        "toyworld_clips": 1,
        "durations_seconds": [2.0, 2.5],
        "toyworld_size": 32,
        "tiling": {"frames": 8, "frames_overlap": 4, "size": 16, "size_overlap": 8},
        "vmaf": False,
        "seam_clips": 1,
        "num_threads": 1,
        "bootstrap_count": 100,
        "frechet_bootstrap": 5,
    }
    return values | changed


def test_several_codecs_are_scored_on_the_same_clips_by_one_command(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    torch.jit.script(Script()).save(str(tmp_path / "i3d.pt"))
    video_file(tmp_path / "real.mp4", num_frames=17, height=40, width=70)
    (tmp_path / "photo.png").write_bytes(to_png_bytes(moving(1, 48, 48)[0]))
    wan = {"_target_": "moviegen.codec.diffusers_codec.DiffusersCodec", "kind": "wan", "config": WAN}
    files = {"videos": [str(tmp_path / "real.mp4")], "images": [str(tmp_path / "photo.png")]}
    out = tmp_path / "out"
    made = settings(out, codecs={"ours": OURS, "wan": wan}, weights={"i3d_fvd": str(tmp_path / "i3d.pt")})
    codec(made | files)
    figures = {figure.name: figure for figure in read_numbers(out / "numbers.json")}
    for name in ("ours", "wan"):
        for group, n in (("image", 3), ("video", 3), ("video_2s", 1), ("video_2.5s", 1), ("video_real", 1)):
            assert figures[f"codec/{name}/{group}/psnr"].n == n
            assert 0 < figures[f"codec/{name}/{group}/psnr"].value < 60
        assert figures[f"codec/{name}/video/rfvd"].n == 3 and f"codec/{name}/image/rfvd" not in figures
        assert figures[f"codec/{name}/seams/seam_psnr"].value <= 100
        assert figures[f"codec/{name}/video/psnr_frame"].low is not None
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for row in rows:
        assert len(row["frames"]["psnr"]) == row["num_frames"]
        assert np.mean(row["frames"]["ssim"]) == pytest.approx(row["scores"]["ssim"], abs=1e-4)
    facts = json.loads((out / "facts.json").read_text())
    assert facts["weights"][0]["manifest"].startswith("unknown") and len(facts["weights"][0]["sha256"]) == 64
    assert facts["skipped"]["vmaf"] == "vmaf=false" and "weights.alexnet" in facts["skipped"]["lpips"]
    table = (out / "table.md").read_text()
    assert "| wan |" in table and "random weights" in table and "tiled against whole" in table
    assert not (out / "clips").exists()


def test_temporal_information_is_the_spread_of_the_luma_difference() -> None:
    clip = np.full((3, 8, 8, 3), 100, np.uint8)
    assert temporal_information(clip) == 0 == temporal_information(clip[:1])
    clip[1, :4] += 20  # half of the pixels by 20: a spread of 10, there and back
    assert temporal_information(clip) == pytest.approx(10, rel=1e-5)
    config = CodecEvalConfig("out", {"a": "b"}, motion_slow=2.0, motion_fast=10.0)
    assert [motion_bin(m, config) for m in (1.9, 2.0, 9.9, 10.0)] == ["static", "slow", "slow", "fast"]


def test_real_files_are_cut_to_what_every_codec_takes_and_toyworld_to_the_length_asked_for(
    tmp_path: Path,
) -> None:
    config = CodecEvalConfig(
        str(tmp_path), {"a": "b"}, toyworld_clips=1, durations_seconds=[2.0, 8.0], max_size=64
    )
    clips = write_sources(config, tmp_path)
    assert [(c.num_frames, c.groups[1]) for c in clips] == [(16, "video_2s"), (64, "video_8s")]
    assert crop(np.zeros((1, 100, 50, 3), np.uint8), config, "x").shape == (1, 64, 32, 3)
    with pytest.raises(MediaError, match="x: 50x20 has no room for 32 pixels"):
        crop(np.zeros((1, 20, 50, 3), np.uint8), config, "x")
    with pytest.raises(ValueError, match="no clips"):
        write_sources(CodecEvalConfig(str(tmp_path), {"a": "b"}), tmp_path)


def test_toyworld_clips_are_of_combinations_and_of_a_series_that_nothing_trains_on(
    tmp_path: Path, monkeypatch
) -> None:
    words = [
        f"out={tmp_path}",
        "+codecs.a=b",
        "toyworld_images=2",
        "toyworld_clips=1",
        "durations_seconds=[2.0]",
    ]
    config = parse_config(CodecEvalConfig, compose("codec_eval", words), "codec")
    rendered, render = set(), World.render

    def noted(world: World, seed: int, index: int):
        rendered.add((world.config.combos, seed))
        return render(world, seed, index)

    monkeypatch.setattr(World, "render", noted)
    write_sources(config, tmp_path)
    assert rendered == {("heldout", config.toyworld_seed)}
    files = [yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "source").glob("*.yaml")]
    known = {node["seed"] for file in files for node in file.values() if "seed" in node}
    texts = [
        path for path in (ROOT / "experiments").rglob("*") if path.suffix in (".yaml", ".md", ".py", ".sh")
    ]
    texts += (ROOT / "conf" / "stages").glob("*.yaml")
    for path in texts:
        known |= {int(seed) for seed in re.findall(r"sources\.\w+\.seed=(\d+)", path.read_text())}
    assert {0, 1, 3} <= known and config.toyworld_seed not in known


def test_a_real_video_is_read_in_chunks_up_to_max_frames_or_its_end(tmp_path: Path, monkeypatch) -> None:
    whole = read_clip(video_file(tmp_path / "long.mp4", num_frames=40, height=96, width=128)).frames
    video_file(tmp_path / "short.mp4", num_frames=5, height=64, width=64)
    limits = Limits(max_bytes=16 * 96 * 128 * 3 + 1000)  # of a chunk; all 40 frames are more
    monkeypatch.setattr(reading, "Limits", lambda: limits)
    with pytest.raises(MediaError, match="decodes to more than"):
        read_clip(tmp_path / "long.mp4")
    paths = [str(tmp_path / f"{name}.mp4") for name in ("long", "short")]
    for most, counts in ((None, [40, 5]), (20, [20, 5]), (16, [16, 5])):
        config = CodecEvalConfig(str(tmp_path), {"a": "b"}, videos=paths, max_frames=most, max_size=64)
        clips = write_sources(config, tmp_path / "out")
        assert [(clip.num_frames, clip.frame_rate) for clip in clips] == [(count, 8.0) for count in counts]
        assert np.array_equal(np.load(clips[0].path), whole[: counts[0], 16:80, 32:96])
    with pytest.raises(ValueError, match="max_frames must be at least 1 or null, got 0"):
        CodecEvalConfig(str(tmp_path), {"a": "b"}, max_frames=0)


def test_what_reading_a_real_file_loses_is_told_or_refused(tmp_path: Path, capsys) -> None:
    video = rotate(video_file(tmp_path / "phone.mp4", num_frames=4, height=64, width=96), 90)
    make = partial(CodecEvalConfig, str(tmp_path), {"a": "b"})
    (clip,) = write_sources(make(videos=[str(video)]), tmp_path)
    assert np.load(clip.path).shape == (4, 96, 64, 3)
    assert f"{video}: turned by 270 degrees" in capsys.readouterr().out
    (tmp_path / "deep.png").write_bytes(sixteen_bits(64, 64))
    with pytest.raises(MediaError, match=r"deep\.png: has 16 bits a channel"):
        write_sources(make(images=[str(tmp_path / "deep.png")]), tmp_path)


@pytest.mark.parametrize("lengths", [(1, 3), (3, 1)])
def test_a_video_of_one_frame_beside_another_counts_where_it_can(tmp_path: Path, lengths) -> None:
    config = CodecEvalConfig(str(tmp_path), {"a": "b"}, bootstrap_count=100)
    clips = [SourceClip(str(n), tmp_path, 8.0, n, ("video_real",), 0.0) for n in lengths]
    scores = CodecScores(result={"seams": {}}, features={str(n): {} for n in lengths})
    scores.clips = {"1": {"psnr": 20.0}, "3": {"psnr": 30.0, "psnr_frame": 31.0}}
    figures = {figure.name: figure for figure in codec_figures(config, clips, {"a": scores})}
    psnr, of_frames = (figures[f"codec/a/video_real/{name}"] for name in ("psnr", "psnr_frame"))
    assert (psnr.value, psnr.n, of_frames.value, of_frames.n) == (25.0, 2, 31.0, 1)


@pytest.mark.parametrize(
    ("changed", "hint"),
    [
        ({"codecs": {}}, "no codecs"),
        ({"codecs": {"a/b": "x"}}, "'a/b' cannot name a codec"),
        ({"codecs": {"ours": "no/such/model"}}, "codec ours: no model at no/such/model"),
        ({"weights": {"alexnet": "absent.pth"}}, "weights.alexnet=absent.pth: no such file"),
        ({"precision": "half"}, "precision"),
        ({"videos": ["absent.mp4"]}, "absent.mp4: no such file"),
    ],
)
def test_what_is_wrong_is_one_line_and_no_figures_are_written(
    tmp_path: Path, changed: dict, hint: str
) -> None:
    small = {"toyworld_images": 1, "toyworld_clips": 0}
    with pytest.raises(ValueError) as caught:
        codec(settings(tmp_path / "out", **(small | changed)))
    assert hint in str(caught.value) and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_worker_refuses_tiles_that_do_not_fit_before_it_reads_a_clip(tmp_path: Path, capsys) -> None:
    job = {"codec": OURS, "clips": [{"key": "a", "path": "absent.npy", "frame_rate": 8.0}], "seam_clips": []}
    job |= {"out": str(tmp_path / "out"), "max_whole_frames": 8, "tiling": {"frames": 6, "frames_overlap": 3}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert roundtrip.main([str(tmp_path / "job.json")]) == 2
    error = capsys.readouterr().err
    assert "tiling.frames must be a multiple of the codec's 4, got 6" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_clips_longer_than_the_limit_are_reconstructed_in_tiles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", moving(20, 16, 16))
    job = roundtrip.Job(
        codec=OURS,
        clips=[{"key": "a", "path": str(tmp_path / "a.npy"), "frame_rate": 8.0}],
        out=str(tmp_path / "out"),
        seam_clips=["a"],
        tiling={"frames": 8, "frames_overlap": 4, "size": None},
        max_whole_frames=8,
    )
    result = roundtrip.run(job)
    assert np.load(tmp_path / "out" / "a.npy").shape == (20, 16, 16, 3)
    assert result["seams"]["a"]["num_seam_pixels"] > 0 and result["temporal_factor"] == 4


def test_a_codec_without_trained_weights_is_told_from_one_that_a_node_reads(tmp_path: Path) -> None:
    save_model(tmp_path / "tae", build(CODEC), CODEC, torch.float32, {})
    node = {"_target_": "moviegen.modelfile.load_codec", "path": str(tmp_path / "tae")}
    told = {}
    for name, given in (("settings", OURS), ("node", node), ("path", str(tmp_path / "tae"))):
        tiling = {"frames": 8, "frames_overlap": 4}
        job = roundtrip.Job(given, [], str(tmp_path / name), [], tiling, max_whole_frames=8)
        told[name] = roundtrip.run(job)["random_weights"]
    assert told == {"settings": True, "node": False, "path": False}


def test_the_command_line_takes_a_model_and_a_public_codec_by_name(tmp_path: Path, capsys) -> None:
    words = [f"out={tmp_path / 'out'}", "+codecs.ours=experiments/toy/weights/tae", "+codec@codecs.wan=wan"]
    assert cli.main(["eval", "codec", *words, "codecs.wan.path=x", "--cfg"]) == 0
    shown = capsys.readouterr().out
    assert "kind: wan" in shown and "path: x" in shown and "ours: experiments/toy" in shown
    assert cli.main(["eval", "codec", *words[:1], "codecs.a={_target_:os.system}"]) == 2
    assert "is not on the allow-list" in capsys.readouterr().err
