"""Training recipes of the autoencoder: GAN warm-up, cut clips, and every toy recipe through `moviegen train`."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import test_codec_losses
import torch
from media_samples import moving
from safetensors.torch import load_file
from shard_samples import write_tar
from test_codec_losses import adversarial_task, fitted, video_batch

from moviegen import cli
from moviegen.callbacks.folders import Folders
from moviegen.callbacks.manifest import Manifest
from moviegen.callbacks.storage import verify
from moviegen.fields import VIDEO
from moviegen.media import write_video
from moviegen.modelfile import load_codec
from moviegen.rng import SampleRng
from moviegen.tasks import codec_task
from moviegen.tasks.base import NotFiniteError
from moviegen.types import VideoClip

pytest.importorskip("torchvision")
pytest.importorskip("stlpips_pytorch")


def test_the_adversarial_weight_grows_from_the_start_step_on() -> None:
    adversary = adversarial_task(start_step=10, warmup_steps=4, weight=0.5).adversary
    assert adversary is not None
    weights = [adversary.weight_at(step) for step in (9, 10, 11, 12, 13, 100)]
    assert weights == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert [adversary.is_active(step) for step in (9, 10)] == [False, True]
    jump = adversarial_task(start_step=10, warmup_steps=0, weight=0.5).adversary
    assert jump is not None and jump.weight_at(10) == 0.5
    decoded, total = video_batch().video().frames.requires_grad_(), torch.zeros(())
    adversary.adaptive = False
    half, full = (adversary.penalty(decoded, decoded, total, decoded, step)[0] for step in (11, 13))
    torch.testing.assert_close(2 * half, full)
    with pytest.raises(ValueError, match="warmup_steps -1 must be at least 0"):
        adversarial_task(warmup_steps=-1)


def test_clips_are_cut_to_a_length_of_the_step_at_a_place_of_the_sample() -> None:
    task = adversarial_task()
    task.clip_lengths, task.image_steps = (2, 4), 3
    times = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(4, 3, 8, 16, 16)

    def view(step: int, rows: slice = slice(None)) -> torch.Tensor:
        keys = torch.arange(4)[rows]
        return task._view(times[rows], step, SampleRng(0, step, keys))[:, 0, :, 0, 0]

    lengths = {view(step).shape[1] for step in range(3, 40)}
    assert lengths == {2, 4}
    starts = {int(start) for step in range(3, 40) for start in view(step)[:, 0]}
    assert starts == set(range(7))
    for step in (3, 4, 5):
        whole = view(step)
        assert (whole.diff(dim=1) == 1).all()
        assert torch.equal(view(step), whole) and torch.equal(view(step, slice(2, 4)), whole[2:])
    assert task.eval()._view(times, 3, SampleRng(0, 3, torch.arange(4))).shape[2] == 8


def test_a_crop_larger_than_the_frames_leaves_them_whole() -> None:
    task = adversarial_task()
    task.crop, task.crop_until = 24, 10
    frames = torch.rand(2, 3, 4, 16, 32)
    assert task._view(frames, 0, SampleRng(0, 0, torch.arange(2))).shape == (2, 3, 4, 16, 24)


def test_a_discriminator_that_is_no_number_stops_the_step_before_either_optimizer(tmp_path) -> None:
    task = adversarial_task(start_step=0)
    assert task.adversary is not None
    with torch.no_grad():
        next(task.adversary.parameters()).fill_(float("nan"))
    before = {name: value.clone() for name, value in task.codec.named_parameters()}
    with pytest.raises(NotFiniteError, match="step 0: the loss of sample one is nan"):
        fitted(task, tmp_path, 1)
    assert all(torch.equal(value, before[name]) for name, value in task.codec.named_parameters())


def test_of_a_score_that_is_no_number_its_own_sample_is_named(tmp_path) -> None:
    task = adversarial_task(start_step=0)
    assert task.adversary is not None
    spoil = lambda module, given, scores: scores * torch.tensor([[1.0], [float("nan")]])  # noqa: E731
    task.adversary.discriminator.register_forward_hook(spoil)
    with pytest.raises(NotFiniteError, match="step 0: the loss of sample two is nan; no weight was changed"):
        fitted(task, tmp_path, 1)


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("broken", ["codec", "adversary"])
def test_a_gradient_that_is_no_number_stops_the_step_before_either_optimizer(tmp_path, broken, clip) -> None:
    task = adversarial_task(start_step=0)
    task.gradient_clip = clip
    parameter = next(task.get_submodule(broken).parameters())
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: value.clone() for name, value in task.named_parameters()}
    with pytest.raises(
        NotFiniteError, match="step 0: the norm of the gradients is nan; no weight was changed"
    ):
        fitted(task, tmp_path, 1)
    assert all(torch.equal(value, before[name]) for name, value in task.named_parameters())


def test_a_sample_that_is_no_number_leaves_the_statistics_of_latents_as_they_were(
    tmp_path, monkeypatch
) -> None:
    task = adversarial_task()
    stats = [value.clone() for value in task.codec.stats.buffers()]
    fitted(task, tmp_path, 1)
    known = [value.clone() for value in task.codec.stats.buffers()]
    assert stats and not any(torch.equal(value, old) for value, old in zip(known, stats, strict=True))
    monkeypatch.setattr(test_codec_losses, "video_batch", partial(video_batch, float("nan")))
    with pytest.raises(NotFiniteError, match="the loss of sample two is nan"):
        fitted(task, tmp_path, 2)
    pairs = zip(task.codec.stats.buffers(), known, strict=True)
    assert all(torch.equal(value, old) for value, old in pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Clips and photographs under the names that `moviegen data build` gives."""
    folder = tmp_path_factory.mktemp("shards")
    for name, frames in {
        "train-toyworld": 16,
        "train-real": 16,
        "train-photos": 1,
        "val-toyworld": 16,
    }.items():
        tar(folder / f"{name}-{frames:06d}.tar", frames, 64, 64)
    return folder


def tar(path: Path, frames: int, height: int, width: int) -> None:
    """A shard of two moving clips of one size."""
    samples = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        write_video(path.with_suffix(".mp4"), moving(frames, height, width, seed=number), 8.0)
        mp4 = path.with_suffix(".mp4").read_bytes()
        samples.append({"__key__": f"{path.stem}-{number}", "mp4": mp4, "json": b"{}"})
    path.with_suffix(".mp4").unlink()
    write_tar(path, samples)


def words(recipe: str, folder: Path, run: Path, steps: int, *more: str) -> list[str]:
    """What `moviegen` is told to train a recipe at the smallest size."""
    where = [f"experiments=codec/{recipe}", f"paths.shards={folder}", f"run_dir={run}"]
    small = [
        "task.codec.channels=[8,8,16]",
        "data.batch_size=2",
        "++data.cache_bytes=0",
        f"trainer.max_steps={steps}",
    ]
    quiet = [
        "num_threads=1",
        "callbacks.progress.refresh_rate=0",
        "loggers.wandb=null",
        "trainer.precision=32-true",
    ]
    return ["train", *where, *small, *quiet, "callbacks.samples=null", *more]


def train(recipe: str, folder: Path, run: Path, steps: int, *more: str) -> int:
    """The exit code of that command."""
    return cli.main(words(recipe, folder, run, steps, *more))


STAGES = ["task.image_steps=1", "task.adversary.start_step=2", "task.adversary.warmup_steps=2"]


def saved(run: Path) -> Manifest:
    latest = Folders(run / "checkpoints").latest()
    assert latest is not None
    return verify(*latest)


def test_the_toy_recipes_train_from_the_image_stage_to_the_outlier_penalty(folder, tmp_path) -> None:
    assert train("toy_gan", folder, tmp_path / "gan", 4, *STAGES) == 0
    state = saved(tmp_path / "gan")
    assert state.step == 4 and len(state.state["optimizers"]) == 2
    assert any(name.startswith("model/adversary.") for name in state.tensors)
    model = load_codec(str(tmp_path / "gan" / "model"))
    for recipe in ("toy_opl", "toy_opl_relative"):
        run = tmp_path / recipe
        assert train(recipe, folder, run, 2, f"init_from={tmp_path / 'gan' / 'model'}") == 0
        assert saved(run).step == 2
        tuned = load_codec(str(run / "model"))
        assert not torch.equal(tuned.last_layer, model.last_layer)
        torch.testing.assert_close(tuned.last_layer, model.last_layer, rtol=0, atol=0.01)
    # or with the discriminator and both optimizers that the run has
    assert train("toy_gan", folder, tmp_path / "gan", 5, *STAGES, "task.weights.outlier=1.0e+5") == 0
    assert saved(tmp_path / "gan").step == 5


def test_two_processes_with_a_discriminator_take_the_steps_of_one(folder, tmp_path) -> None:
    """The discriminator moves fast enough for the codec to show whether ranks share its gradients too."""
    steps = ["task.image_steps=1", "task.adversary.start_step=1", "task.adversary.warmup_steps=0"]
    rates = ["optimizer=adamw", "optimizer.lr=1e-3", "task.adversary.optimizer.lr=1e-2"]
    more = [*steps, *rates, "task.adversary.adaptive=false", "data.num_workers=0"]
    assert train("toy_gan", folder, tmp_path / "one", 5, *more) == 0
    two = ["trainer.devices=2", "trainer.strategy=ddp_find_unused_parameters_true"]
    command = [
        sys.executable,
        "-m",
        "moviegen.cli",
        *words("toy_gan", folder, tmp_path / "two", 5, *more, *two),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)


def test_one_run_trains_on_images_and_on_clips_of_two_lengths_in_three_aspect_ratios(
    tmp_path, monkeypatch
) -> None:
    shapes = {"images": (1, 32, 32), "square": (16, 32, 32), "wide": (16, 32, 64), "tall": (16, 64, 32)}
    for name, (frames, height, width) in shapes.items():
        for split in ("train", "val") if name == "square" else ("train",):
            tar(tmp_path / "shards" / name / f"{split}-own-000000.tar", frames, height, width)
    seen, real = [], codec_task.CodecTask._view

    def noted(task: codec_task.CodecTask, frames: torch.Tensor, *more) -> torch.Tensor:
        shown = real(task, frames, *more)
        if task.training:
            seen.append(tuple(shown.shape[2:]))
        return shown

    monkeypatch.setattr(codec_task.CodecTask, "_view", noted)
    more = [
        "data=codec_joint",
        "data.num_workers=0",
        "task.image_steps=0",
        "task.crop=null",
        "task.adversary=null",
    ]
    assert train("toy_gan", tmp_path / "shards", tmp_path / "run", 16, *more) == 0
    clips = [shape for shape in seen if shape[0] > 1]
    assert len(seen) == 16 and shapes["images"] in seen and {frames for frames, _, _ in clips} == {8, 16}
    assert {(height, width) for _, height, width in clips} == {(32, 32), (32, 64), (64, 32)}
    assert saved(tmp_path / "run").step == 16
    trained = load_codec(str(tmp_path / "run" / "model"))
    assert all(bool(value.isfinite().all()) for value in trained.state_dict().values())


def test_a_sample_that_is_no_number_ends_the_command_in_one_line_and_keeps_the_checkpoint(
    folder, tmp_path, monkeypatch, capfd
) -> None:
    run = tmp_path / "run"
    assert train("toy_gan", folder, run, 2, *STAGES) == 0
    checkpoint = run / "checkpoints" / "step-000000002"
    files = (*checkpoint.iterdir(), run / "checkpoints" / "latest", run / "model.safetensors")
    kept = {path: path.read_bytes() for path in files}

    def poisoned(items: list) -> VideoClip:
        clip = VIDEO.collate(items)
        clip.frames[1] = float("nan")
        return clip

    with monkeypatch.context() as patch:
        patch.setattr(codec_task, "VIDEO", replace(VIDEO, collate=poisoned))
        capfd.readouterr()
        assert train("toy_gan", folder, run, 4, *STAGES) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert re.fullmatch(
        r"error: step 2: the loss of sample train-[\w-]+-\d is nan; no weight was changed; "
        rf"{checkpoint} is the last good state",
        lines[-1],
    )
    assert not any("Traceback" in line for line in lines)
    assert {path: path.read_bytes() for path in kept} == kept
    assert train("toy_gan", folder, run, 4, *STAGES) == 0 and saved(run).step == 4
