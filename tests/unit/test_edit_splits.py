"""Pairs that share a file, or a copy of one, stand in one split; a file in two splits is refused."""

import json
from pathlib import Path

import pytest
from media_samples import config, own, read_tars, video_file, visible
from moviegen_data.build import build
from moviegen_data.config import PairSource
from moviegen_data.splits import together
from test_edit_pairs import picture, table

COLUMNS = ("source", "target", "instruction")


def pairs_of(folder: Path, *pairs: str) -> str:
    """A table of pairs named by two letters, each letter a picture of its own."""
    for letter in {letter for pair in pairs for letter in pair}:
        picture(folder / f"{letter}.png", ord(letter))
    return str(table(folder, COLUMNS, *((f"{a}.png", f"{b}.png", "make it red") for a, b in pairs)))


def splits(folder: Path) -> dict[int, str]:
    """The split of each pair, by its number."""
    found = (json.loads(sample["json"]) for sample in read_tars(folder).values())
    return {int(record["key"].split("-")[1]): record["split"] for record in found}


def source(pairs: str, name: str = "x", **settings) -> PairSource:
    return PairSource(**{"name": name, "split": "train", "pairs": pairs, "licence": "CC0-1.0", **settings})


def test_groups_join_through_others_and_come_by_their_last_member() -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "a"), ("f", "f"), ("d", "g"), ("h", "e")]
    assert together(pairs) == [[3], [1, 4], [0, 2, 5]]
    assert together([]) == []


def test_pairs_of_one_picture_are_held_out_together(tmp_path: Path) -> None:
    build(config(tmp_path / "out", x=source(pairs_of(tmp_path, "ab", "cd", "ef", "ag"), holdout=1)))
    assert splits(tmp_path / "out") == {0: "val", 1: "train", 2: "train", 3: "val"}


def test_a_copy_under_another_name_counts_as_the_file(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, "ab", "cd", "ef", "gh")
    (tmp_path / "h.png").write_bytes((tmp_path / "c.png").read_bytes())
    build(config(tmp_path / "out", x=source(pairs, holdout=1)))
    assert splits(tmp_path / "out") == {0: "train", 1: "val", 2: "train", 3: "val"}


def test_where_all_pairs_share_files_none_can_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source x: holdout 1 would hold all 3 pairs of .*pairs\.csv out"):
        build(config(tmp_path / "out", x=source(pairs_of(tmp_path, "ab", "ac", "cd"), holdout=1)))
    assert visible(tmp_path / "out") == []


def test_a_file_of_a_pair_in_another_split_is_refused(tmp_path: Path) -> None:
    two = source(pairs_of(tmp_path, "ab", "cd"))
    (tmp_path / "other").mkdir()
    other = pairs_of(tmp_path / "other", "ef", "gb")
    with pytest.raises(ValueError, match=r"b\.png: asked for in two splits, train \(source x\) and val"):
        build(config(tmp_path / "out", x=two, y=source(other, "y", split="val")))
    build(config(tmp_path / "out", x=two, y=source(other, "y")))


def test_a_video_of_a_pair_may_not_be_held_out_as_a_video_of_its_own(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        video_file(tmp_path / f"{name}.mp4", 16, height=40, width=40, seed=seed)
    pairs = str(table(tmp_path, COLUMNS, ("a.mp4", "b.mp4", "make it red")))
    held = own(tmp_path / "b.mp4", split="val")
    with pytest.raises(ValueError, match=r"b\.mp4: asked for in two splits"):
        build(config(tmp_path / "out", own=held, x=source(pairs)))


def test_a_missing_file_is_still_dropped_by_name(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path, "ab", "cd")
    (tmp_path / "a.png").unlink()
    totals = build(config(tmp_path / "out", x=source(pairs)))
    assert totals["dropped_by_rule"] == {"missing": 1} and splits(tmp_path / "out") == {1: "train"}
