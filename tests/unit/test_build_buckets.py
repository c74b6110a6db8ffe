"""`moviegen data build buckets=...`: which bucket a file goes to, shards of one bucket each, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media_samples import config, own, records, video_file, visible
from moviegen_data.buckets import choose
from moviegen_data.build import build
from moviegen_data.config import BucketSpec, BuildConfig, ClipSpec, DurationSpec, PhotoSource, parse
from PIL import Image

from moviegen.config import compose, plain, validate
from moviegen.data.buckets import BucketTable, select
from moviegen.data.shards import ShardFolder
from moviegen.media import MediaError

SPEC = BucketSpec(
    sizes=((32, 32), (32, 48)),
    durations=(DurationSpec("1-2s", 8, 1, 2, 4, 8), DurationSpec("2s", 16, 2, None, 8, 8)),
    max_crop=0.3,
)


def put(size: tuple[int, int], seconds: float, rate: float = 30.0, spec: BucketSpec = SPEC) -> tuple:
    form = choose(Path("clip.mp4"), size, seconds, rate, spec, ClipSpec())
    return form.duration, form.clip.num_frames, form.clip.height, form.clip.width, form.clip.frame_rate


def test_a_clip_goes_to_the_nearest_aspect_ratio_and_its_duration() -> None:
    assert put((100, 100), 1.6) == ("1-2s", 8, 32, 32, pytest.approx(5))
    assert put((150, 100), 1.0) == ("1-2s", 8, 32, 48, pytest.approx(8))
    assert put((150, 100), 7.0) == ("2s", 16, 32, 48, pytest.approx(8))
    assert put((40, 40), 0.0)[:4] == ("image", 1, 32, 32)


@pytest.mark.parametrize(
    ("size", "seconds", "rate", "rule"),
    [
        ((31, 100), 2.0, 30.0, "too small"),
        ((300, 40), 2.0, 30.0, "aspect"),
        ((100, 100), 0.9, 30.0, "too short"),
        ((100, 100), 3.0, 6.0, "low rate"),
    ],
)
def test_a_file_that_fits_no_bucket_is_dropped_by_a_named_rule(size, seconds, rate, rule) -> None:
    with pytest.raises(MediaError) as caught:
        put(size, seconds, rate)
    assert caught.value.rule == rule


def test_the_papers_table_takes_every_length_from_four_seconds_on_at_its_rates() -> None:
    spec = parse(plain(compose("data_build", ["buckets=paper_768"])))
    assert isinstance(spec, BuildConfig) and spec.buckets is not None
    assert len(spec.buckets.sizes) == len(spec.buckets.durations) == 5
    seen = set()
    for seconds in np.arange(4.0, 30.0, 0.05):
        name, frames, _, _, rate = put((1920, 1080), float(seconds), 32.0, spec.buckets)
        assert 16 <= rate <= 32 and frames / rate <= seconds + 0.01
        seen.add((name, frames))
    assert seen >= {("4-8s", 128), ("8-12s", 192), ("12-16s", 256), ("16s", 256)}
    names = {
        choose(Path(f"{n}.mp4"), (1920, 1080), 11.0, 30.0, spec.buckets, ClipSpec()).duration
        for n in range(20)
    }
    assert names == {"8-12s", "10.67s"}  # both hold 11 s; files are shared out between them
    with pytest.raises(MediaError, match=r"lasts 3\.90 s"):
        put((1920, 1080), 3.9, 32.0, spec.buckets)


def folder_of_clips(folder: Path) -> list[Path]:
    return [
        video_file(folder / "square.mp4", 15, 10.0, height=40, width=40),
        video_file(folder / "wide.mp4", 15, 10.0, seed=1, height=40, width=60),
        video_file(folder / "long.mp4", 30, 10.0, seed=2, height=40, width=40),
        video_file(folder / "longwide.mp4", 30, 10.0, seed=3, height=40, width=60),
        video_file(folder / "short.mp4", 5, 10.0, seed=4, height=40, width=40),
    ]


def bucketed(out: Path, **sources) -> BuildConfig:
    return replace(config(out, **sources), buckets=SPEC)


def test_shards_hold_one_bucket_each_and_training_finds_them(tmp_path, capsys) -> None:
    folder_of_clips(tmp_path / "in")
    for number, (height, width) in enumerate(((40, 40), (40, 60))):
        pixels = np.full((height, width, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo{number}.png")
    photos = PhotoSource("photos", "train", (str(tmp_path / "photo*.png"),), licence="CC0-1.0")
    out = tmp_path / "out"
    totals = build(bucketed(out, own=own(tmp_path / "in"), photos=photos))
    assert totals["dropped_by_rule"] == {"too short": 1} and totals["samples"] == 6
    printed = capsys.readouterr().out
    assert "bucket 32x32 1-2s: 1 samples" in printed and "bucket 32x48 image: 1 samples" in printed
    shards = json.loads((out / "index.json").read_text())["shards"]
    sizes = {(one["duration"], one["frames"], one["height"], one["width"]) for one in shards}
    assert len(shards) == len(sizes) == 6
    rates = {one["source_file"]: (one["frames"], one["fps"]) for one in records(out)}
    assert rates["square.mp4"] == (8, pytest.approx(8 / 1.5)) and rates["long.mp4"] == (16, 8.0)
    starts = {one["source_file"]: one["span"]["start_frame"] for one in records(out)}
    assert starts["square.mp4"] == 0 and starts["long.mp4"] == 5  # the middle 20 of 30 frames
    table = BucketTable(SPEC.sizes, {"image": 1, "1-2s": 8, "2s": 16})
    found, dropped = select(ShardFolder(out), ShardFolder(out).sets("train"), table, ("mp4",))
    assert [bucket for bucket, _ in found] == table.buckets() and dropped == []
    assert build(bucketed(out, own=own(tmp_path / "in"), photos=photos)) == totals  # recognised as finished


def test_an_empty_bucket_is_refused_before_anything_is_written(tmp_path) -> None:
    paths = folder_of_clips(tmp_path / "in")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"1 of 4 buckets have no samples: 32x48 2s; .*32x32 1-2s: 1"):
        build(bucketed(out, own=own(*paths[:3])))
    assert visible(out) == []


def test_a_build_without_buckets_is_the_same_build_as_before() -> None:
    cfg = compose("data_build", ["source=toyworld"])
    validate(cfg)
    spec = parse(plain(cfg))
    assert isinstance(spec, BuildConfig) and spec.buckets is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DurationSpec("x", 1, 1, 2, 4, 8), "needs 2 frames"),
        (lambda: DurationSpec("x", 8, 2, 1, 4, 8), "2 to 1 s is empty"),
        (lambda: DurationSpec("x", 80, 1, 2, 4, 8), "80 frames at 8/s last 10 s"),
        (lambda: replace(SPEC, max_crop=1.0), r"max_crop in \[0, 1\)"),
        (lambda: replace(SPEC, sizes=((32, 32), (32, 32))), "each size and duration once"),
    ],
)
def test_buckets_that_make_no_sense_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
