"""From a checkpoint to scores: metrics during training, a suite generated in parts and resumed, and its scores."""

import csv
import json
from pathlib import Path

import pytest
from moviegen_eval.manifest import read_manifest
from moviegen_eval.scores import read_scores
from toy_run import PROMPTS, QUICK, SMALL_CODEC, moviegen, train_generator

from moviegen import cli

METRICS = "+callbacks.metrics={_target_: moviegen.callbacks.metrics.Metrics, names: [%s]%s}"
SUITE = "suite='toyworld:level=1,num=3'"


@pytest.fixture(scope="module")
def generator(world: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of a few steps whose validations scored clips of two prompts."""
    run = tmp_path_factory.mktemp("generator") / "t2v"
    more = METRICS % ("free", ", prompts: ${prompts}, sampler: ${sampler}")
    train_generator(run, world, 3, more)
    return run


def logged(run: Path) -> dict[str, float]:
    """The last value of each column of a run's log."""
    values: dict[str, float] = {}
    for path in run.rglob("metrics.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                values |= {key: float(value) for key, value in row.items() if value}
    return values


def test_validations_log_metrics_of_generated_clips(generator: Path) -> None:
    values = logged(generator)
    assert {"metrics/flicker", "metrics/flicker_alternating", "metrics/motion"} <= values.keys()
    assert values["metrics/flicker"] > 0 and "metrics/psnr" not in values
    assert len(PROMPTS) == 2


def test_validations_of_a_codec_log_metrics_against_the_source(
    world: dict[str, Path], tmp_path: Path
) -> None:
    moviegen(
        "train", "experiments=toy/tae", f"run_dir={tmp_path / 'tae'}", f"paths.shards={world['shards']}",
        "trainer.max_steps=2", "schedule=constant", "trainer.val_check_interval=2", "data=toyworld_clips",
        "data.batch_size=2", *SMALL_CODEC, *QUICK, METRICS % ("psnr, ssim", ""),
    )  # fmt: skip
    values = logged(tmp_path / "tae")
    assert 3 < values["metrics/psnr"] < 40 and 0 <= values["metrics/ssim"] < 1


def test_a_suite_is_generated_in_parts_goes_on_and_is_scored(generator: Path, tmp_path: Path, capfd) -> None:
    arm = tmp_path / "ours"
    words = ["eval", "generate", f"out={arm}", SUITE, f"model={generator / 'model'}", "num_parts=2"]
    words += ["+settings={sampler: {num_steps: 2}, num_threads: 1}", "card.date=2026-11-21"]
    moviegen(*words, "part=1")
    assert "part 0 is not" in capfd.readouterr().out and not (arm / "arm.yaml").exists()
    (arm / "parts" / "0001-of-0002-try0" / "heldout-002.mp4").unlink()  # as if it had been broken off there
    (arm / "parts" / "0001-of-0002-try0" / "manifest.jsonl").unlink()
    moviegen(*words, "part=1")
    moviegen(*words, "part=0")
    samples = read_manifest(arm)
    assert [sample.id for sample in samples] == ["heldout-001", "heldout-002", "heldout-003"]
    assert all((arm / sample.path).is_file() and sample.spec for sample in samples)
    card = (arm / "arm.yaml").read_text()
    assert "steps: 2" in card and "date: '2026-11-21'" in card and "prompt_rewriting: none" in card
    moviegen(
        "eval",
        "score",
        f"out={tmp_path / 'scores'}",
        SUITE,
        f"+arms.ours={arm}",
        "metrics=[flicker,oracle]",
        "num_threads=1",
    )
    scores = {one.output: one for one in read_scores(tmp_path / "scores").scores}
    assert scores["oracle_all"].n == 3 and scores["flicker"].value > 0
    assert cli.main([*words, "part=0", "seeds=[0,1]"]) == 2
    assert "is of seeds [0], not [0, 1]; choose another out" in capfd.readouterr().err
    assert json.loads((arm / "suite.json").read_text())["prompts"] == 3


def test_a_model_that_cannot_generate_is_said_in_one_line(
    world: dict[str, Path], tmp_path: Path, capfd
) -> None:
    words = [
        "eval",
        "generate",
        f"out={tmp_path / 'x'}",
        SUITE,
        f"model={world['codec']}",
        "settings.num_threads=1",
    ]
    assert cli.main(words) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: moviegen generate: ") and "give a text-to-video model" in error
