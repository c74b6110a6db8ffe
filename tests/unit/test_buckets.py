"""Buckets: sizes that are expected, batches of equal cost, packed steps, and what a dry run prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bucket_samples import bucket_folder, sample
from shard_samples import write_tar

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.counts import token_grid
from moviegen.conditioning.editing import SOURCE
from moviegen.data.buckets import BucketTable, Sizing
from moviegen.data.module import ShardData, Source
from moviegen.fields import LATENT, TEXT_FEATURES
from moviegen.types import Grid, PackedBatch

SIZES = ((32, 32), (16, 32), (32, 16), (32, 48), (48, 32))  # five aspect ratios
FRAMES = {"short": 4, "middle": 8, "long": 12, "longer": 16, "longest": 20}  # five durations
IMAGES = {(1, *size): 24 for size in SIZES}
CLIPS = {(frames, *size): 3 + frames for frames in FRAMES.values() for size in SIZES}
TABLE = BucketTable(SIZES, {"image": 1, **FRAMES})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buckets")
    bucket_folder(folder / "images", IMAGES)
    return bucket_folder(folder / "clips", CLIPS).parent


def cost(frames: int, height: int, width: int) -> tuple[int, float]:
    tokens = -(-frames // 4) * (height // 16) * (width // 16)
    return tokens, tokens * (1 + tokens / 20)


def bucketed(folder: Path, **changes) -> ShardData:
    train = {"images": Source(str(folder / "images")), "clips": Source(str(folder / "clips"), weight=10)}
    settings = {"train": train, "batch_size": 4, "balanced": True, "batch_multiple": 4, "buckets": TABLE}
    data = ShardData(**(settings | changes))
    data.use({"media": LATENT, "text": TEXT_FEATURES}, cost=cost)
    return data


def test_five_aspect_ratios_and_five_durations_and_images_are_thirty_rows(folder) -> None:
    plan = bucketed(folder).plan()
    assert len(plan.rows) == 30 and plan.dropped == []
    assert [row.source for row in plan.rows] == ["images"] * 5 + ["clips"] * 25
    assert sum(len(row.samples) for row in plan.rows) == sum(IMAGES.values()) + sum(CLIPS.values())
    lines = plan.text().splitlines()
    assert len(lines) == 32 and lines[-1] == "0 clips dropped"
    # the dearest sample costs 30 (1 + 30 / 20) = 75 and comes four at a time; this one costs 4.8: 62 fit, 60 in fours
    assert lines[1].split()[:6] == ["images", "32x32x1", "image", "24", "4", "60"]


def test_steps_of_all_buckets_cost_the_same_up_to_the_multiple(folder) -> None:
    rows = bucketed(folder).plan().rows
    dearest = max(rows, key=lambda row: row.cost)
    assert dearest.batch_size == 4 and dearest.tokens == 30
    for row in rows:
        assert row.batch_size % 4 == 0
        assert row.batch_size * row.cost <= 4 * dearest.cost < (row.batch_size + 4) * row.cost
    by_tokens = [4 * dearest.tokens / row.tokens for row in rows]
    assert max(row.batch_size / n for row, n in zip(rows, by_tokens, strict=True)) > 1.5  # not tokens alone


def test_no_batch_is_larger_than_the_limit(folder) -> None:
    free, limited = (bucketed(folder, batch_limit=limit).plan().rows for limit in (None, 23))
    assert [row.batch_size for row in limited] == [min(20, row.batch_size) for row in free]
    assert max(row.batch_size for row in free) > 20


def test_a_batch_that_takes_more_samples_than_its_bucket_has_is_told_in_the_plan_and_by_training(
    folder, caplog
) -> None:
    data = bucketed(folder)
    data.train_dataloader()
    image, *_ = (line for line in data.plan().text().splitlines() if line.startswith("images"))
    assert image.endswith("  samples repeat within a step")
    (said,) = [record.getMessage() for record in caplog.records]
    assert "images 32x32x1 image has 24 for a batch of 60; add samples, or lower data.batch_size" in said
    enough = bucketed(folder, batch_size=4, balanced=False, batch_multiple=1)
    assert enough.plan().warning() is None and "repeat" not in enough.plan().text()


def test_a_grid_that_the_model_cannot_take_is_refused_with_its_numbers() -> None:
    config = BackboneConfig(32, 2, 2, 48, latent_channels=4, max_frames=2, max_height=4, max_width=4)
    assert token_grid(config, Grid(2, 4, 8)) == Grid(2, 2, 4)
    with pytest.raises(ValueError, match=r"\(1, 3, 4\) cells does not divide into patches of \(1, 2, 2\)"):
        token_grid(config, Grid(1, 3, 4))
    with pytest.raises(ValueError, match=r"\[3, 2, 2\] exceeds the learned positions \[2, 4, 4\]"):
        token_grid(config, Grid(3, 4, 4))


def test_a_bucket_beyond_the_positions_is_refused_by_its_name(folder) -> None:
    def limited(frames: int, height: int, width: int) -> tuple[int, float]:
        if frames > 16:
            raise ValueError("token grid [5, 1, 1] exceeds the learned positions [4, 4, 4]")
        return 1, 1.0

    data = bucketed(folder)
    data.use(data.fields, cost=limited)
    with pytest.raises(ValueError, match=r"bucket 32x32x20 longest: token grid .* exceeds"):
        data.plan()


def test_an_empty_bucket_is_refused_with_its_name(folder) -> None:
    table = BucketTable(SIZES, {"image": 1, **FRAMES, "eternal": 64})
    with pytest.raises(
        ValueError, match="5 of 35 buckets have no samples: 32x32x64 eternal, 16x32x64 eternal"
    ):
        bucketed(folder, buckets=table).train_dataloader()


def test_every_dropped_clip_is_told_with_its_rule(folder, tmp_path) -> None:
    clips = bucket_folder(tmp_path / "clips", CLIPS | {(4, 64, 64): 2})
    bare = sample("train-bare-0", 4, 32, 32)
    del bare["text.npy"]
    write_tar(clips / "train-bare-000000.tar", [bare, sample("train-bare-1", 4, 32, 32)])
    index = json.loads((clips / "index.json").read_text())
    record = {"split": "train", "num_samples": 2, "frames": 4, "height": 32, "width": 32}
    index["shards"].append({"name": "train-bare-000000.tar", **record})
    (clips / "index.json").write_text(json.dumps(index))
    lost = {
        "file": "a.mp4",
        "result": "dropped",
        "rule": "too short",
        "detail": "3 frames",
        "spans_dropped": {},
    }
    part = {"file": "b.mp4", "result": "kept", "rule": None, "detail": "", "spans_dropped": {"damaged": 2}}
    (clips / "outcomes.json").write_text(json.dumps({"files": [lost, part]}))
    train = {"images": Source(str(folder / "images")), "clips": Source(str(clips))}
    plan = bucketed(folder, train=train).plan()
    rules = {(one.key, one.rule) for one in plan.dropped}
    odd = "no bucket: 64x64x4 is none of the 30 in the table"
    assert rules == {
        ("train-toy-4x64x64_0", odd),
        ("train-toy-4x64x64_1", odd),
        ("train-bare-0", "no .text.npy"),
        ("a.mp4", "too short: 3 frames"),
        ("b.mp4", "damaged (2 spans)"),
    }
    assert plan.text().splitlines()[-6] == "5 clips dropped:"
    with_bare = next(row for row in plan.rows if str(row.bucket) == "32x32x4 short")
    assert len(with_bare.samples) == CLIPS[4, 32, 32] + 1
    shard, row = with_bare.samples.find(len(with_bare.samples) - 1)
    assert shard.key(row) == "train-bare-1" or shard.path.name != "train-bare-000000.tar"
    assert "train-bare-0" not in {s.key(r) for s, r in map(with_bare.samples.find, range(8))}


def test_validation_takes_the_samples_that_fit_a_bucket(folder, tmp_path) -> None:
    clips = bucket_folder(tmp_path / "clips", {(4, 32, 32): 3, (4, 64, 64): 2}, split="val")
    val = {"clips": Source(str(clips), split="val")}
    data = bucketed(folder, val=val)
    sizes = [batch.media.values.shape for batch in data.val_dataloader()]
    assert sizes == [(3, 4, 1, 4, 4)]
    told = data.plan().text().splitlines()[-3:]
    rule = "no bucket: 64x64x4 is none of the 30 in the table"
    assert told == ["2 clips dropped:"] + [
        f"  val val-toy-4x64x64.tar: val-toy-4x64x64_{number}: {rule}" for number in range(2)
    ]
    with pytest.raises(ValueError, match="none of the validation clips fits a bucket"):
        odd = BucketTable(((16, 16),), {"image": 1})
        bucketed(folder, val=val, buckets=odd).val_dataloader()


def test_durations_of_equal_length_are_told_apart_by_their_names(tmp_path) -> None:
    for name in ("16s", "10.67s"):
        bucket_folder(tmp_path / "clips", {(8, 32, 32): 5}, source=name.replace(".", "_"), duration=name)
    table = BucketTable(((32, 32),), {"16s": 8, "10.67s": 8})
    train = {"clips": Source(str(tmp_path / "clips"))}
    rows = bucketed(tmp_path, train=train, buckets=table).plan().rows
    assert [(str(row.bucket), len(row.samples)) for row in rows] == [
        ("32x32x8 16s", 5),
        ("32x32x8 10.67s", 5),
    ]


def test_within_a_source_every_sample_comes_equally_often(folder) -> None:
    for mix_by in ("steps", "samples"):
        rows = bucketed(folder, mix_by=mix_by).plan().rows
        rates = {row.source: set() for row in rows}
        for row in rows:
            rates[row.source].add(round(row.weight * row.batch_size / len(row.samples), 9))
        assert all(len(found) == 1 for found in rates.values())
        shares = {
            name: sum(
                row.weight * (row.batch_size if mix_by == "samples" else 1)
                for row in rows
                if row.source == name
            )
            for name in rates
        }
        assert shares["clips"] / shares["images"] == pytest.approx(10)


def drawn(data: ShardData, steps: int, first: int = 0) -> list[list[int]]:
    data.step = first
    loader = iter(data.train_dataloader())
    return [next(loader).keys.tolist() for _ in range(steps)]


@pytest.mark.parametrize("draws", [1, 3])
def test_the_order_of_buckets_and_samples_is_the_same_for_any_number_of_ranks(folder, draws) -> None:
    whole = drawn(bucketed(folder, packed_draws=draws), 12)
    for world in (2, 4):
        parts = []
        for rank in range(world):
            data = bucketed(folder, packed_draws=draws)
            data.use(data.fields, dp_rank=rank, dp_size=world, cost=cost)
            parts.append(drawn(data, 12))
        assert all(len({len(part[step]) for part in parts}) == 1 for step in range(12))  # ranks in balance
        together = [sorted(key for part in parts for key in part[step]) for step in range(12)]
        assert together == [sorted(keys) for keys in whole]
    assert drawn(bucketed(folder, packed_draws=draws), 5, first=7) == whole[7:]
    assert drawn(bucketed(folder, packed_draws=draws, seed=1), 12) != whole


def test_a_packed_step_holds_the_draws_of_several_steps(folder) -> None:
    single, packed = bucketed(folder), bucketed(folder, packed_draws=4)
    batch = next(iter(packed.train_dataloader()))
    assert isinstance(batch, PackedBatch)
    assert sorted(batch.keys.tolist()) == sorted(key for keys in drawn(single, 4) for key in keys)
    assert len({part.media.values.shape[2:] for part in batch.parts}) == len(batch.parts) > 1
    assert len(batch) == len(batch.names) == sum(len(part) for part in batch.parts)


def test_a_changed_order_is_told_on_resume(folder, caplog) -> None:
    data = bucketed(folder)
    state = data.state_dict()
    bucketed(folder, packed_draws=2, mix_by="samples").load_state_dict(state)
    assert "data.packed_draws was 1 and is now 2" in caplog.text and "data.mix_by was steps" in caplog.text
    caplog.clear()
    data.load_state_dict({"step": 3, "batch_size": 4, "seed": 0})  # of a run before buckets
    assert data.step == 3 and not caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sizing(6, balanced=True, multiple=4), "batch_size 6 is no multiple of batch_multiple 4"),
        (lambda: Sizing(8, balanced=True, limit=4), "batch_limit 4 is below batch_size 8"),
        (lambda: Sizing(4, mix_by="clips"), "mix_by must be steps or samples, got 'clips'"),
        (lambda: BucketTable((), {"image": 1}), "at least one size"),
        (lambda: BucketTable(((8, 8), (8, 8)), {"image": 1}), "names each size once"),
        (lambda: ShardData({"x": Source("x")}, packed_draws=0), "packed_draws must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_balanced_batches_need_shards_that_tell_their_size(tmp_path) -> None:
    write_tar(tmp_path / "train-x-000000.tar", [sample("a", 4, 32, 32)])
    data = ShardData({"x": Source(str(tmp_path))}, balanced=True)
    data.use({"media": LATENT}, cost=cost)
    with pytest.raises(ValueError, match=r"balanced batches need shards with an index\.json"):
        data.plan()


def test_buckets_keep_clips_that_lack_an_optional_source(tmp_path: Path) -> None:
    bucket_folder(tmp_path, {(8, 16, 16): 2})
    table = BucketTable(((16, 16),), {"clip": 8})
    data = ShardData(train={"x": Source(str(tmp_path))}, batch_size=2, buckets=table)
    data.use({"media": LATENT, "source": SOURCE})
    plan = data.plan()
    assert [len(row.samples) for row in plan.rows] == [2] and plan.dropped == []
    assert not next(iter(data.train_dataloader())).inputs["source"].given.any()
