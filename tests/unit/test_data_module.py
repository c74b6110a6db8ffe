"""The data module: which samples reach a training step, on any workers, ranks and after a resume."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from shard_samples import latent_folder, latent_sample, write_tar

from moviegen.data.batches import key_number
from moviegen.data.module import ShardData, Source
from moviegen.data.shards import Shard, ShardError
from moviegen.fields import LATENT, TEXT, TEXT_FEATURES
from moviegen.types import Batch, Latent

STRIPPED = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    latent_folder(folder / "videos", (5, 6))
    latent_folder(folder / "videos", (7,), split="val")
    latent_folder(folder / "images", (4,), frames=1)
    return folder


def shard_data(folder: Path, **changes) -> ShardData:
    sources = {
        "images": Source(str(folder / "images")),
        "videos": Source(str(folder / "videos"), weight=3),
    }
    data = ShardData(**({"train": sources, "batch_size": 4} | changes))
    data.use({"media": LATENT})
    return data


def keys_of(data: ShardData, steps: int) -> list[list[int]]:
    loader = iter(data.train_dataloader())
    return [next(loader).keys.tolist() for _ in range(steps)]


class Recorder(LightningModule):
    """A model that learns nothing and notes the keys it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.keys: list[list[int]] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        self.keys.append(batch.keys.tolist())
        return self.weight * batch.media.values.mean()

    def validation_step(self, batch: Batch) -> None:
        assert isinstance(batch.media, Latent)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_batch_holds_one_size_and_exactly_what_the_task_asks_for(folder):
    data = shard_data(folder)
    data.use({"media": LATENT, "text": TEXT_FEATURES, "caption": TEXT})
    loader = iter(data.train_dataloader())
    for batch in (next(loader) for _ in range(12)):
        numbers = batch.media.values[:, 0, 0, 0, 0].int().tolist()
        frames = batch.media.values.shape[2]
        assert batch.media.values.shape == (4, 16, frames, 2, 2)
        assert batch.media.values.dtype == torch.float32
        assert batch.media.frame_rate.tolist() == [8.0] * 4
        assert batch.inputs["caption"] == [f"clip {number}" for number in numbers]
        features, mask = batch.inputs["text"]
        assert mask.sum(1).tolist() == [1 + number % 3 for number in numbers]
        assert (features[:, 0, 0].int().tolist()) == numbers
        assert batch.keys.tolist() == [key_number(f"train-{frames}-{number:06d}") for number in numbers]
        assert set(batch.inputs) == {"text", "caption"}


def test_no_file_is_read_that_was_not_asked_for(folder, monkeypatch):
    asked: list[str] = []
    read_file = Shard._read_file
    monkeypatch.setattr(
        Shard,
        "_read_file",
        lambda self, *place: asked.append(place[2]) or read_file(self, *place),
    )
    data = shard_data(folder)
    data.use({"media": LATENT, "text": TEXT_FEATURES})
    keys_of(data, 8)
    assert set(asked) == {"latent.npy", "json", "text.npy"}


def test_bytes_beyond_the_asked_files_are_never_touched(folder, monkeypatch):
    touched: list[int] = []
    pread = os.pread
    monkeypatch.setattr(
        "os.pread", lambda file, size, offset: touched.append(offset) or pread(file, size, offset)
    )
    data = shard_data(folder, train={"videos": Source(str(folder / "videos"))})
    keys_of(data, 12)
    tars = [Shard(path) for path in sorted((folder / "videos").glob("train-*.tar"))]
    truth = {int(shard.table["truth.json"][row][0]) for shard in tars for row in range(len(shard))}
    text = {int(shard.table["txt"][row][0]) for shard in tars for row in range(len(shard))}
    assert touched and not (set(touched) & (truth | text))


def test_the_order_does_not_depend_on_the_number_of_workers(folder):
    expected = keys_of(shard_data(folder), 20)
    for num_workers in (1, 3):
        assert keys_of(shard_data(folder, num_workers=num_workers), 20) == expected


def test_ranks_together_see_the_batch_of_one_process(folder):
    expected = keys_of(shard_data(folder), 10)
    for world in (2, 4):
        parts = []
        for rank in range(world):
            data = shard_data(folder)
            data.use({"media": LATENT}, dp_rank=rank, dp_size=world)
            parts.append(keys_of(data, 10))
        together = [[key for part in step for key in part] for step in zip(*parts, strict=True)]
        assert together == expected


def test_a_batch_that_ranks_cannot_share_out_is_refused(folder):
    data = shard_data(folder, batch_size=6)
    data.use({"media": LATENT}, dp_rank=0, dp_size=4)
    with pytest.raises(ValueError, match="batch_size 6 is no multiple of the 4"):
        data.train_dataloader()


def test_validation_reads_every_sample_once_in_order(folder):
    val = {"videos": Source(str(folder / "videos"), split="val")}
    data = shard_data(folder, val=val, batch_size=3)
    keys = [batch.keys.tolist() for batch in data.val_dataloader()]
    expected = [key_number(f"val-2-{number:06d}") for number in range(7)]
    assert keys == [expected[:3], expected[3:6], expected[6:]]
    assert shard_data(folder).val_dataloader() == []


def test_ranks_validate_in_step(folder):
    val = {"videos": Source(str(folder / "videos"), split="val")}
    parts = []
    for rank in range(2):
        data = shard_data(folder, val=val)
        data.use({"media": LATENT}, dp_rank=rank, dp_size=2)
        parts.append([batch.keys.tolist() for batch in data.val_dataloader()])
    assert [len(batch) for batch in parts[0]] == [len(batch) for batch in parts[1]] == [2, 2]
    seen = {key for part in parts for batch in part for key in batch}
    assert seen == {key_number(f"val-2-{number:06d}") for number in range(7)}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_three_and_three_steps_after_a_checkpoint_equal_six(folder, tmp_path, num_workers):
    val = {"videos": Source(str(folder / "videos"), split="val")}

    def fit(steps: int, ckpt: Path | None = None) -> tuple[Recorder, Trainer]:
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
        trainer = Trainer(
            max_steps=steps, callbacks=[saver], val_check_interval=2, check_val_every_n_epoch=None, **STRIPPED
        )
        model = Recorder()
        trainer.fit(
            model, shard_data(folder, val=val, num_workers=num_workers), ckpt_path=ckpt, weights_only=True
        )
        return model, trainer

    whole, _ = fit(6)
    assert whole.keys == keys_of(shard_data(folder), 6)
    (saved,) = tmp_path.glob("*step=3.ckpt")
    assert torch.load(saved, weights_only=True)["ShardData"]["step"] == 3
    resumed, trainer = fit(6, saved)
    assert resumed.keys == whole.keys[3:]
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    further, _ = fit(9, tmp_path / "end.ckpt")
    assert whole.keys + further.keys == keys_of(shard_data(folder), 9)


def test_any_step_is_reached_by_reading_its_own_samples_alone(folder, monkeypatch):
    read, rows = Shard.read, []

    def noted(self, row, suffixes, *more):
        rows.append(row)
        return read(self, row, suffixes, *more)

    monkeypatch.setattr(Shard, "read", noted)
    counts = []
    for step in (0, 10**12):
        data = shard_data(folder)
        data.load_state_dict({**data.state_dict(), "step": step})
        rows.clear()
        next(iter(data.train_dataloader()))
        counts.append(len(rows))
    assert counts == [4, 4]


def test_epochs_cut_short_by_the_trainer_go_on_where_they_stopped(folder):
    model = Recorder()
    trainer = Trainer(max_epochs=3, limit_train_batches=4, enable_checkpointing=False, **STRIPPED)
    trainer.fit(model, shard_data(folder, num_workers=2))
    assert model.keys == keys_of(shard_data(folder), 12)


def test_an_order_that_changed_on_resume_is_told(folder, caplog):
    data = shard_data(folder, seed=1)
    data.load_state_dict({"step": 5, "batch_size": 4, "seed": 0})
    assert data.step == 5
    assert "data.seed was 0 and is now 1" in caplog.text


def test_sets_that_changed_on_resume_are_told_in_one_line(folder, tmp_path, caplog):
    latent_folder(tmp_path / "more", (5, 6, 1))
    images, videos = Source(str(folder / "images")), Source(str(folder / "videos"), weight=3)

    def state_of(**train: Source) -> tuple[ShardData, dict]:
        data = shard_data(folder, train=train)
        data.train_dataloader()  # as `moviegen train` does before a checkpoint is read
        return data, data.state_dict()

    data, state = state_of(images=images, videos=videos)
    shard_data(folder).load_state_dict(state)
    data.load_state_dict(state)
    data.load_state_dict({"step": 1})  # of a run of before
    assert not caplog.text
    for changed, said in (
        ({"images": images, "videos": Source(str(tmp_path / "more"), weight=3)},
         "videos unknown size had 11 samples in 750 of 1000 steps and has 12 samples in 750 of 1000 steps: the"),
        ({"images": images, "videos": Source(str(folder / "videos"))},
         "images unknown size had 4 samples in 250 of 1000 steps and has 4 samples in 500 of 1000 steps (and 1 more)"),
        ({"videos": videos}, "images unknown size had 4 samples in 250 of 1000 steps and has nothing (and 1 more)"),
        ({"videos": videos, "images": images}, "the sources were in another order"),
    ):  # fmt: skip
        caplog.clear()
        state_of(**changed)[0].load_state_dict(state)
        assert len(caplog.records) == 1 and said in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_file_is_named_in_one_line(tmp_path, num_workers):
    sample = latent_sample("broken", 1) | {"latent.npy": b"no array"}
    write_tar(tmp_path / "train-x-000000.tar", [sample])
    data = shard_data(tmp_path, train={"x": Source(str(tmp_path))}, num_workers=num_workers)
    with pytest.raises(
        ShardError, match=r"x-000000\.tar: sample broken: \.latent\.npy cannot be decoded"
    ) as error:
        keys_of(data, 1)
    assert "\n" not in str(error.value)


def test_clips_of_several_sizes_in_one_unlisted_folder_are_refused(tmp_path):
    samples = [latent_sample("a", 1, frames=1), latent_sample("b", 2, frames=2)]
    write_tar(tmp_path / "train-x-000000.tar", samples)
    data = shard_data(tmp_path, train={"x": Source(str(tmp_path))})
    with pytest.raises(ShardError, match=r"latents of several sizes in one batch: \[16, 1, 2, 2\] and"):
        keys_of(data, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {}}, "at least one training source"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        shard_data(folder, **changes)


def test_batches_travel_to_a_worker_that_was_not_forked(folder):
    dataset = shard_data(folder).train_dataloader().dataset
    assert pickle.loads(pickle.dumps(dataset))[5].keys.tolist() == dataset[5].keys.tolist()


def test_the_task_must_say_what_to_read(folder):
    data = ShardData({"videos": Source(str(folder / "videos"))})
    with pytest.raises(ValueError, match=r"call use\(fields\)"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="fields must hold 'media', got text"):
        data.use({"text": TEXT})


def test_a_cache_changes_no_batch_and_ends_reading(folder, monkeypatch):
    plain, cached, small = (
        iter(shard_data(folder, cache_bytes=size).train_dataloader()) for size in (0, 10**6, 3000)
    )
    reads: list[int] = []
    read = Shard.read
    monkeypatch.setattr(Shard, "read", lambda self, *args: reads.append(1) or read(self, *args))
    for _ in range(30):
        expected = next(plain)
        reads.clear()
        for loader in (cached, small):
            batch = next(loader)
            assert torch.equal(batch.media.values, expected.media.values)
            assert torch.equal(batch.keys, expected.keys)
    reads.clear()
    next(cached)
    assert not reads
    assert [next(small) for _ in range(10)] and reads
