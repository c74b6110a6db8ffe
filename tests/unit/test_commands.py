"""The settings of each command: their values are held against the command's dataclass before anything runs."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import yaml

from moviegen import cli
from moviegen.config import compose, validate
from moviegen.signatures import locate

CONF = Path(__file__).resolve().parents[2] / "conf"
FILES = [command.config for command in cli.COMMANDS.values() if command.config]
DTYPES = "expected one of float32, bfloat16"


@pytest.mark.parametrize("name", FILES)
def test_each_command_s_file_names_a_dataclass_and_lists_all_of_its_keys(name: str) -> None:
    root = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    cls = locate(root["_target_"])
    assert dataclasses.is_dataclass(cls)
    groups = {"sources"} | {
        next(iter(entry)).split("@")[-1] for entry in root.get("defaults", []) if isinstance(entry, dict)
    }
    assert {field.name for field in dataclasses.fields(cls)} <= set(root) | groups


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("train export_dtype=float16", DTYPES),
        ("export run_dir=x dtype=fp16", DTYPES),
        ("generate prompts=p.txt precision=bf16", DTYPES),
        ("reconstruct shards=x precision=bf16", DTYPES),
        ("encode precision=half", DTYPES),
        ("train num_threads=abc", "num_threads=abc: expected an integer or null, not text"),
        ("generate prompts=p.txt num_threads=0", "num_threads=0: must be at least 1"),
        ("generate prompts=p.txt batch_size=0", "batch_size=0: must be at least 1"),
        ("encode batch_size=1.5", "batch_size=1.5: expected an integer"),
        ("reconstruct shards=x max_clips=0", "max_clips=0: must be at least 1"),
        ("train seed=-1", "seed=-1: must be at least 0"),
        (
            "train task.path.sigma_min={_target_:moviegen.callbacks.ema.EMA}",
            "sigma_min._target_=moviegen.callb",
        ),
        ("train trainer.accelerator=mps", "Lightning refuses trainer.accelerator=mps, "),
        ("train trainer.accelerator=tpu", "Lightning refuses trainer.accelerator=tpu, "),
        ("train trainer.precision=half", "precision"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_is_written(
    tmp_path: Path, monkeypatch, capsys, line: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and hint in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_have_a_number_for_a_name() -> None:
    cfg = compose("generate", ["run_dir=2024", "prompts=p.txt", "model=7"])
    assert (cfg.run_dir, cfg.model) == ("2024", "7")
    validate(cfg)


def readme_lines() -> list[list[str]]:
    """Words of each `moviegen` command of the first README, as a shell would give them."""
    text = (CONF.parent / "README.md").read_text()
    (demo,) = re.findall(r'^ +demo="(.*)"$', text, re.MULTILINE)
    lines = re.findall(r"^ +\.venv/bin/moviegen (.*)$", text, re.MULTILINE)
    return [shlex.split(line.replace("$demo", demo), comments=True) for line in lines]


EXAMPLES = [
    [*name.split(), *shlex.split(line)] for name, command in cli.COMMANDS.items() for line in command.examples
]


@pytest.mark.parametrize("words", [*EXAMPLES, *readme_lines()], ids=" ".join)
def test_each_example_of_the_help_and_each_line_of_the_readme_is_taken_as_it_stands(
    tmp_path: Path, monkeypatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    monkeypatch.setattr(cli, "load", lambda function: lambda *given, **more: ran.append(function))
    monkeypatch.setattr(cli, "_one_after_the_other", lambda name, jobs: ran.append(name))
    cli.run(words)
    assert ran or words[-1] == "--help"
