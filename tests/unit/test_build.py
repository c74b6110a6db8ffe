"""`moviegen data build`: samples, licences, splits, captions, resuming, and nothing half-written."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media_samples import RATE, config, moving, own, read_tars, records, toys, video_file, visible
from moviegen_data import build as builder
from moviegen_data import samples as making
from moviegen_data.build import build
from moviegen_data.config import PhotoSource, parse
from moviegen_data.files import resolve_package
from moviegen_data.toyworld import World
from PIL import Image
from webdataset.writer import TarWriter

from moviegen.config import CONF, UserError, compose, validate
from moviegen.data.shards import ShardError, ShardFolder
from moviegen.media import MediaError, decode_audio, decode_video

FIELDS = {"key", "sha256", "source_sha256", "source", "span", "split", "fps", "frames", "height", "width"} | {
    *("sample_rate_hz", "channels", "licence", "licence_url", "consent", "transforms")
}


def photo_file(path: Path, width: int = 120, height: int = 80) -> Path:
    Image.fromarray(moving(1, height, width)[0]).save(path)
    return path


def test_a_toyworld_sample_is_the_rendered_clip_with_sound_caption_and_truth(tmp_path: Path) -> None:
    totals = build(config(tmp_path, toy=toys(2)))
    samples = read_tars(tmp_path)
    assert totals["samples"] == 2 and totals["captions_missing"] == 0
    sample = samples["toyworld-l1-s0-000001"]
    clip = World(toys().world).render(0, 1)
    frames, frame_rate = decode_video(sample["mp4"])
    assert set(sample) == {"mp4", "txt", "json", "truth.json"}
    assert frames.shape == clip.frames.shape and frame_rate == 8.0
    assert np.abs(frames.astype(int) - clip.frames).mean() < 6
    sound, rate = decode_audio(sample["mp4"])
    assert rate == RATE and sound.shape == clip.audio.shape
    assert sample["txt"].decode() == clip.caption
    assert json.loads(sample["truth.json"])["caption"] == clip.caption


def test_a_toyworld_still_has_neither_a_frame_rate_nor_sound_as_a_photograph(tmp_path: Path) -> None:
    still = toys(1)
    build(config(tmp_path, toy=replace(still, world=replace(still.world, num_frames=1))))
    (sample,) = read_tars(tmp_path).values()
    record = json.loads(sample["json"])
    assert (record["fps"], record["frames"], record["channels"], record["sample_rate_hz"]) == (
        0.0,
        1,
        0,
        None,
    )
    assert record["span"]["stop_seconds"] == 0.0


def test_the_json_of_each_sample_holds_every_field_and_true_hashes(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip one.mp4", 25, 12.0)
    photo = PhotoSource("photos", "train", (str(photo_file(tmp_path / "p.png")),), licence="custom:mine")
    build(config(tmp_path / "out", toy=toys(1), own=own(path), photos=photo))
    samples = read_tars(tmp_path / "out")
    for key, sample in samples.items():
        record = json.loads(sample["json"])
        assert not FIELDS - set(record) and record["key"] == key and "." not in key
        assert record["sha256"] == hashlib.sha256(sample["mp4"]).hexdigest()
        assert decode_video(sample["mp4"])[0].shape == (record["frames"], 32, 32, 3)
    by_source = {json.loads(s["json"])["source"]: json.loads(s["json"]) for s in samples.values()}
    real = by_source["own"]
    assert real["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (real["fps"], real["frames"], real["sample_rate_hz"], real["channels"]) == (8.0, 8, RATE, 1)
    assert real["licence_url"] == "https://spdx.org/licenses/CC0-1.0.html"
    assert [step["op"] for step in real["transforms"]] == ["retime", "resize", "sound", "encode"]
    assert real["span"] == pytest.approx(
        {"start_frame": 12, "stop_frame": 24, "start_seconds": 1.0, "stop_seconds": 2.0}, abs=1e-6
    )
    still = by_source["photos"]
    assert (still["fps"], still["frames"], still["sample_rate_hz"], still["licence_url"]) == (
        0,
        1,
        None,
        None,
    )


def test_the_index_describes_the_tars(tmp_path: Path) -> None:
    build(config(tmp_path, toy=toys(4), held=toys(2, "val", 1, combos="heldout")))
    index = json.loads((tmp_path / "index.json").read_text())
    assert [(s["name"], s["num_samples"]) for s in index["shards"]] == [
        ("train-toyworld-000000.tar", 3),
        ("train-toyworld-000001.tar", 1),
        ("val-toyworld-000000.tar", 2),
    ]
    for shard in index["shards"]:
        data = (tmp_path / shard["name"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(data).hexdigest() and shard["bytes"] == len(data)
        assert (shard["frames"], shard["height"], shard["width"]) == (8, 32, 32)
        assert shard["licences"] == ["Apache-2.0"] and shard["source"] == "toyworld"


def same_samples(one: Path, other: Path) -> bool:
    """Whether two folders hold the same samples. The encoder may choose other bytes for the same frames."""
    pairs = zip(read_tars(one).items(), read_tars(other).items(), strict=True)
    return all(key == other_key and same_sample(a, b) for (key, a), (other_key, b) in pairs)


def same_sample(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    first, second = (json.loads(sample["json"]) | {"sha256": None} for sample in (one, other))
    texts = all(one.get(name) == other.get(name) for name in ("txt", "truth.json"))
    frames = [decode_video(sample["mp4"])[0].astype(int) for sample in (one, other)]
    return texts and first == second and bool(np.abs(frames[0] - frames[1]).mean() < 1)


def test_two_builds_give_the_same_samples_also_with_worker_processes(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4", 24)
    sources = {"toy": toys(4), "own": own(path, crops=2, scales=(1.0, 0.6))}
    build(config(tmp_path / "one", **sources))
    build(replace(config(tmp_path / "two", **sources), workers=2))
    assert visible(tmp_path / "one") == visible(tmp_path / "two")
    assert same_samples(tmp_path / "one", tmp_path / "two")


def test_without_a_licence_no_shard_is_written_and_the_file_is_named(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"clip\.mp4: no licence is stated"):
        build(config(tmp_path / "out", toy=toys(1), own=own(path, licence=None)))
    assert visible(tmp_path / "out") == []


def test_a_csv_gives_captions_and_licences_of_single_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        video_file(tmp_path / f"{name}.mp4", seed=seed)
    table = "file,caption,licence\na.mp4,a moving picture,CC-BY-4.0\nb.mp4,,custom:by letter\n"
    (tmp_path / "captions.csv").write_text(table, encoding="utf-8")
    source = own(tmp_path, captions=str(tmp_path / "captions.csv"), licence=None)
    totals = build(config(tmp_path / "out", own=source))
    assert totals["kept"] == 2 and totals["captions_missing"] == 1
    assert totals["dropped_by_rule"] == {"no licence": 1}
    assert "licence of own, as stated: CC-BY-4.0; custom:by letter" in capsys.readouterr().out
    samples = read_tars(tmp_path / "out")
    captions = {key.split("-")[1]: sample.get("txt") for key, sample in samples.items()}
    assert captions == {"a": b"a moving picture", "b": None}
    assert {r["source_file"]: r["licence"] for r in records(tmp_path / "out")} == {
        "a.mp4": "CC-BY-4.0",
        "b.mp4": "custom:by letter",
    }


def test_captions_come_from_text_files_and_missing_ones_are_counted_not_invented(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("with", "without", "blank", "latin")):
        video_file(tmp_path / f"{name}.mp4", seed=seed)
    (tmp_path / "with.txt").write_text("  waves of\ncolor \n")
    (tmp_path / "blank.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    totals = build(config(tmp_path / "out", own=own(tmp_path)))
    samples = read_tars(tmp_path / "out")
    captions = {key.split("-")[1]: sample.get("txt") for key, sample in samples.items()}
    assert captions == {"with": b"waves of color", "without": None, "blank": None}
    assert totals["captions_missing"] == 2 and totals["dropped_by_rule"] == {"caption": 1}
    assert "captions missing: 2" in capsys.readouterr().out


def test_a_file_or_its_copy_in_two_splits_is_refused(tmp_path: Path) -> None:
    path = video_file(tmp_path / "clip.mp4")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    for other in (path, copy):
        sources = {"one": own(path), "two": own(other, name="other", split="val")}
        with pytest.raises(ValueError, match=r"\.mp4: asked for in two splits, train .* and val"):
            build(config(tmp_path / "out", **sources))
    assert visible(tmp_path / "out") == []


def test_a_toyworld_clip_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clips \[0, 2\) of seed 0 asked for in two splits"):
        build(config(tmp_path, one=toys(4), two=toys(2, "val")))


def test_the_last_usable_file_is_held_out(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        video_file(tmp_path / f"{name}.mp4", seed=seed)
    (tmp_path / "d.mp4").write_bytes(b"")
    build(config(tmp_path / "out", own=own(tmp_path, holdout=1)))
    splits = {(r["source_file"], r["split"]) for r in records(tmp_path / "out")}
    assert splits == {("a.mp4", "train"), ("b.mp4", "train"), ("c.mp4", "val")}
    assert (tmp_path / "out" / "val-own-000000.tar").is_file()


def test_too_few_files_to_hold_one_out_is_an_error_with_both_numbers(tmp_path: Path, capsys) -> None:
    path = video_file(tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match=r"needs at least 2 usable files.* has 1 of 1"):
        build(config(tmp_path / "out", own=own(path, holdout=1)))
    for name in "efghi":
        (tmp_path / f"{name}.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"has 1 of 6; dropped: .* and 2 more, see above"):
        build(config(tmp_path / "out", own=own(tmp_path, holdout=1)))
    said = capsys.readouterr().out
    assert all(f"dropped: {tmp_path}/{name}.mp4: is empty (0 bytes) (empty)" in said for name in "efghi")


def test_where_captions_are_needed_training_files_without_any_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        video_file(tmp_path / f"{name}.mp4", seed=seed)
    (tmp_path / "c.txt").write_text("held out")
    needed = own(tmp_path, holdout=1, captions_needed=True)
    with pytest.raises(ValueError, match=r"none of the 2 files to train on has a caption.*CLIP\.txt"):
        build(config(tmp_path / "out", own=needed))
    assert visible(tmp_path / "out") == []
    (tmp_path / "b.txt").write_text("trained on")
    assert build(config(tmp_path / "out", own=needed))["captions_missing"] == 1


def test_an_empty_folder_a_pattern_without_files_and_urls_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "empty", "the folder .*empty is empty"),
        (tmp_path / "*.mov", "nothing fits the pattern"),
        ("pipe:cat /etc/passwd", "is a url; only local files"),
        ("package:no_such_package/clip.mp4", "no_such_package is not installed"),
    ):
        with pytest.raises(ValueError, match=reason):
            build(config(tmp_path / "out", own=own(path)))
    assert visible(tmp_path / "out") == []


def test_every_file_is_reported_as_kept_retimed_cropped_or_dropped_by_a_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    video_file(folder / "a_plain.mp4", 8)
    video_file(folder / "b_fast.mp4", 24, 24.0, seed=1)
    video_file(folder / "c_wide.mp4", 8, seed=2, width=96)
    video_file(folder / "d_short.mp4", 5, seed=3)
    video_file(folder / "e_small.mp4", 8, seed=4, height=30, width=30)
    video_file(folder / "f_slow.mp4", 8, 4.0, seed=5)
    (folder / "g_copy.mp4").write_bytes((folder / "a_plain.mp4").read_bytes())
    totals = build(config(tmp_path / "out", own=own(folder)))
    assert (totals["kept"], totals["retimed"], totals["cropped"], totals["dropped"]) == (3, 1, 1, 4)
    rules = {"too short": 1, "too small": 1, "low rate": 1, "duplicate": 1}
    assert totals["dropped_by_rule"] == rules
    printed = capsys.readouterr().out
    assert "b_fast.mp4" in printed and "kept, retimed: 1 samples" in printed
    assert "dropped (too small): is too small: 30x30 pixels, the clips have 32x32" in printed
    with (tmp_path / "out" / "outcomes.csv").open() as file:
        rows = {Path(row["file"]).name: (row["result"], row["rule"]) for row in csv.DictReader(file)}
    assert rows["c_wide.mp4"] == ("kept", "") and rows["d_short.mp4"] == ("dropped", "too short")
    stored = json.loads((tmp_path / "out" / "outcomes.json").read_text())
    assert stored["totals"] == totals and len(stored["files"]) == 7


def test_crops_are_inside_the_picture_of_several_sizes_and_the_same_every_time(tmp_path: Path) -> None:
    path = photo_file(tmp_path / "photo.png", 200, 120)
    source = PhotoSource("photos", "train", (str(path),), licence="CC0-1.0", crops=9, scales=(1.0, 0.6, 0.1))
    build(config(tmp_path / "one", photos=source))
    build(config(tmp_path / "two", photos=source))
    crops = [record["transforms"][0] for record in records(tmp_path / "one")]
    assert crops == [record["transforms"][0] for record in records(tmp_path / "two")]
    assert crops[0] == {"op": "crop", "left": 40, "top": 0, "width": 120, "height": 120}
    assert {crop["width"] for crop in crops} == {120, 72, 32}  # never below the clip's own size
    assert all(crop["left"] + crop["width"] <= 200 and crop["top"] + crop["height"] <= 120 for crop in crops)


def test_a_crop_shows_the_part_of_the_picture_that_its_record_names(tmp_path: Path) -> None:
    picture = moving(1, 64, 96)[0]
    Image.fromarray(picture).save(tmp_path / "photo.png")
    paths = (str(tmp_path / "photo.png"),)
    build(config(tmp_path / "out", photos=PhotoSource("p", "train", paths, licence="CC0-1.0", scales=(0.5,))))
    (sample,) = read_tars(tmp_path / "out").values()
    crop = json.loads(sample["json"])["transforms"][0]
    expected = picture[crop["top"] : crop["top"] + 32, crop["left"] : crop["left"] + 32]
    assert np.abs(decode_video(sample["mp4"])[0][0].astype(int) - expected).mean() < 3


def test_a_finished_build_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(config(tmp_path, toy=toys(4)))
    monkeypatch.setattr(builder, "make_plan", lambda *_: pytest.fail("planned again"))
    assert build(config(tmp_path, toy=toys(4))) == first


def test_an_interrupted_build_keeps_its_finished_tars_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, count = making.make, itertools.count()

    def interrupted(*args: object, **kwargs: object) -> making.Outcome:
        if next(count) == 4:
            raise KeyboardInterrupt
        return make(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(builder, "make", interrupted)
        build(config(tmp_path / "out", toy=toys(7)))
    shard = ["train-toyworld-000000.json", "train-toyworld-000000.tar"]
    assert visible(tmp_path / "out") == ["UNFINISHED", *shard]
    with pytest.raises(ShardError, match="is not finished"):
        ShardFolder(tmp_path / "out")
    first = tmp_path / "out" / "train-toyworld-000000.tar"
    written = first.stat().st_mtime_ns
    assert build(config(tmp_path / "out", toy=toys(7)))["samples"] == 7
    assert first.stat().st_mtime_ns == written
    build(config(tmp_path / "whole", toy=toys(7)))
    assert same_samples(tmp_path / "out", tmp_path / "whole")


def test_a_full_disk_stops_the_build_in_one_line_with_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = TarWriter.write, itertools.count()

    def full(self: TarWriter, sample: dict) -> int:
        if next(count) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, sample)

    with monkeypatch.context() as patched:
        patched.setattr(TarWriter, "write", full)
        with pytest.raises(
            MediaError, match=r"train-toyworld-000001\.tar: cannot be written: the disk is full"
        ):
            build(config(tmp_path, toy=toys(5)))
    assert visible(tmp_path) == ["UNFINISHED", "train-toyworld-000000.json", "train-toyworld-000000.tar"]
    assert build(config(tmp_path, toy=toys(5)))["samples"] == 5


def test_shards_of_another_configuration_are_not_mixed_in_or_removed_unasked(tmp_path: Path) -> None:
    build(config(tmp_path, toy=toys(7)))
    before = read_tars(tmp_path)
    with pytest.raises(ValueError, match="holds shards of another configuration"):
        build(config(tmp_path, toy=toys(2, seed=5)))
    assert read_tars(tmp_path) == before
    build(replace(config(tmp_path, toy=toys(2, seed=5)), overwrite=True))
    assert sorted(read_tars(tmp_path)) == ["toyworld-l1-s5-000000", "toyworld-l1-s5-000001"]


def test_a_record_cannot_have_a_file_outside_the_folder_removed(tmp_path: Path) -> None:
    build(config(tmp_path / "out", toy=toys(1)))
    (tmp_path / "thesis.tar").write_text("years of work")
    path = tmp_path / "out" / "train-toyworld-000000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "../thesis.tar"}))
    build(replace(config(tmp_path / "out", toy=toys(1, seed=5)), overwrite=True))
    assert (tmp_path / "thesis.tar").read_text() == "years of work"


def test_a_tar_that_was_lost_is_written_again(tmp_path: Path) -> None:
    build(config(tmp_path, toy=toys(4)))
    kept = (tmp_path / "train-toyworld-000000.tar").read_bytes()
    (tmp_path / "train-toyworld-000001.tar").unlink()
    build(config(tmp_path, toy=toys(4)))
    assert sorted(read_tars(tmp_path)) == [f"toyworld-l1-s0-{index:06d}" for index in range(4)]
    assert (tmp_path / "train-toyworld-000000.tar").read_bytes() == kept


def test_two_sources_with_the_same_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two sources make the sample toyworld-l1-s0-000000"):
        build(config(tmp_path, one=toys(2), two=toys(2)))


def test_the_shipped_configuration_composes_and_names_only_files_that_exist() -> None:
    cfg = compose("data_build", ["source=[toyworld,real,own]", "sources.own.paths=[videos]"], CONF)
    validate(cfg)
    for source in cfg["sources"].values():
        paths = source.get("paths", [])
        assert all(path == "videos" or resolve_package(path).is_file() for path in paths), paths
        assert not paths or paths == ["videos"] or (source["licence"] and source["consent"])


def test_wrong_settings_are_refused_with_the_value(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'sources\.own\.pathz'"):
        validate(
            compose("data_build", ["source=own", "sources.own.paths=[a]", "sources.own.pathz=[b]"], CONF)
        )
    with pytest.raises(ValueError, match="is none of"):
        parse({"_target_": "os.system", "command": "true"})
    for licence in ("all mine!", "none", "NOASSERTION", "unknown", "custom: "):
        with pytest.raises(ValueError, match="neither an SPDX identifier nor custom"):
            own(tmp_path, licence=licence)
    assert own(tmp_path, licence="CC-BY-4.0 AND MIT").licence == "CC-BY-4.0 AND MIT"
    with pytest.raises(ValueError, match=r"scales must lie in \(0, 1\]"):
        own(tmp_path, scales=(1.5,))
    with pytest.raises(ValueError, match="small letters"):
        own(tmp_path, name="a.b")
    with pytest.raises(ValueError, match="even"):
        parse({"_target_": "moviegen_data.config.ClipSpec", "height": 33})
