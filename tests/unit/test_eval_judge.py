"""Judging: toyworld clips in; figures, verdicts and bars out."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from eval_samples import NUM_FREE, NUM_HELDOUT, NUM_PAIRS, NUM_TEMPLATE, judge_config, write_job, write_shard
from moviegen_data.toyworld import oracle
from moviegen_eval import judge as judging
from moviegen_eval.judge import judge
from moviegen_eval.manifest import read_manifest
from moviegen_eval.numbers import Figure, read_numbers
from moviegen_eval.shards import count_clips, find_shards, iterate_clips
from moviegen_eval.verdicts import (
    Observed,
    Verdict,
    judge_observation,
    observe_file,
    read_verdicts,
    shuffled_floor,
)

from moviegen import cli
from moviegen.media import reading, write_video


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("job")
    write_job(root)
    judge(judge_config(root))
    yield root


@pytest.fixture
def figures(job: Path) -> dict[str, Figure]:
    return {figure.name: figure for figure in read_numbers(job / "judged" / "numbers.json")}


def test_the_agreed_figures_are_there(figures: dict[str, Figure]):
    assert {
        f"tae/{name}/{kind}" for name in ("toyworld", "real") for kind in ("psnr", "ssim", "psnr_pca")
    } <= set(figures)
    for attribute in ("colour", "shape", "motion", "background"):
        for name in (f"t2v/{attribute}", f"t2v/template/{attribute}"):
            assert {name, f"{name}/floor", f"{name}/ceiling"} <= set(figures)
    assert figures["t2v/val/loss"].value == pytest.approx(2.1 / 7)
    assert figures["t2v/val/loss"].unit == "loss, toyworld level 2"
    assert figures["tae/toyworld/psnr"].n == NUM_PAIRS and figures["tae/real/psnr"].n == 2


def test_true_clips_score_high_and_well_above_the_floor(figures: dict[str, Figure]):
    for attribute in ("colour", "shape", "motion", "background"):
        figure, floor = figures[f"t2v/{attribute}"], figures[f"t2v/{attribute}/floor"]
        assert figure.value >= 0.85 > 0.6 >= floor.value
        assert figure.n <= NUM_HELDOUT and figure.unit == "share, toyworld level 2"
        assert figure.low is not None and figure.low < figure.value
    assert figures["t2v/colour/ceiling"].value == 1.0


def test_the_difference_to_pca_is_the_difference_of_the_means(figures: dict[str, Figure]):
    mean = figures["tae/toyworld/psnr"].value - figures["tae/toyworld/psnr_pca"].value
    assert figures["tae/toyworld/psnr_minus_pca"].value == pytest.approx(mean)


def test_bars_are_kept_with_their_outcome(job: Path):
    bars = {bar["name"]: bar for bar in json.loads((job / "judged" / "bars.json").read_text())}
    assert bars["tae/toyworld/psnr"]["reached"] and bars["t2v/colour"]["reached"]
    assert not bars["t2v/unmeasured"]["reached"] and "not measured" in bars["t2v/unmeasured"]["why"]


def test_every_clip_has_a_verdict_that_points_to_its_file(job: Path):
    rows = read_verdicts(job / "judged")
    generated = [row for row in rows if row.kind == "generated"]
    assert len(generated) == NUM_HELDOUT + NUM_TEMPLATE + NUM_FREE and len(rows) == len(generated) + NUM_PAIRS
    assert all((job / "judged" / str(row.path)).is_file() for row in generated)
    assert all(bool(row.verdict) == (row.set != "free") for row in generated)
    assert all(row.origin["checkpoint"] == "t2v" for row in generated)


def test_judging_twice_gives_the_same_files(job: Path, tmp_path: Path):
    judge(judge_config(job) | {"out": str(tmp_path)})
    for name in ("numbers.json", "bars.json"):
        assert (tmp_path / name).read_bytes() == (job / "judged" / name).read_bytes()


def test_ctrl_c_leaves_the_former_judgment_whole_and_the_same_command_makes_a_new_one(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "judged"
    shutil.copytree(job / "judged", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    config = {**judge_config(job), "out": str(out), "seed": 1}
    plain = (item for item in config.items() if item[0] not in ("csv_figures", "bars", "runs"))
    words = [f"{key}={value}" for key, value in plain]
    real, judged = judging.judge_sample, []

    def interrupted(*values):
        judged.append(values)
        if len(judged) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*values)

    monkeypatch.setattr(judging, "judge_sample", interrupted)
    assert cli.main(["eval", "judge", *words]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert cli.main(["eval", "judge", *words]) == 0
    assert {path.name for path in out.iterdir()} == set(before)
    assert (out / "numbers.json").read_bytes() != before["numbers.json"]


def test_missing_broken_and_noise_clips_count_as_wrong(
    tmp_path: Path, job: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(job / "gen", tmp_path / "gen")
    paths = [
        tmp_path / "gen" / sample.path for sample in read_manifest(job / "gen") if sample.set == "heldout"
    ]
    paths[0].unlink()
    paths[1].write_bytes(b"no video")
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    write_video(paths[2], noise, 8.0)
    config = {
        "out": str(tmp_path / "out"),
        "generations": [str(tmp_path / "gen")],
        "bars": {"t2v/colour": 0.97},
    }
    found = {figure.name: figure for figure in judge(config)}
    assert found["t2v/colour"].value <= 1 - 3 / NUM_HELDOUT and "tae/toyworld/psnr" not in found
    rows = read_verdicts(tmp_path / "out")[:3]
    assert not any(right for row in rows for right in row.verdict.values())
    assert [row.error is not None for row in rows] == [True, True, False]
    assert rows[2].seen["colour"] == "none"
    printed = capsys.readouterr().out
    assert "not reached: " in printed and "2 unreadable" in printed


def test_clips_of_other_systems_are_decoded_in_the_sandbox(job: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    ask = reading.ask
    monkeypatch.setattr(reading, "ask", lambda message, limits: asked.append(limits) or ask(message, limits))
    observation, frame, error = observe_file(job / "gen" / "heldout-0.mp4")
    assert error is None and observation.sprites and frame.shape == (64, 64, 3)
    assert [limits.max_bytes for limits in asked] == [1 << 30]


def test_a_broken_input_is_one_line_and_writes_nothing(tmp_path: Path, job: Path):
    shutil.copytree(job / "rec", tmp_path / "rec")
    (tmp_path / "rec" / "toy-1.npz").write_bytes(b"")
    config = {"out": str(tmp_path / "out"), "reconstructions": str(tmp_path / "rec")}
    with pytest.raises(ValueError, match=r"toy-1\.npz") as caught:
        judge(config)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"manifest\.jsonl: cannot be read"):
        judge({"out": str(tmp_path / "out"), "generations": str(tmp_path)})


def test_the_floor_of_clips_that_all_look_alike_is_their_chance_of_matching():
    black = oracle.observe(np.zeros((8, 64, 64, 3), np.uint8), 8.0)
    clips = []
    for index in range(6):
        spec = {"background": "none" if index < 3 else "plain"}  # a black clip shows the background "none"
        row = Verdict(
            str(index),
            "generated",
            "heldout",
            f"prompt {index}",
            None,
            judge_observation(spec, black),
            {},
            spec,
        )
        clips.append(Observed(row, black))
    value, low, high = shuffled_floor(clips, num_shuffles=50, seed=0)["background"]
    assert value == low == high == 0.5
    assert shuffled_floor(clips[:1], num_shuffles=50, seed=0) == {}


def test_training_clips_are_taken_from_all_parts_of_the_shards_of_their_kind(tmp_path: Path):
    for name, levels in (("train-toyworld-000000", (10, 20)), ("train-toyworld-000001", (30, 40)),
                         ("train-real-000000", (50,)), ("val-toyworld-000000", (60,))):  # fmt: skip
        write_shard(
            tmp_path / f"{name}.tar", [np.full((8, 32, 32, 3), 4 * level, np.uint8) for level in levels]
        )
    shards = find_shards(tmp_path, "train", toyworld=True)
    assert count_clips(shards) == 4
    values = [round(float(clip.mean()) / 4) for clip in iterate_clips(shards, 2)]
    assert values == [10, 30] and len(list(iterate_clips(shards, 99))) == 4
    assert [path.name for path in find_shards(tmp_path, "train", toyworld=False)] == ["train-real-000000.tar"]
    with pytest.raises(ValueError, match="not a folder"):
        find_shards(tmp_path / "none", "train", toyworld=True)
