"""Files that hold sound and no picture: flac samples in tars of their own, out of the way of video models."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from media_samples import RATE, config, own, read_tars, tone, video_file
from moviegen_data.build import build

from moviegen.data.shards import ShardFolder
from moviegen.media import MediaError, decode_audio, read_sound, write_flac, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, a sound of 2.6 seconds with a caption, a second one, and one that is too short."""
    videos = tmp_path / "videos"
    for seed, name in enumerate("ab"):
        video_file(videos / f"{name}.mp4", seed=seed)
    write_flac(videos / "rain.flac", tone(2.6, 440.0, channels=2), RATE)
    (videos / "rain.txt").write_text("a steady tone")
    write_flac(videos / "wind.flac", tone(1.2, 220.0), RATE)
    write_flac(videos / "z_click.flac", tone(0.3), RATE)
    return videos


def test_a_file_of_sound_alone_becomes_flac_samples_with_the_same_record(
    folder: Path, tmp_path: Path
) -> None:
    build(config(tmp_path / "out", own=own(folder, span_step_seconds=0.5)))
    samples = read_tars(tmp_path / "out", "train_sound-own-*.tar")
    rain = {key: sample for key, sample in samples.items() if "rain" in key}
    assert [key.split("-")[-2] for key in rain] == ["000000", "000500", "001000", "001500"]
    for sample in rain.values():
        assert set(sample) == {"flac", "json", "txt"} and sample["txt"] == b"a steady tone"
        record = json.loads(sample["json"])
        assert record["sha256"] == hashlib.sha256(sample["flac"]).hexdigest()
        assert (record["sample_rate_hz"], record["channels"], record["split"]) == (RATE, 1, "train")
        assert (record["fps"], record["frames"], record["height"], record["width"]) == (0, 0, 0, 0)
        assert record["licence"] == "CC0-1.0" and record["source_file"] == "rain.flac"
        sound, rate = decode_audio(sample["flac"])
        begin = round(record["span"]["start_seconds"] * RATE)
        assert rate == RATE and sound.shape == (1, RATE)
        assert np.abs(sound - tone(2.6)[:, begin : begin + RATE]).max() < 1e-4


def test_the_printed_table_says_what_became_of_sounds(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    totals = build(config(tmp_path / "out", own=own(folder)))
    lines = capsys.readouterr().out.splitlines()
    assert any("rain.flac" in line and line.endswith("kept, sound only: 2 samples") for line in lines)
    assert any("wind.flac" in line and "sound only: 1 samples, no caption" in line for line in lines)
    assert any(
        "z_click.flac" in line and "dropped (too short): is too short: 0.3 s of sound" in line
        for line in lines
    )
    assert "sound only: 2 (flac, in tars of their own; not for video models)" in lines
    assert (totals["kept"], totals["sound_only"], totals["dropped"]) == (4, 2, 1)


def test_what_reads_pictures_never_meets_a_sound(folder: Path, tmp_path: Path) -> None:
    build(config(tmp_path / "out", own=own(folder, holdout=1)))
    shards = ShardFolder(tmp_path / "out")
    for split, video in (("train", "a.mp4"), ("val", "b.mp4")):
        (samples,) = shards.sets(split)
        files = {json.loads(shard.read(row, ["json", "mp4"]).files["json"])["source_file"]
                 for shard, row in map(samples.find, range(len(samples)))}  # fmt: skip
        assert files == {video}
    names = {shard.path.name: shard.split for shard in shards.shards}
    assert names["train_sound-own-000000.tar"] == "train_sound"
    assert names["val_sound-own-000000.tar"] == "val_sound"


def test_a_folder_of_sounds_alone_is_built(tmp_path: Path) -> None:
    write_flac(tmp_path / "sounds" / "a.flac", tone(1.0), RATE)
    write_flac(tmp_path / "sounds" / "b.flac", tone(1.0, 220.0), RATE)
    assert build(config(tmp_path / "out", own=own(tmp_path / "sounds", holdout=1)))["sound_only"] == 2
    with pytest.raises(ValueError, match=r"needs at least 3 usable files.* has 2 of 2"):
        build(config(tmp_path / "other", own=own(tmp_path / "sounds", holdout=2)))


def test_sound_of_a_file_without_any_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "mute.mp4", np.zeros((8, 32, 32, 3), np.uint8), 8.0)
    with pytest.raises(MediaError, match=r"mute\.mp4: holds no sound"):
        read_sound(tmp_path / "mute.mp4", 0.0, 1.0)
