"""Intervals, chance levels, and figures from logs."""

from pathlib import Path

import numpy as np
import pytest
from moviegen_eval.curves import csv_figures, read_curves
from moviegen_eval.report.charts import thin
from moviegen_eval.stats import bootstrap_mean, derangement, prompt_share, wilson


def test_wilson_gives_the_textbook_interval():
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))


def test_wilson_does_not_collapse_at_the_ends_and_is_symmetric():
    low, high = wilson(64, 64)
    assert high == 1.0 and low == pytest.approx(0.9434, abs=1e-4)
    assert wilson(0, 64) == (0.0, pytest.approx(1 - low))
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match=r"0\.\.5"):
        wilson(6, 5)


@pytest.mark.parametrize(("size", "least"), [(8, 0.92), (20, 0.92)])
def test_bootstrap_intervals_cover_the_true_mean_about_95_times_in_100(size: int, least: float):
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(3.0, 2.0, size), count=1000, seed=i) for i in range(400)]
    covered = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert least <= covered <= 0.985


def test_bootstrap_is_a_function_of_its_seed_and_needs_two_values():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values, 500, 1) == bootstrap_mean(values, 500, 1) != bootstrap_mean(values, 500, 2)
    assert bootstrap_mean([1.0], 500, 1) is None
    assert bootstrap_mean([0.1] * 3, 500, 1) == (pytest.approx(0.1), pytest.approx(0.1))


def test_clips_of_one_prompt_count_once():
    once = prompt_share(["a", "b", "c", "d"], [True, True, True, False])
    often = prompt_share(["a", "b", "c", "d"] * 9, [True, True, True, False] * 9)
    assert once == often and once.value == 0.75 and once.num_prompts == 4
    mixed = prompt_share(["a", "a", "b"], [True, False, True])
    assert mixed.value == 0.75
    assert prompt_share([], []) is None


def test_derangements_move_everything_and_differ():
    rng = np.random.default_rng(0)
    orders = [derangement(7, rng) for _ in range(200)]
    for order in orders:
        assert sorted(order) == list(range(7)) and not (order == np.arange(7)).any()
    assert len({tuple(order) for order in orders}) > 100
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, rng)


def test_logs_with_empty_cells_and_a_resumed_run_become_curves(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.csv").write_text(
        "step,train/loss,val/loss\n0,3.0,\n0,,4.0\n10,nan,\n20,1.0,\n"
    )
    (tmp_path / "b").mkdir()
    later = tmp_path / "b" / "metrics.csv"
    later.write_text("step,train/loss\n20,0.9\n30,0.8\n")
    curves = read_curves(tmp_path)
    assert curves["train/loss"] == [(0.0, 3.0), (20.0, 0.9), (30.0, 0.8)]
    assert curves["val/loss"] == [(0.0, 4.0)]
    wanted = [{"column": "train/loss", "take": "best_low", "unit": "loss", "higher_is_better": False}]
    (figure,) = csv_figures({"t2v": str(tmp_path), "none": str(tmp_path / "missing")}, wanted)
    # one run is one draw, however often it wrote the number down
    assert (figure.name, figure.value, figure.n) == ("t2v/train/loss", 0.8, 1)
    with pytest.raises(ValueError, match="best_low"):
        csv_figures({}, [wanted[0] | {"take": "first"}])


def test_long_curves_are_thinned_to_means():
    curve = [(float(step), float(step % 2)) for step in range(1000)]
    short = thin(curve, limit=100)
    assert len(short) == 100 and short[-1][0] == 999.0
    assert all(value == 0.5 for _, value in short)
