"""`moviegen runs compare`: what differs, what came out, and intervals over seeds."""

import csv
import json
from pathlib import Path

import pytest
from moviegen_eval.numbers import Figure, read_numbers, write_numbers

from moviegen import cli

LRS, SEEDS = ("1e-4", "3e-4"), (0, 1, 2)


def write_run(run: Path, loss: float, finished: bool = True, **config: object) -> None:
    (run / "log" / "version_0").mkdir(parents=True)
    rows = [f"{step},{loss + (1.0 if step < 90 else 0.0)},,\n" for step in range(100)]
    rows += [f"99,,{loss},\n", "100,,,0.3\n"]  # the held-out loss is told of by the steps that were done
    header = "step,train/loss,val/loss,held_out/loss\n"
    (run / "log" / "version_0" / "metrics.csv").write_text(header + "".join(rows))
    (run / "run.json").write_text(json.dumps({"config": {"run_dir": str(run), **config}}))
    if finished:
        (run / "model.json").write_text("{}")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two learning rates with three seeds each; the last run was broken off."""
    folder, jobs = tmp_path / "sweep", []
    for number, (lr, seed) in enumerate((lr, seed) for lr in LRS for seed in SEEDS):
        run = folder / str(number)
        jobs.append(["experiments=toy/t2v", f"optimizer.lr={lr}", f"seed={seed}", f"run_dir='{run}'"])
        write_run(run, float(lr) * 1e4 + 0.1 * seed, finished=number < 5)
    (folder / "sweep.json").write_text(json.dumps({"command": "train", "jobs": jobs}))
    return folder


def compare(*words: str) -> None:
    assert cli.main(["runs", "compare", *words, "wandb=null"]) == 0, words


def test_a_sweep_is_told_of_by_its_overrides_and_by_its_means_over_seeds(sweep: Path, capsys) -> None:
    compare(str(sweep))
    table = capsys.readouterr().out
    assert "| run | optimizer.lr | seed | train/loss | val/loss | state |" in table
    assert "experiments" not in table and "run_dir" not in table  # the same in all of them
    assert table.count("| finished, 100 steps |") == 5 and table.count("not finished, 100 steps") == 1
    figures = {figure.name: figure for figure in read_numbers(sweep / "compare" / "numbers.json")}
    one, mean = figures["runs/1/train/loss"], figures["runs/0+1+2/val/loss"]
    assert one.value == pytest.approx(1.1) and one.n == 10  # the last tenth alone
    half = 4.302652729911275 * 0.1 / 3**0.5  # Student's quantile for three values, 0.1 apart
    assert (mean.value, mean.low, mean.high, mean.n) == pytest.approx((1.1, 1.1 - half, 1.1 + half, 3))
    rows = list(csv.DictReader((sweep / "compare" / "table.csv").open()))
    (value,) = [row["value"] for row in rows if (row["run"], row["figure"]) == ("4", "val/loss")]
    assert float(value) == pytest.approx(3.1)
    assert (sweep / "compare" / "table.md").read_text() in table


def test_a_folder_of_runs_without_a_list_of_jobs_is_told_of_by_its_configurations(
    tmp_path: Path, capsys
) -> None:
    for name, lr in (("a", 1e-4), ("b", 3e-4)):
        optimizer = {"lr": lr, "betas": [0.9, 0.95]}
        write_run(tmp_path / name, lr, optimizer=optimizer, samples=f"{tmp_path / name}/samples")
        figure = Figure("t2v/colour", 0.5, 0.4, 0.6, 64, "share", True)
        write_numbers(tmp_path / name / "numbers.json", [figure])
    held_out = {"name": "held_out/loss", "value": 0.2, "low": 0.1, "high": 0.3, "n": 64}
    by_time = held_out | {"name": "held_out/loss/time/0.1"}
    (tmp_path / "a" / "held_out.jsonl").write_text(
        json.dumps({"step": 9, "numbers": [held_out, by_time]}) + "\n"
    )
    compare(str(tmp_path))
    table = capsys.readouterr().out
    assert "| run | optimizer.lr | train/loss | val/loss | held_out/loss | t2v/colour | state |" in table
    assert "0.5 \\[0.4, 0.6\\]" in table and "0.2 \\[0.1, 0.3\\]" in table
    compare(f"folder={tmp_path}", "figures=[held_out/loss/time/*]", f"out={tmp_path / 'other'}")
    assert "| run | optimizer.lr | held_out/loss/time/0.1 | state |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["nowhere"], "nowhere: there is no such folder"),
        ([], "add folder=..."),
        (["."], "holds no runs"),
        (["sweep", "figures=[t2v/*]"], "none of its 6 runs has a figure of t2v/*"),
    ],
)
def test_what_cannot_be_compared_is_one_line(sweep: Path, monkeypatch, capsys, words, hint) -> None:
    (sweep.parent / "empty").mkdir()
    monkeypatch.chdir(sweep.parent / ("empty" if words == ["."] else ""))
    assert cli.main(["runs", "compare", *words]) == 2
    error = capsys.readouterr().err
    assert hint in error and error.count("\n") == 1
    assert not (sweep / "compare").exists()


def test_the_table_goes_to_weights_and_biases(sweep: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert cli.main(["runs", "compare", str(sweep)]) == 0
    (logged,) = (sweep / "compare" / "wandb").glob("offline-run-*/files/media/table/runs_*.table.json")
    assert json.loads(logged.read_text())["data"][3][1] == "3e-4"
