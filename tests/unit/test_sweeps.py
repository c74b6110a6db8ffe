"""What all sweeps of trainings share: which command made an output, and commands that are looked at before they run."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_sampler_experiments import ROOT

from moviegen.config import UserError

sys.path.insert(0, str(ROOT))
from sweeps import check_command, of_sampling, run_stage

WORDS = ["train", "seed=0", "trainer.max_steps=20"]


def test_an_output_of_other_settings_ends_the_sweep_and_one_of_the_same_is_not_made_again(
    tmp_path: Path,
) -> None:
    calls: list[Sequence[str]] = []
    output = tmp_path / "run" / "model.safetensors"

    def call(words: Sequence[str]) -> int:
        calls.append(words)
        output.parent.mkdir(exist_ok=True)
        output.touch()
        return 0

    for _ in range(2):
        run_stage(call, WORDS, output)
    assert calls == [WORDS]
    said = r"model\.safetensors was made by other settings \(trainer\.max_steps=20; now trainer\.max_steps=600\); "
    with pytest.raises(SystemExit, match=f"{said}choose another --out or delete it"):
        run_stage(call, [*WORDS[:2], "trainer.max_steps=600"], output)
    with pytest.raises(SystemExit, match=r"\(trainer\.max_steps=20; now without it\)"):
        run_stage(call, WORDS[:2], output)
    output.unlink()
    run_stage(call, WORDS[:2], output)
    run_stage(call, WORDS[:2], output)
    assert len(calls) == 2


def test_an_output_of_which_nobody_knows_how_it_was_made_is_taken_and_a_failure_names_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "made").touch()
    run_stage(lambda words: 1, WORDS, tmp_path / "made")
    with pytest.raises(RuntimeError, match=r"ended with code 1 and without .*missing"):
        run_stage(lambda words: 1, WORDS, tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_command_is_looked_at_without_being_run() -> None:
    check_command(["eval", "edits", "out=o", "set=s", "+arms.copy=c", "~bars"])
    with pytest.raises(UserError, match=r"unknown key 'per_kin'; did you mean 'per_kind'"):
        check_command(["eval", "edit_set", "out=o", "per_kin=2"])


def test_what_holds_for_sampling_is_told_from_what_holds_for_training() -> None:
    words = ["trainer.max_steps=2", "sampler.num_steps=3", "keep=null", "num_threads=1"]
    assert of_sampling(words) == ["sampler.num_steps=3", "num_threads=1"]
