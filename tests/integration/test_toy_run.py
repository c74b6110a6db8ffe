"""The whole path at the smallest size, through the command line: shards, codec, latents, generator, clips, report."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_run import PROMPTS, generator_words, moviegen, steps_of, train_generator

from moviegen import cli
from moviegen.codec.tae import TemporalAutoencoder
from moviegen.media import decode_video
from moviegen.types import Latent, VideoClip

USUAL = (
    "trainer.precision=bf16-mixed"  # in which samples are not made, as generate makes none in it by itself
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "model.safetensors")


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(world, tmp_path) -> None:
    train_generator(tmp_path / "whole", world, 6)
    train_generator(tmp_path / "parts", world, 3)
    train_generator(tmp_path / "parts", world, 6)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=0)
    run = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert [start["changed"] for start in run["starts"]] == [{}, {"trainer.max_steps": [3, 6]}]
    assert "max_steps: 3" in (tmp_path / "parts" / "config.yaml").read_text()


@contextlib.contextmanager
def decoded_latents() -> Iterator[list[torch.Tensor]]:
    """The latents that the codec is given to decode meanwhile, as whole batches [B, C, T, H, W]."""
    seen: list[torch.Tensor] = []

    def decode(self: TemporalAutoencoder, latent: Latent, *arguments: Any) -> VideoClip:
        seen.append(latent.values.clone())
        return decoder(self, latent, *arguments)

    decoder = TemporalAutoencoder.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TemporalAutoencoder, "decode", decode)
        yield seen


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[torch.Tensor]]:
    """A generator's run folder, and the latents of the samples that training showed."""
    run = tmp_path_factory.mktemp("generator") / "run"
    with decoded_latents() as seen:
        train_generator(run, world, 3, USUAL)
    return run, seen


@pytest.fixture(scope="module")
def generator(trained: tuple[Path, list[torch.Tensor]]) -> Path:
    return trained[0]


def generate(run: Path, out: Path, *more: str) -> None:
    prompts = out.parent / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    moviegen(
        "generate", f"run_dir={out}", f"model={run / 'model'}", f"prompts={prompts}", "sampler.num_steps=2",
        "num_threads=1", *more,
    )  # fmt: skip


def test_generate_makes_the_latents_and_clips_that_training_showed_for_the_same_weights(
    trained, tmp_path
) -> None:
    generator, shown_latents = trained
    with decoded_latents() as made_latents:
        generate(
            generator, tmp_path / "clips", "marking.picture=null"
        )  # training-time samples are not marked
    made, shown = torch.cat(made_latents), torch.cat(shown_latents)
    assert made.shape[0] == len(PROMPTS) and made.std() > 0.1
    torch.testing.assert_close(made, shown, rtol=0, atol=0)
    rows = [json.loads(line) for line in (tmp_path / "clips" / "manifest.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    for number, row in enumerate(rows):
        made, rate = decode_video(tmp_path / "clips" / row["path"])
        shown, _ = decode_video(generator / "samples" / "step-000003" / f"{number:02d}.mp4")
        assert made.shape == (16, 64, 64, 3) and rate == pytest.approx(8.0)
        np.testing.assert_array_equal(made, shown)


def test_an_interrupted_generation_goes_on_and_keeps_what_is_finished(generator, tmp_path) -> None:
    out = tmp_path / "clips"
    generate(generator, out)
    first = (out / "00001.mp4").stat().st_mtime_ns
    (out / "00002.mp4").unlink()
    generate(generator, out)
    assert (out / "00001.mp4").stat().st_mtime_ns == first and (out / "00002.mp4").is_file()
    generate(generator, out, "sampler.seed=5")
    assert (out / "00001.mp4").stat().st_mtime_ns != first


def test_the_run_folder_says_what_was_run(generator) -> None:
    run = json.loads((generator / "run.json").read_text())
    assert run["config"]["trainer"]["max_steps"] == 3 and run["packages"]["torch"]
    assert run["shards"][0]["licences"] and run["shards"][0]["consent"] and run["shards"][0]["sha256"]
    assert (generator / "config.yaml").is_file()
    header = next(generator.rglob("metrics.csv")).read_text().splitlines()[0]
    assert {"train/loss", "val/loss", "step"} <= set(header.split(","))


def test_a_checkpoint_exports_to_the_same_weights(generator, tmp_path) -> None:
    moviegen("export", f"run_dir={generator}", f"out={tmp_path / 'model'}", "dtype=float32")
    exported, trained = weights(tmp_path), weights(generator)
    for name in trained:
        torch.testing.assert_close(exported[name], trained[name], rtol=0, atol=0)
    for folder in (tmp_path, generator):  # which generate holds against what it is asked for
        assert json.loads((folder / "model.json").read_text())["info"]["frame_rates"] == [8.0, 8.0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which a command refuses its work."""
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith("error:")
    return line


@pytest.mark.parametrize(
    ("other", "reasons"),
    [
        (
            "task.backbone.config.ffn_dim=64",
            ("step-000000003 is of another architecture", "[48, 32] in the file, [64, 32]"),
        ),
        ("optimizer=adamw", ("step-000000003 was written with another optimizer than AdamW", "config.yaml")),
    ],
)
def test_a_checkpoint_of_another_architecture_or_optimizer_is_refused_and_the_run_stays_as_it_was(
    generator, world, tmp_path, capsys, other, reasons
) -> None:
    run = tmp_path / "run"
    shutil.copytree(generator, run)
    before = contents(run)
    error = refused([*generator_words(run, world, 9), other], capsys)
    assert all(reason in error for reason in reasons)
    assert contents(run) == before
    moviegen("export", f"run_dir={run}", f"out={tmp_path / 'model'}")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing", "manifest", "former"])
def test_a_damaged_checkpoint_is_one_clear_error_and_stays_untouched(
    generator, world, tmp_path, capsys, damage
) -> None:
    run = tmp_path / "run"
    shutil.copytree(generator, run)
    folder = run / "checkpoints" / "step-000000003"
    data = (folder / "rank-00000.safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")  # of the tensors, behind safetensors' header
    flipped = data[:begin] + bytes(byte ^ 1 for byte in data[begin:])  # an export reads no optimizer state
    kinds = {"cut": data[: len(data) // 2], "flipped": flipped, "empty": b""}
    (folder / "rank-00000.safetensors").write_bytes(kinds.get(damage, data))
    if damage == "missing":
        (folder / "rank-00000.safetensors").unlink()
    if damage == "manifest":
        (folder / "manifest.json").write_text("{}")
    if damage == "former":
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").mkdir()
        torch.save({"weights": torch.zeros(2)}, run / "checkpoints" / "last.ckpt")
    before = contents(run)
    error = refused(generator_words(run, world, 9), capsys)
    assert "use another run_dir" in error
    assert damage == "former" or ("no readable checkpoint" in error and "step-000000003" in error)
    error = refused(["export", f"run_dir={run}", f"out={tmp_path / 'model'}"], capsys)
    assert "no readable checkpoint" in error
    assert contents(run) == before and not list(tmp_path.glob("model*"))


def test_a_damaged_checkpoint_turns_a_run_back_to_the_one_before(generator, world, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(generator, run)
    train_generator(run, world, 4, USUAL)
    newest = run / "checkpoints" / "step-000000004" / "rank-00000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    train_generator(run, world, 5, USUAL)
    assert "going on from" in capsys.readouterr().err and steps_of(run) == 5
    train_generator(tmp_path / "whole", world, 5, USUAL)
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(run)[name], value, rtol=0, atol=0)


def test_prompts_that_are_not_utf8_are_refused_before_anything_is_written(
    generator, tmp_path, capsys
) -> None:
    bad = tmp_path / "prompts.txt"
    bad.write_bytes(b"a red star\n\xff\xfe broken")
    assert (
        cli.main(
            ["generate", f"run_dir={tmp_path / 'out'}", f"model={generator / 'model'}", f"prompts={bad}"]
        )
        == 2
    )
    assert "prompts.txt is not UTF-8: byte 11 is 0xff" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_judge_and_report_read_what_reconstruct_and_generate_wrote(generator, world, tmp_path) -> None:
    prompts = tmp_path / "prompts"
    moviegen(
        "eval",
        "prompts",
        f"out={prompts}",
        f"shards={world['shards']}",
        "heldout=3",
        "template=2",
        "free=[a red star]",
    )
    moviegen(
        "generate", f"run_dir={tmp_path / 'clips'}", f"model={generator / 'model'}", "num_threads=1",
        f"prompts={prompts / 'prompts.jsonl'}", "sampler.num_steps=2",
    )  # fmt: skip
    moviegen(
        "reconstruct", f"run_dir={tmp_path / 'pairs'}", f"codec={world['codec']}", f"shards={world['shards']}",
        f"specs={prompts / 'specs.jsonl'}", "max_clips=3", "num_threads=1",
    )  # fmt: skip
    moviegen(
        "eval", "judge", f"out={tmp_path / 'judged'}", f"generations={tmp_path / 'clips'}", "level=4",
        f"reconstructions={tmp_path / 'pairs'}", f"train_shards={world['shards']}",
    )  # fmt: skip
    names = {row["name"] for row in json.loads((tmp_path / "judged" / "numbers.json").read_text())}
    assert {
        "tae/toyworld/psnr",
        "tae/toyworld/psnr_pca",
        "t2v/colour",
        "t2v/colour/floor",
        "t2v/colour/ceiling",
    } <= names
    moviegen("eval", "report", f"judged={tmp_path / 'judged'}", f"out={tmp_path / 'report.html'}")
    assert (tmp_path / "report.html").read_text().count("<video") >= 3
