"""Videos of one's own, some without captions, through shards, latents, reconstructions and the judge."""

import json
import tarfile
from pathlib import Path

import pytest
from toy_run import moviegen, note_reads, train_generator

from moviegen.media import write_flac, write_video


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of three videos, one with a caption to train on, two without held out, and of a sound."""
    import numpy as np

    folder = tmp_path_factory.mktemp("own")
    for seed, name in enumerate("abc"):
        frames = (
            np.random.default_rng(seed).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8).repeat(16, axis=0)
        )
        (folder / "videos").mkdir(exist_ok=True)
        write_video(folder / "videos" / f"{name}.mp4", frames, 8.0)
    (folder / "videos" / "a.txt").write_text("colored noise")
    write_flac(folder / "videos" / "hum.flac", np.zeros((1, 96_000), np.float32), 48_000)
    (folder / "videos" / "hum.txt").write_text("a hum")
    moviegen(
        "data", "build", f"out={folder / 'shards'}", "source=own", f"sources.own.paths=[{folder / 'videos'}]",
        "sources.own.licence=CC0-1.0", "sources.own.holdout=2", "workers=0",
    )  # fmt: skip
    return folder


def encode(shards: Path, out: Path, world: dict[str, Path], *more: str) -> None:
    moviegen(
        "encode", f"run_dir={out}", f"shards={shards}", f"model={world['codec']}", "num_threads=1", *more
    )


def test_clips_without_captions_are_left_out_of_the_latents_and_counted(own, world, tmp_path, capsys) -> None:
    for _ in range(2):
        encode(own / "shards", tmp_path, world, "match='*'")
        assert "2 samples without a caption were left out: val-own-000000.tar 2" in capsys.readouterr().out
        index = json.loads((tmp_path / "index.json").read_text())
        assert [shard["name"] for shard in index["shards"]] == ["train-own-000000.tar"]
        lost = json.loads((tmp_path / "outcomes.json").read_text())["files"]
        assert [(one["rule"], one["detail"]) for one in lost] == [("no caption", "val-own-000000.tar")] * 2
    assert [path.name for path in tmp_path.glob("*.tar")] == ["train-own-000000.tar"]


def test_a_caption_longer_than_the_encoder_reads_is_cut_counted_and_marked(
    own, world, tmp_path, capsys
) -> None:
    encode(own / "shards", tmp_path, world, "match='train-*'", "max_tokens=3")
    assert "1 captions were longer than max_tokens=3 and cut there" in capsys.readouterr().out
    with tarfile.open(tmp_path / "train-own-000000.tar") as tar:
        record = next(member for member in tar.getmembers() if member.name.endswith(".json"))
        file = tar.extractfile(record)
        assert file is not None and json.loads(file.read())["caption_tokens_cut"] == 1


def test_latents_of_no_captioned_clip_at_all_are_refused_before_anything_is_written(
    own, world, tmp_path, capsys
) -> None:
    from moviegen import cli

    words = ["encode", f"run_dir={tmp_path / 'out'}", f"shards={own / 'shards'}", f"model={world['codec']}"]
    assert cli.main([*words, "match=val-*"]) == 2
    assert "no sample of 'val-*' has a caption" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_held_out_file_has_figures_of_its_own_beside_the_report(own, world, tmp_path) -> None:
    suffixes: set[str] = set()
    with note_reads(suffixes):
        moviegen(
            "reconstruct", f"run_dir={tmp_path / 'pairs'}", f"shards={own / 'shards'}",
            f"codec={world['codec']}", "num_threads=1",
        )  # fmt: skip
    assert suffixes == {"mp4", "json"}
    moviegen("eval", "judge", f"out={tmp_path / 'judged'}", f"reconstructions={tmp_path / 'pairs'}")
    page = tmp_path / "page" / "report.html"
    moviegen(
        "eval",
        "report",
        f"judged={tmp_path / 'judged'}",
        f"out={page}",
        f"reconstructions={tmp_path / 'pairs'}",
    )
    numbers = (page.parent / "numbers.json").read_bytes()
    assert numbers == (tmp_path / "judged" / "numbers.json").read_bytes()
    assert {"tae/real/psnr", "tae/real/b/psnr", "tae/real/c/psnr"} <= {
        row["name"] for row in json.loads(numbers)
    }
    assert "b.mp4, 64x64" in page.read_text() and "c.mp4, 64x64" in page.read_text()


def test_training_and_encoding_read_no_truth_and_pass_none_on(world, reads, tmp_path) -> None:
    assert reads == {"train": {"mp4"}, "encode": {"mp4", "json", "txt"}}
    seen: set[str] = set()
    with note_reads(seen):
        train_generator(tmp_path / "run", world, 1)
    assert seen == {"latent.npy", "text.npy", "json"}
    with tarfile.open(world["latents"] / "train-toyworld-000000.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None and "truth" not in member.name
            if member.name.endswith(".json"):
                record = json.loads(file.read())
                assert record["fps"] == 8.0 and "origin" not in record
