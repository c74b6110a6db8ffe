"""Edit pairs: forms, readers of public lists, and shards from which editing is trained."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from media_samples import config, moving, read_tars, video_file
from moviegen_data import edit_samples
from moviegen_data.build import build
from moviegen_data.config import PairSource, ToyEditSource
from moviegen_data.edit_lists import list_pairs
from moviegen_data.edit_pairs import animated
from moviegen_data.masks import SamMasks
from moviegen_data.toyworld import World, WorldConfig
from moviegen_data.toyworld.edits import KINDS
from moviegen_data.toyworld.painting import PAINTS, painted
from moviegen_data.toyworld.words import is_held_out
from PIL import Image

from moviegen.conditioning.editing import TaskVector, decode_task
from moviegen.media import decode_video

WORLD = WorldConfig(level=4, size=64, num_frames=8)


def toy(**settings) -> ToyEditSource:
    return ToyEditSource("edits", "train", 4, 0, WORLD, **settings)


def test_training_pairs_show_no_held_out_combination_on_either_side() -> None:
    world = World(WorldConfig(level=4, combos="train"))
    kinds = set()
    for index in range(60):
        pair = world.edit_pair(5, index)
        kinds.add(pair.kind)
        for clip in (pair.before, pair.after):
            for sprite in clip.truth["sprites"]:
                assert not is_held_out(sprite["color"], sprite["shape"], sprite["motion"])
    assert kinds == set(KINDS)


def test_one_motion_moves_both_pictures_and_brings_no_edge_into_view() -> None:
    one = np.full((64, 64, 3), 90, np.uint8)
    other = one.copy()
    other[20:40, 20:40] = 200
    moved = animated((one, other), 8, np.random.default_rng(3))
    assert [clip.shape for clip in moved] == [(8, 64, 64, 3)] * 2
    assert (moved[0] == 90).all()  # no black corners
    again = animated((other, one), 8, np.random.default_rng(3))
    assert np.array_equal(again[0], moved[1])
    centers = [np.argwhere(frame[..., 0] > 150).mean(axis=0) for frame in moved[1]]
    assert np.abs(np.diff(centers, axis=0)).sum() > 1  # it moves


@pytest.mark.parametrize("size", [(64, 64), (36, 64), (64, 36)])
def test_the_widest_motion_brings_no_edge_into_view(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 90, np.uint8)
    for sign in (-1, 1):
        ends = iter([1.15, 0.1 * sign, np.array([0.06, 0.06]), -0.1 * sign])
        rng = cast("np.random.Generator", SimpleNamespace(uniform=lambda *_, ends=ends, **__: next(ends)))
        assert (animated((picture,), 5, rng)[0] == 90).all()


def test_painting_covers_the_mask_and_nothing_else() -> None:
    frames = moving(2, 8, 8)
    mask = np.zeros((2, 8, 8), bool)
    mask[:, 2:4] = True
    after = painted(frames, mask, PAINTS["lime"])
    assert (after[mask] == (0, 255, 0)).all() and np.array_equal(after[~mask], frames[~mask])


def test_toyworld_pairs_become_samples_in_every_form(tmp_path: Path) -> None:
    totals = build(config(tmp_path, edits=toy(forms=("video", "frame", "animate", "segment"), sound=True)))
    samples = read_tars(tmp_path)
    assert totals["samples"] == 4 == len(samples)
    forms = {json.loads(s["json"])["edit"]["form"]: s for s in samples.values()}
    assert set(forms) == {"video", "frame", "animate", "segment"}
    for form, sample in forms.items():
        record = json.loads(sample["json"])
        before, _ = decode_video(sample["source.mp4"])
        after, rate = decode_video(sample["mp4"])
        assert before.shape == after.shape == ((1 if form == "frame" else 8), 64, 64, 3)
        assert np.abs(before.astype(int) - after).max() > 40 and sample["txt"]
        assert record["fps"] == (0.0 if form == "frame" else 8.0) and (form == "frame" or rate == 8.0)
        assert ("truth.json" in sample) == (form == "video") == (record["channels"] == 1)
    assert json.loads(forms["segment"]["json"])["edit"]["task"] == "segment"
    assert build(config(tmp_path, edits=toy(forms=("video", "frame", "animate", "segment"), sound=True)))


def pictures(folder: Path) -> Path:
    """A folder of InstructPix2Pix's form, of one prompt with two seeds."""
    (folder / "0001").mkdir(parents=True)
    (folder / "0001" / "prompt.json").write_text(
        json.dumps({"input": "a", "edit": "make it night", "output": "b"})
    )
    for seed in (7, 8):
        for side in (0, 1):
            picture = Image.fromarray(moving(1, 48, 80, seed + side)[0])
            picture.save(folder / "0001" / f"{seed}_{side}.jpg")
    return folder


def table(folder: Path, columns: tuple[str, ...], *rows: tuple[str, ...]) -> Path:
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_pairs_of_pictures_become_frames_or_moving_frames(tmp_path: Path) -> None:
    source = PairSource(
        "ip2p", "train", str(pictures(tmp_path / "in")), "CC0-1.0", forms=("frame", "animate")
    )
    build(config(tmp_path / "out", ip2p=source))
    samples = read_tars(tmp_path / "out")
    shapes = {key: decode_video(sample["source.mp4"])[0].shape for key, sample in samples.items()}
    assert shapes == {"ip2p-000000-frame": (1, 32, 32, 3), "ip2p-000001-animate": (8, 32, 32, 3)}
    record = json.loads(samples["ip2p-000000-frame"]["json"])
    assert samples["ip2p-000000-frame"]["txt"] == b"make it night"
    assert record["licence"] == "CC0-1.0" and record["edit"] == {"task": "color", "form": "frame"}


def test_a_table_of_videos_in_the_names_that_public_sets_use(tmp_path: Path) -> None:
    for number in range(3):
        video_file(tmp_path / f"{number}_a.mp4", 16, height=40, width=40, seed=number)
        video_file(tmp_path / f"{number}_b.mp4", 16, height=40, width=40, seed=number + 5)
    rows = [(f"{n}_a.mp4", f"{n}_b.mp4", "turn the cat into a dog") for n in range(3)]
    path = table(tmp_path, ("source_path", "edited_path", "instruction"), *rows)
    source = PairSource("ditto", "train", str(path), "CC-BY-4.0", holdout=1)
    build(config(tmp_path / "out", ditto=source))
    splits = [json.loads(s["json"])["split"] for s in read_tars(tmp_path / "out").values()]
    assert sorted(splits) == ["train", "train", "val"]
    lines = [json.dumps({"src": "a.png", "tgt": "b.png", "prompt": "x", "task": "style"})]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert list_pairs(tmp_path / "rows.jsonl")[0].task == "style"


def picture(path: Path, seed: int) -> str:
    """Write a picture of its own; its name."""
    Image.fromarray(moving(1, 40, 40, seed)[0]).save(path)
    return path.name


def told_pairs(folder: Path, *rows: tuple[str, str]) -> str:
    """A table of pairs of pictures with these instructions and names of edits, each of files of its own."""
    pairs = [
        [picture(folder / f"{side}{n}.png", 2 * n + (side == "b")) for side in "ab"] for n in range(len(rows))
    ]
    told = [(*pair, *row) for pair, row in zip(pairs, rows, strict=True)]
    return str(table(folder, ("source", "target", "instruction", "edit_type"), *told))


def dropped(folder: Path) -> list[str]:
    files = json.loads((folder / "outcomes.json").read_text())["files"]
    return [one["detail"] for one in files if one["rule"] == "no task"]


def test_the_task_of_each_sample_is_one_that_training_knows(tmp_path: Path, capsys) -> None:
    path = told_pairs(
        tmp_path,
        ("have it be winter", "global_style"),  # by the name that a public set gives it
        ("turn the cat into a dog", ""),  # by its words
        ("as a van gogh", ""),
        ("let it be night", "freeform"),
        ("have it be noon", "t2v"),
        ("have it be red", "Colour"),
    )
    source = PairSource("ditto", "train", path, "CC-BY-4.0", holdout=1)
    totals = build(config(tmp_path / "out", ditto=source))
    samples = read_tars(tmp_path / "out")
    tasks = {key: decode_task(sample["json"], sample["txt"]) for key, sample in samples.items()}
    names = {0: "style", 1: "replace", 5: "color"}
    assert tasks == {f"ditto-{number:06d}-frame": task for number, task in names.items()}
    assert TaskVector(4).rows(list(tasks.values())).shape == (3, 4)
    assert (
        json.loads(samples["ditto-000005-frame"]["json"])["split"] == "val"
    )  # the last of those that are usable
    assert totals["dropped_by_rule"] == {"no task": 3} and "no task 3" in capsys.readouterr().out
    words, named, video = dropped(tmp_path / "out")
    assert "'as a van gogh' asks for no edit that is known by its words; name its task, one of" in words
    assert named.startswith("'freeform' is the name of no edit task; known are segment, add, remove")
    assert video.startswith("'t2v' is the name of no edit task")


def test_pairs_that_say_no_task_may_have_one_of_their_source(tmp_path: Path) -> None:
    (folder := pictures(tmp_path / "in")).joinpath("0001/prompt.json").write_text('{"edit": "as a van gogh"}')
    with pytest.raises(
        ValueError, match=r"at least 1 pairs.*has 0 with a task of 2, dropped: .*'as a van gogh'"
    ):
        build(config(tmp_path / "none", ip2p=PairSource("ip2p", "train", str(folder), "CC0-1.0")))
    build(config(tmp_path / "out", ip2p=PairSource("ip2p", "train", str(folder), "CC0-1.0", task="style")))
    samples = read_tars(tmp_path / "out").values()
    assert [decode_task(sample["json"], sample["txt"]) for sample in samples] == ["style", "style"]
    with pytest.raises(ValueError, match=r"task must be one of segment, add, .*, not 'painting'"):
        PairSource("x", "train", "pairs.csv", "CC0-1.0", task="painting")


def test_lists_that_lack_something_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, ("source", "target", "instruction"), ("a.mp4", "", "x"))
    with pytest.raises(
        ValueError, match=r"pairs\.csv row 1: has no target; columns may be called target, target_path"
    ):
        list_pairs(path)
    path = table(tmp_path, ("source", "target", "instruction"), ("https://x/a.mp4", "b", "x"))
    with pytest.raises(ValueError, match=r"row 1: https://x/a\.mp4 is a url; only local files are read"):
        list_pairs(path)
    with pytest.raises(ValueError, match="no such table or folder of edit pairs"):
        list_pairs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no edit pairs"):
        list_pairs(tmp_path / "empty")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: not json"):
        list_pairs(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="needs a licence"):
        PairSource("x", "train", "pairs.csv")
    with pytest.raises(ValueError, match="forms must be some of video, frame, animate, segment"):
        toy(forms=("whole",))


def test_pairs_that_do_not_belong_together_are_dropped_by_name(tmp_path: Path) -> None:
    video_file(tmp_path / "a.mp4", 16, height=40, width=40)
    video_file(tmp_path / "small.mp4", 16, height=32, width=40)
    video_file(tmp_path / "fast.mp4", 16, 16.0, height=40, width=40)
    video_file(tmp_path / "b.mp4", 16, height=40, width=40, seed=2)
    rows = [("a.mp4", name, "add an x") for name in ("small.mp4", "fast.mp4", "missing.mp4", "b.mp4")]
    path = table(tmp_path, ("source", "target", "instruction"), *rows)
    totals = build(config(tmp_path / "out", x=PairSource("x", "train", str(path), "CC0-1.0")))
    outcomes = json.loads((tmp_path / "out" / "outcomes.json").read_text())["files"]
    assert totals["samples"] == 1
    details = " ".join(one["detail"] or "" for one in outcomes)
    assert (
        "40x40 and 40x32 pixels" in details and "8 and 16 frames/s" in details and "no such file" in details
    )


def test_things_in_videos_are_painted_by_the_masks_that_a_finder_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Middle:
        """Finds everything but ghosts, in the middle."""

        def find(self, frames: np.ndarray, name: str) -> np.ndarray | None:
            mask = np.zeros(frames.shape[:3], bool)
            mask[:, 8:24, 8:24] = True
            return None if name == "ghost" else mask

    monkeypatch.setattr(edit_samples, "sam_masks", lambda *folders: Middle())
    video_file(tmp_path / "a.mp4", 16, height=40, width=40)
    with (tmp_path / "things.csv").open("w") as file:
        file.write("video,object\na.mp4,ghost\na.mp4,cat\n".replace("video,", "source,"))
    folders = {"detector": "d", "segmenter": "s"}
    source = PairSource(
        "things", "train", str(tmp_path / "things.csv"), "CC0-1.0", forms=("segment",), **folders
    )
    build(config(tmp_path / "out", things=source))
    (sample,) = read_tars(tmp_path / "out").values()
    before, after = (decode_video(sample[name])[0].astype(int) for name in ("source.mp4", "mp4"))
    assert (
        sample["txt"].startswith(b"segment the cat in ")
        and json.loads(sample["json"])["edit"]["task"] == "segment"
    )
    change = np.abs(before - after).max(axis=-1)
    assert change[:, 10:22, 10:22].mean() > 60 and change[:, :4].mean() < 8
    outcomes = json.loads((tmp_path / "out" / "outcomes.json").read_text())["files"]
    assert "shows no ghost that the detector finds" in " ".join(one["detail"] or "" for one in outcomes)
    with pytest.raises(
        ValueError, match=r"forms=\[segment\] stands alone and needs detector= and segmenter="
    ):
        PairSource("things", "train", "x.csv", "CC0-1.0", forms=("segment",))
    with pytest.raises(ValueError, match=r"no config\.json; give a local folder of a transformers model"):
        SamMasks(str(tmp_path), str(tmp_path))
