# ruff: noqa: F811 (fixtures of other files)
"""`moviegen encode` of clips: in tiles where they are long or large, and what makes it encode a shard again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from media_samples import read_tars
from safetensors.torch import load_file, save_file
from shard_samples import write_tar
from test_text_cache import shards  # noqa: F401 (a fixture)
from test_text_encoders import folders  # noqa: F401 (a fixture)

from moviegen import cli, runfolder
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.conditioning.text import Text
from moviegen.data.shards import ShardError, ShardFolder
from moviegen.fields import VIDEO
from moviegen.latents import features_note
from moviegen.types import VideoClip


def encode(shards: Path, source: Path, out: Path, encoder: str, *more: str) -> int:
    words = [f"run_dir={out}", f"shards={source}", f"model={shards / 'tae'}", f"encoder={encoder}"]
    return cli.main(["encode", *words, "num_threads=1", *more])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the frames that the codec is given."""
    shapes: list[tuple[int, ...]] = []
    real = TemporalAutoencoder.encode

    def spy(codec: TemporalAutoencoder, clip: VideoClip):
        shapes.append(tuple(clip.frames.shape))
        return real(codec, clip)

    monkeypatch.setattr(TemporalAutoencoder, "encode", spy)
    return shapes


def test_large_clips_are_coded_in_tiles_one_clip_at_a_time_and_small_ones_as_a_batch(
    shards, folders, tmp_path, seen, capsys
) -> None:
    def run(*more: str) -> int:
        return encode(shards, shards / "shards", tmp_path / "out", folders["ul2"], "frames=[0]", *more)

    assert run("tiling.size=100") == 2
    assert "tiling.size must be a multiple of the codec's 8, got 100" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("tiling.frames=null") == 0
    whole = read_tars(tmp_path / "out")
    assert run() == 0  # the clips have 8 frames: no tile is larger
    assert read_tars(tmp_path / "out") == whole
    assert set(seen) == {(n, 3, frames, 32, 32) for n in (1, 3) for frames in (1, 8)}
    seen.clear()
    assert run("tiling.size=16", "tiling.size_overlap=8") == 0
    assert set(seen) == {(1, 3, frames, 16, 16) for frames in (1, 8)} and read_tars(tmp_path / "out") != whole


def test_long_clips_are_coded_in_tiles_of_time(shards, folders, tmp_path, seen, monkeypatch) -> None:
    decode = VIDEO.decode
    long = lambda data: (decode(data)[0].repeat(5, axis=0), 8.0)  # noqa: E731 (40 frames)
    monkeypatch.setattr("moviegen.encode.VIDEO", replace(VIDEO, decode=long))
    assert encode(shards, shards / "shards", tmp_path, folders["ul2"]) == 0
    assert set(seen) == {(1, 3, frames, 32, 32) for frames in (32, 8)} and len(seen) == 8


def test_another_encoder_at_the_same_path_encodes_again(shards, folders, tmp_path, seen) -> None:
    tower = tmp_path / "tower"
    shutil.copytree(folders["ul2"], tower)
    out = tmp_path / "out"
    assert encode(shards, shards / "shards", out, str(tower)) == 0
    first = read_tars(out)
    weights = tower / "model.safetensors"
    finetuned = {name: value + 0.1 for name, value in load_file(weights).items()}
    save_file(finetuned, weights, metadata={"format": "pt"})
    assert encode(shards, shards / "shards", out, str(tower)) == 0
    again = read_tars(out)
    for key, sample in again.items():
        assert sample["text.npy"] != first[key]["text.npy"]
        assert sample["latent.npy"] == first[key]["latent.npy"]
    told = json.loads((out / "index.json").read_text())["features"]
    assert told == features_note(Text(1, str(tower)))["features"]
    seen.clear()
    assert encode(shards, shards / "shards", out, str(tower)) == 0 and not seen


def test_what_is_broken_off_vouches_for_nothing(shards, folders, tmp_path, monkeypatch, capsys) -> None:
    """Recipe A, then B interrupted between its tar and the record of it, then A again."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(shards / "shards", source)
    assert encode(shards, source, out, folders["ul2"]) == 0
    first, real = read_tars(out), runfolder.file_sha256

    def interrupted(path: Path) -> str:
        if Path(path).suffix == ".tar" and Path(path).parent == out:
            raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr("moviegen.encode.runfolder.file_sha256", interrupted)
        assert encode(shards, source, out, folders["ul2"], "max_tokens=2") == 130
    assert read_tars(out) != first
    with pytest.raises(ShardError, match="is not finished"):
        ShardFolder(out)
    assert encode(shards, source, out, folders["ul2"]) == 0
    assert read_tars(out) == first and ShardFolder(out).shards


def test_a_replaced_tar_without_an_index_is_encoded_again(shards, folders, tmp_path, seen) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()

    def write(caption: str) -> None:
        samples = read_tars(shards / "shards").items()
        found = [{"__key__": key, **sample, "txt": caption} for key, sample in samples]
        write_tar(source / "train-toyworld-000000.tar", found)

    for caption in ("a red star", "a blue star"):
        write(caption)
        assert encode(shards, source, out, folders["ul2"]) == 0
        assert {sample["txt"] for sample in read_tars(out).values()} == {caption.encode()}
    seen.clear()
    os.utime(source / "train-toyworld-000000.tar", (0, 0))  # the same content at another time
    assert encode(shards, source, out, folders["ul2"]) == 0 and not seen
