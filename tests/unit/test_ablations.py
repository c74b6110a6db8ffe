"""Captions without motion, and what the ablation harness and the scaling law make of results."""

import sys
from pathlib import Path

import numpy as np
import pytest
from moviegen_data.toyworld.captions import caption
from moviegen_data.toyworld.config import WorldConfig
from moviegen_data.toyworld.script import draw_scene
from moviegen_eval.numbers import read_numbers
from moviegen_eval.stats import student_mean
from test_sampler_experiments import ROOT, script

sys.path.insert(0, str(ROOT / "ablations"))
from captions import without_motion

ablations, scaling = script("ablations"), script("ablations/scaling")


def test_no_word_of_motion_is_left_in_a_caption_and_what_is_seen_stays() -> None:
    rng = np.random.default_rng(0)
    moving = ("move", "left", "right", "spin", "rotat", "bounc", "camera", "push", "shove", "carr", "hits", "still",
              "collide", "crash", "zoom", "clock", "drift", "sink", "rise", "{", " .", ",.", "..", ": ")  # fmt: skip
    for _ in range(200):
        scene = draw_scene(WorldConfig(level=4), rng)
        told = without_motion(caption(scene, "train", rng))
        assert [word for word in moving if word in told] == [], told
        for sprite in scene.sprites:
            assert sprite.color in told and sprite.shape in told
    assert without_motion("a big red star spins. the camera is still, and there is a plain background.") == (
        "a big red star, and there is a plain background."
    )


def results(shift: float) -> dict[int, dict[str, float]]:
    return {seed: {"t2v/colour": 0.5 + 0.1 * seed + shift} for seed in (0, 1, 2)}


def test_a_difference_between_arms_is_taken_seed_by_seed() -> None:
    rows = {f.name: f for f in ablations.summary({"flow_matching": results(0.0), "dit_block": results(-0.2)})}
    base, difference = (
        rows["ablations/flow_matching/t2v/colour"],
        rows["ablations/dit_block/t2v/colour/minus_base"],
    )
    assert base.value == pytest.approx(0.6) and base.n == 3
    assert base.high - base.low == pytest.approx(
        2 * 4.302653 * 0.1 / 3**0.5, rel=1e-4
    )  # t, two degrees of freedom
    assert difference.value == pytest.approx(-0.2) and difference.high - difference.low == pytest.approx(
        0, abs=1e-9
    )
    said = {name: ablations.paper_said(row) for name, row in rows.items()}
    assert said["ablations/dit_block/t2v/colour/minus_base"] == "18.63 / 12.60" and "" in said.values()
    assert "| seeds | paper: x |" in sys.modules["sweeps"].table(
        list(rows.values()), "seeds", "x", lambda row: ""
    )
    one = ablations.summary({"flow_matching": {0: {"t2v/colour": 0.5}}})
    assert one[0].low is None and student_mean([1.0]) is None


def test_the_base_must_be_among_the_arms_and_a_failed_stage_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        ablations.main(["--latents", str(tmp_path), "--arms", "diffusion"])
    with pytest.raises(RuntimeError, match=r"eval prompts.*ended with code 3"):
        ablations.main(["--latents", str(tmp_path), "--out", str(tmp_path / "out")], call=lambda words: 3)


def planted(number: float, flops: float) -> float:
    """A loss whose best size is 20 C^0.4, with 3 C^-0.05 there."""
    return 3 * flops**-0.05 + 0.02 * np.log(number / (20 * flops**0.4)) ** 2


def sizes_around(flops: float) -> list[float]:
    return [20 * flops**0.4 * factor for factor in (0.3, 0.7, 1.5, 4)]


def test_the_law_that_was_planted_is_found() -> None:
    law = sys.modules["law"]
    budgets = (1e12, 1e13, 1e14, 1e15)
    runs = [law.Run(n, c, planted(n, c)) for c in budgets for n in sizes_around(c)]
    found = law.optima(runs)
    assert all(optimum.inside for optimum in found)
    rows = {figure.name: figure for figure in scaling.figures(found)}
    assert rows["scaling/size_exponent"].value == pytest.approx(0.4)
    assert rows["scaling/loss_exponent"].value == pytest.approx(-0.05)
    noise = np.random.default_rng(0).normal(1, 0.2, 4)
    noisy = law.power_law(budgets, [20 * c**0.4 * e for c, e in zip(budgets, noise, strict=True)])
    assert noisy.low < 0.4 < noisy.high and noisy.high - noisy.low > 0.01


def test_a_budget_whose_best_size_is_the_largest_has_no_optimum_inside() -> None:
    law = sys.modules["law"]
    runs = [law.Run(n, 1e13, 5 - 0.01 * np.log(n) ** 2) for n in (1e5, 1e6, 1e7)]
    (optimum,) = law.optima(runs)
    assert not optimum.inside and optimum.num_parameters == pytest.approx(1e7)
    assert [figure.name for figure in scaling.figures([optimum])] == ["scaling/budgets_with_an_optimum"]
    with pytest.raises(ValueError, match="three sizes, got 1"):
        law.optima(runs[:1])


def test_the_interval_of_a_power_law_covers_the_truth_as_often_as_it_says() -> None:
    law, rng = sys.modules["law"], np.random.default_rng(1)
    x, hits = np.array([1.0, 3.0, 10.0, 30.0]), 0
    for _ in range(400):
        slope = law.power_law(x, 2 * x**0.5 * np.exp(rng.normal(0, 0.1, 4)))
        hits += slope.low < 0.5 < slope.high
    assert 0.92 < hits / 400 < 0.98


def test_the_cost_of_a_training_step_is_counted_and_grows_with_the_size() -> None:
    grid = scaling.Grid(2, 4, 4)
    costs = {size: scaling.cost(scaling.backbone_config(size, 16), grid, 24) for size in scaling.SIZES}
    numbers = [number for number, _ in costs.values()]
    assert numbers == sorted(numbers) and numbers[-1] > 20 * numbers[0]
    dim, layers, _, ffn = scaling.SIZES["m"]
    tokens, text = grid.num_tokens, 24
    matrices = layers * (tokens * (6 * dim**2 + 3 * dim * ffn) + text * 2 * dim**2)
    scores = layers * 2 * dim * tokens * (tokens + text)
    ends = tokens * dim * 2 * 64 + 256 * dim + dim**2 + 6 * dim**2  # embed, out; the time's network
    assert costs["m"][1] == 3 * 2 * (matrices + scores + ends)


def test_the_scaling_study_trains_every_size_at_every_budget_once_and_writes_its_law(tmp_path: Path) -> None:
    calls = []

    def call(words: list[str]) -> int:
        settings = dict(word.split("=", 1) for word in words[1:])
        calls.append(settings)
        folder = Path(settings["run_dir"])
        (folder / "log").mkdir(parents=True)
        (folder / "model.safetensors").touch()
        loss = 1 / float(settings["trainer.max_steps"]) + 1 / float(settings["task.backbone.config.dim"])
        (folder / "log" / "metrics.csv").write_text(f"step,val/loss\n5,{loss}\n")
        return 0

    words = [
        "--latents",
        "x",
        "--out",
        str(tmp_path),
        "--budgets",
        "1e11",
        "3e11",
        "1e12",
        "--seeds",
        "0",
        "1",
    ]
    scaling.main(words, call)
    assert len(calls) == 3 * 4 * 2
    names = {figure.name for figure in read_numbers(tmp_path / "numbers.json")}
    assert "scaling/loss_exponent" in names and (tmp_path / "curves.svg").read_text().count("<path") == 4
    scaling.main(words, call)
    assert len(calls) == 3 * 4 * 2  # what is finished is not run again
    with pytest.raises(RuntimeError, match="ended with code 1"):
        scaling.main([*words[:3], str(tmp_path / "other"), *words[4:]], call=lambda words: 1)
