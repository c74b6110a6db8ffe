"""Finetuning at the smallest size: the supervised recipe, its average, and LoRA from training to a clip."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_run import QUICK, generator_words, moviegen

from moviegen import cli

BASE = "experiments/toy/weights/sft"  # what toy/lora goes on from


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What toy/sft reads: two seconds at each of its rates, by the commands in its head."""
    folder = tmp_path_factory.mktemp("latents")
    for rate in (8, 16):
        shards, splits = folder / f"shards{rate}", ("train", "val")
        worlds = [f"sources.toyworld_{split}.world" for split in splits]
        moviegen(
            "data", "build", f"out={shards}", "source=[toyworld]", "workers=0",
            *(f"sources.toyworld_{split}.count={8 if split == 'train' else 2}" for split in splits),
            *(f"{world}.frame_rate={rate}" for world in worlds),
            *(f"{world}.num_frames={2 * rate}" for world in worlds),
        )  # fmt: skip
        words = [f"run_dir={folder / f'fps{rate}'}", f"shards={shards}", "num_threads=1"]
        moviegen("encode", *words, "frames=[0,7,8,-1]", "frame_rate_prefix=true")
    return folder


def finetune(recipe: str, run: Path, latents: Path, steps: int, *more: str) -> None:
    moviegen(
        "train", f"experiments=toy/{recipe}", f"run_dir={run}", f"paths.latents={latents}",
        f"trainer.max_steps={steps}", "trainer.val_check_interval=2", "trainer.precision=32-true", "data.batch_size=4",
        "export_dtype=float32", "callbacks.samples=null", *QUICK, *more,
    )  # fmt: skip


def test_two_supervised_runs_with_a_cosine_rate_are_averaged(latents: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        finetune("sft", tmp_path / str(seed), latents, 3, f"seed={seed}", "schedule.warmup_steps=1")
        rates = json.loads((tmp_path / str(seed) / "run.json").read_text())["config"]["schedule"]
        assert rates["_target_"].endswith("WarmupCosine") and rates["total_steps"] == 3
    models = ",".join(str(tmp_path / str(seed) / "model") for seed in (0, 1))
    out = tmp_path / "out"
    moviegen(
        "average",
        f"models=[{models}]",
        f"run_dir={out}",
        "data=toy_sft",
        f"paths.latents={latents}",
        "num_threads=1",
    )
    states = [load_file(f"{path}.safetensors") for path in (*models.split(","), out / "model")]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    for name, mean in states[2].items():
        torch.testing.assert_close(mean, (states[0][name] + states[1][name]) / 2)
    rows = json.loads((out / "numbers.json").read_text())
    assert [row["n"] for row in rows if row["name"].endswith("held_out_loss")] == [4, 4, 4]


def test_a_lora_run_goes_on_and_leaves_an_adapter_that_generate_takes(
    latents: Path, tmp_path: Path, capsys
) -> None:
    pytest.importorskip("peft")
    run = tmp_path / "run"
    finetune("lora", run, latents, 2, f"callbacks.held_out.base={BASE}")
    lines = [json.loads(line) for line in (run / "held_out.jsonl").read_text().splitlines()]
    ratio = next(number for number in lines[-1]["numbers"] if number["name"] == "held_out/ratio")
    assert 0.5 < ratio["value"] < 1.5 and ratio["value"] != 1.0  # to the model without the matrices
    first = load_file(run / "adapter" / "adapter_model.safetensors")
    finetune("lora", run, latents, 4)
    second = load_file(run / "adapter" / "adapter_model.safetensors")
    assert first.keys() == second.keys() and any(not torch.equal(first[name], second[name]) for name in first)
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    assert not (run / "model.safetensors").exists()
    (tmp_path / "prompts.txt").write_text("a big red star moves left\n")
    words = [f"model={BASE}", f"prompts={tmp_path / 'prompts.txt'}", "sampler.num_steps=2", "num_threads=1"]
    moviegen("generate", f"run_dir={tmp_path / 'clips'}", f"adapter={run / 'adapter'}", *words)
    assert (tmp_path / "clips" / "00001.mp4").stat().st_size > 0
    card = json.loads((tmp_path / "clips" / "00001.json").read_text())
    assert card["adapter_path"] == str(run / "adapter") and len(card["adapter"]) == 64
    assert cli.main(["export", f"run_dir={run}", f"out={tmp_path / 'whole'}"]) == 2
    assert f"{run} trained an adapter, not a model" in capsys.readouterr().err
    assert not (tmp_path / "whole.json").exists()


def test_a_diffusion_model_trains_with_every_switch_of_the_objective_and_samples_itself(
    world, tmp_path
) -> None:
    switches = ["path@task.path=diffusion", "times@task.times=shifted", "weighting@task.weighting=min_snr"]
    sampler = ["sampler.solver=ddim", "sampler.schedule=linear", "sampler.batched_guidance=true"]
    words = generator_words(tmp_path / "run", world, 3, *switches, *sampler)
    moviegen(*words)
    task = json.loads((tmp_path / "run" / "model.json").read_text())["task"]
    assert task["path"]["_target_"].endswith("DiffusionPath") and task["weighting"]["gamma"] == 5.0
    assert len(list((tmp_path / "run" / "samples").rglob("*.mp4"))) == 2
