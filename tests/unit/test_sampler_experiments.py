"""experiments/schedules and experiments/speed/sampler, whole, on a tiny model."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from moviegen_eval.numbers import read_numbers
from moviegen_eval.report.lines import lines_svg
from test_generate import model  # noqa: F401 (a fixture)

ROOT = Path(__file__).resolve().parents[2] / "experiments"
SIZE = ["--size", "4", "16", "16"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_errors_of_all_solvers_and_schedules_are_measured_and_fall_with_evaluations(model, tmp_path) -> None:  # noqa: F811
    pytest.importorskip("torchdiffeq")
    schedules = script("schedules")
    few = ["--clips", "2", "--budgets", "4", "16", "--reference-steps", "200", "--emulated-steps", "20", "40"]
    load = schedules.load_task

    def moving(path: str):
        """The model with random weights, always the same, so that there is something to integrate."""
        task = load(path)
        torch.manual_seed(0)
        for parameter in task.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return task

    schedules.load_task = moving
    schedules.main(["--model", model, "--out", str(tmp_path), *SIZE, *few])
    found = {figure.name: figure for figure in read_numbers(tmp_path / "numbers.json")}
    forms = [f"linear_quadratic{form}_{steps}" for form in ("", "_mindone") for steps in (20, 40)]
    for solver in ("euler", "midpoint", "heun"):
        for schedule in ("linear", "shifted", *forms):
            few_steps, many = (found[f"schedules/{solver}/{schedule}/error_{count}"] for count in (4, 16))
            assert few_steps.value > many.value > 0 and many.n == 2
    assert found["schedules/euler/linear/error_200"].value < found["schedules/euler/linear/error_16"].value
    adaptive = [figure for name, figure in found.items() if "dopri5/adaptive" in name]
    assert len(adaptive) >= 2
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.count("<path") == 1 + 19 and "midpoint, shifted" in drawn


def test_the_reference_may_be_of_another_family_than_the_solvers(model, tmp_path, capsys) -> None:  # noqa: F811
    pytest.importorskip("torchdiffeq")
    few = ["--clips", "1", "--budgets", "4", "--reference-steps", "20", "--emulated-steps", "20"]
    neutral = ["--reference", "dopri5", "--reference-tolerance", "1e-3"]
    script("schedules").main(["--model", model, "--out", str(tmp_path), *SIZE, *few, *neutral])
    assert capsys.readouterr().out.startswith("reference dopri5: ")


def test_the_captions_that_are_measured_are_all_different() -> None:
    texts = script("schedules").prompts(16)
    assert len(set(texts)) == 16 and texts[0].startswith("a big red circle moves left on a plain background")


def test_the_overhead_of_the_sampler_is_a_share_of_its_time(model, tmp_path) -> None:  # noqa: F811
    script("speed/sampler").main(
        ["--model", model, "--out", str(tmp_path), *SIZE, "--batch", "2", "--steps", "4", "--rounds", "3"]
    )
    rows = json.loads((tmp_path / "numbers.json").read_text())
    assert [row["name"] for row in rows] == [
        f"sampler/{solver}/{name}"
        for solver in ("euler", "midpoint", "heun")
        for name in ("overhead", "step")
    ]
    assert all(0 < row["value"] < 1 for row in rows if row["name"].endswith("overhead"))


def test_a_chart_refuses_what_it_cannot_place() -> None:
    with pytest.raises(ValueError, match="no curve has a point"):
        lines_svg("t", "x", "y", {"a": []})
    with pytest.raises(ValueError, match="positive"):
        lines_svg("t", "x", "y", {"a": [(1, 0)]})
    assert lines_svg("t", "x", "y", {"<a>": [(1, 0), (2, 3)]}, log=False).count("&lt;a&gt;") == 1
