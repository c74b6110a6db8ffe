"""The sweep of personalization's ablations: which commands it gives, what it makes of their figures."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from moviegen_eval.numbers import Figure, read_numbers, write_numbers
from test_sampler_experiments import script

from moviegen import cli
from moviegen.config import compose, validate

sweep = script("personalize")
GIVEN = {"cross": (0.80, 0.50), "paired": (0.84, 0.30), "frozen": (0.60, 0.50)}  # identity_mean, variation


class Console:
    """Stands for the console: checks that each command composes, and leaves its output."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, words: Sequence[str]) -> int:
        name, overrides = cli.split_command(list(words))
        assert name is not None
        config = cli.COMMANDS[name].config
        assert config is not None
        validate(compose(config, overrides))
        self.commands.append(list(words))
        values = dict(word.lstrip("+").split("=", 1) for word in overrides)
        out = Path(values.get("run_dir") or values["out"])
        out.mkdir(parents=True)
        if name == "eval identity":
            arms = [key.split(".")[1] for key in values if key.startswith("arms.")]
            assert arms[0] == "cross" and values["compare"] == "['cross,paired','cross,frozen']"
            write_numbers(out / "numbers.json", figures(arms, float(out.name) / 100))
            return 0
        left = {
            "train": "model.safetensors",
            "personalize": "manifest.jsonl",
            "eval prompts": "prompts.jsonl",
        }
        (out / left[name]).touch()
        return 0


def figures(arms: list[str], shift: float) -> list[Figure]:
    found = []
    for arm in arms:
        part = "personalize" if arm == "cross" else f"personalize/{arm}"
        for name, value in zip(("identity_mean", "variation"), GIVEN[arm], strict=True):
            found.append(Figure(f"{part}/{name}", value + shift, None, None, 96, "x", True))
    return [*found, Figure("personalize/cross_minus_paired/variation", 0.2, 0.1, 0.3, 96, "difference", True)]


def test_each_arm_is_trained_with_each_seed_and_differences_are_taken_seed_by_seed(
    tmp_path: Path, capsys
) -> None:
    console = Console()
    words = ["--latents", str(tmp_path / "latents"), "--out", str(tmp_path / "o"), "num_threads=1"]
    sweep.main(words, console)
    trained = [line for line in console.commands if line[0] == "train"]
    assert len(trained) == 9 and all("num_threads=1" in line for line in trained)
    assert {line[1] for line in trained} == {f"experiments=personalize/{arm}" for arm in GIVEN}
    found = {figure.name: figure for figure in read_numbers(tmp_path / "o" / "numbers.json")}
    less = found["personalize/paired/variation/minus_base"]
    assert (
        less.value == pytest.approx(-0.2)
        and less.n == 3
        and less.high - less.low == pytest.approx(0, abs=1e-9)
    )
    assert found["personalize/frozen/identity_mean"].value == pytest.approx(0.61)
    assert found["personalize/seed2/cross_minus_paired/variation"].low == 0.1
    assert (
        "identity -16 %" in (tmp_path / "o" / "table.md").read_text()
        and "minus_base" in capsys.readouterr().out
    )
    before = len(console.commands)
    sweep.main(words, console)
    assert len(console.commands) == before  # what is finished is not run again


def test_the_base_must_be_among_the_arms(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        sweep.main(["--latents", str(tmp_path), "--arms", "paired"])
