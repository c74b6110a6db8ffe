"""Every figure that toyworld clips are behind says their level."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from arm_samples import write_arm, write_suite
from comparison_samples import report_config, write_comparison
from moviegen_eval.config import ReportConfig
from moviegen_eval.curves import csv_figures
from moviegen_eval.numbers import Figure, at_level, read_numbers
from moviegen_eval.report.comparison import read_comparison
from moviegen_eval.report.figures_of import comparison_figures
from moviegen_eval.study.study import load_study
from moviegen_eval.study_draft import draft
from moviegen_eval.upscaled import figures_of
from study_samples import small_study, write_study

from moviegen import cli

ROOT = Path(__file__).resolve().parents[2]
FILMED = re.compile(r"(tae|upsample)/real(_degraded)?/")  # the figures of clips that nobody drew
DRAWN = ("toy", "upsample", "edit")  # experiments all of whose other figures are of toyworld


@pytest.mark.parametrize("experiment", DRAWN)
def test_every_figure_that_is_shipped_and_not_of_filmed_clips_names_its_level(experiment: str) -> None:
    figures = read_numbers(ROOT / "experiments" / experiment / "numbers.json")
    told = {figure.name: "toyworld level 4" in figure.unit for figure in figures}
    assert [name for name, said in told.items() if said == bool(FILMED.match(name))] == []


def test_a_level_ends_the_unit() -> None:
    figure = Figure("a/b", 1.0, None, None, 1, "dB", True)
    assert at_level(figure, None) is figure
    assert at_level(figure, 3).unit == "dB, toyworld level 3"
    assert at_level(replace(figure, unit=""), 3).unit == "toyworld level 3"


def test_a_figure_of_a_log_names_the_level_that_the_judge_is_given(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,val/loss\n0,2.0\n")
    wanted = [{"column": "val/loss", "take": "last", "unit": "loss", "higher_is_better": False}]
    assert csv_figures({"t2v": str(tmp_path)}, wanted)[0].unit == "loss"
    assert csv_figures({"t2v": str(tmp_path)}, wanted, 2)[0].unit == "loss, toyworld level 2"


def test_only_the_drawn_clips_among_upscaled_ones_have_a_level() -> None:
    measures = ("psnr", "st_lpips", "vmaf", "flicker", "seam_space", "seam_time")
    ways = {way: dict.fromkeys(measures, 1.0) for way in ("upsampler", "bicubic", "lanczos")}
    rows = [{"set": "real", "level": None, "ways": ways}, {"set": "toyworld", "level": 4, "ways": ways}] * 3
    units = {figure.name: figure.unit for figure in figures_of(rows)}
    assert units["upsample/real/psnr/upsampler"] == "dB" and units["upsample/real/vmaf/lanczos"] == ""
    assert units["upsample/toyworld/vmaf/lanczos"] == "toyworld level 4"
    assert all(unit.endswith("toyworld level 4") for name, unit in units.items() if "/toyworld/" in name)


def test_a_study_drafted_on_a_suite_of_toyworld_keeps_its_level_and_others_say_nothing(
    tmp_path: Path,
) -> None:
    write_suite(tmp_path / "suite.csv", 2)
    arms = {}
    for name in ("ours", "sora"):
        arms[name] = str(write_arm(tmp_path / name, num=2))
        for n in range(2):
            shutil.copy(tmp_path / name / f"p-{n:02d}.mp4", tmp_path / name / f"heldout-{n + 1:03d}.mp4")
    given = {"arms": arms, "axes": ["overall"]}
    for suite, level in (("toyworld:level=2,num=2", 2), (str(tmp_path / "suite.csv"), None)):
        study = draft({"out": str(tmp_path / f"{level}.yaml"), "suite": suite, **given})
        again = load_study(tmp_path / f"{level}.yaml")
        assert (study.level, again.level, again.digest) == (level, level, study.digest)
        assert ('"level"' in study.canonical_json()) == (level is not None)
    assert replace(again, level=2).digest != again.digest


def test_an_analysis_of_a_study_of_toyworld_names_the_level_in_every_figure(tmp_path: Path) -> None:
    study = write_study(tmp_path, small_study(12, level=3))
    votes = tmp_path / "votes.jsonl"
    for words in (["simulate", "raters=5"], ["analyse", f"out={tmp_path / 'out'}", "resamples=100"]):
        command, *more = words
        assert cli.main(["eval", "study", command, f"study={study}", f"votes={votes}", *more]) == 0
    figures = read_numbers(tmp_path / "out" / "numbers.json")
    assert figures and all(figure.unit.endswith("toyworld level 3") for figure in figures)
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["level"] == 3


def test_a_report_names_the_level_of_a_study_in_its_figures_and_in_those_of_agreement(tmp_path: Path) -> None:
    write_comparison(tmp_path)
    comparison = read_comparison(ReportConfig(**report_config(tmp_path)))
    assert comparison.study is not None
    plain = comparison_figures(comparison)
    drawn = comparison_figures(replace(comparison, study=replace(comparison.study, level=3)))
    assert {figure.name.split("/")[0] for figure in plain} == {"study", "score", "agreement"}
    for before, after in zip(plain, drawn, strict=True):
        own = before.name.startswith("score/")  # scores say theirs when they are written
        assert after == (before if own else replace(before, unit=f"{before.unit}, toyworld level 3"))
