"""The console command: help without torch, one-line errors, exit codes, sweeps."""

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from moviegen import cli, doctor, runfolder

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = """
_target_: moviegen.demo.DemoConfig
run_dir: ???
report: ${.run_dir}/report.html
scratch: false
videos: null
stages: {}
"""


def moviegen(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run the console command as a process."""
    command = [sys.executable, "-m", "moviegen.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )


@pytest.fixture
def empty_job(tmp_path: Path, monkeypatch) -> Path:
    """Let `moviegen demo` be a job without stages."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "demo.yaml").write_text(DEMO)
    monkeypatch.setenv("MOVIEGEN_CONF", str(tmp_path / "conf"))
    return tmp_path


def test_help_imports_neither_torch_nor_hydra() -> None:
    heavy = ("torch", "hydra", "omegaconf", "lightning", "numpy", "transformers", "av", "decord")
    code = (
        "import sys, moviegen.cli as cli; assert cli.main(['--help']) == 0; "
        f"found = [name for name in {heavy} if name in sys.modules]; assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_explains_itself(name: str, capsys) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"moviegen {name}" in out
    assert "does not exist" not in out


def test_a_group_lists_its_commands(capsys) -> None:
    assert cli.main(["eval"]) == 0
    out = capsys.readouterr().out
    assert "eval judge" in out
    assert "train " not in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "did you mean 'train'?"),
        (["data", "biuld"], "did you mean 'data build'?"),
        (["xyzzy"], "valid: train, encode"),
        (["demo", "--mutlirun"], "did you mean '--multirun'?"),
        (["doctor", "x=1"], "takes no arguments"),
        (["demo", "run_dir=x", "scrach=true"], "did you mean 'scratch'?"),
        (["demo", "run_dir=x", "stages.a.comand=train"], "stages.a"),
        (["demo"], "add run_dir=..."),
    ],
)
@pytest.mark.usefixtures("empty_job")
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], hint: str) -> None:
    done = moviegen(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\nlines"), "error: two lines\n"),
        (OSError(28, "No space left on device", "a.ckpt"), "error: a.ckpt: No space left on device\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.mp4"),
            "error: x.mp4: No such file or directory\n",
        ),
    ],
)
def test_errors_of_the_user_and_a_full_disk_end_in_one_line(
    monkeypatch, capsys, error: Exception, message: str
) -> None:
    monkeypatch.setattr(doctor, "doctor", _raiser(error))
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == message
    monkeypatch.setenv("MOVIEGEN_TRACEBACK", "1")
    with pytest.raises(type(error)):
        cli.main(["doctor"])


def test_faults_of_our_own_keep_their_traceback(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "doctor", _raiser(KeyError("internal")))
    with pytest.raises(KeyError):
        cli.main(["doctor"])


def test_an_interrupt_says_that_finished_work_is_kept(monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "doctor", _raiser(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130
    assert "what is finished is kept" in capsys.readouterr().err


def test_cfg_prints_the_composed_configuration(empty_job: Path) -> None:
    done = moviegen("demo", "--cfg", f"run_dir={empty_job}/a", "scratch=true")
    assert done.returncode == 0, done.stderr
    assert "scratch: true" in done.stdout
    assert f"report: {empty_job}/a/report.html" in done.stdout


def test_a_sweep_runs_each_job_in_a_numbered_folder(empty_job: Path) -> None:
    done = moviegen("demo", "-m", f"run_dir={empty_job}/sweep", "scratch=true,false")
    assert done.returncode == 0, done.stderr
    jobs = json.loads((empty_job / "sweep" / "sweep.json").read_text())["jobs"]
    assert [job[1] for job in jobs] == ["scratch=True", "scratch=False"]
    assert (empty_job / "sweep" / "0" / ".stages").is_dir()
    assert (empty_job / "sweep" / "1" / ".stages").is_dir()


def test_a_sweep_with_one_wrong_job_starts_none(empty_job: Path) -> None:
    done = moviegen("demo", "-m", f"run_dir={empty_job}/sweep", "scratch=true,maybe")
    assert done.returncode == 2
    assert "scratch=maybe" in done.stderr
    assert not (empty_job / "sweep").exists()


def test_a_run_folder_records_config_versions_hashes_and_consent(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    tars = [{"name": "train-real-000000.tar", "sha256": "ab", "licences": ["CC0"], "consent": ["id-7"]}]
    runfolder.write_json(shards / "index.json", {"tars": tars})
    run = runfolder.record(tmp_path / "run", {"a": 1, "b": "${a}"}, [shards])
    assert run == runfolder.read_json(tmp_path / "run" / "run.json")
    assert run["config"] == {"a": 1, "b": 1}
    assert "b: 1" in (tmp_path / "run" / "config.yaml").read_text()
    assert run["shards"][0]["sha256"] == {"train-real-000000.tar": "ab"}
    assert run["shards"][0]["consent"] == ["id-7"]
    assert run["shards"][0]["licences"] == ["CC0"]
    assert "torch" in run["packages"]


def test_a_resumed_run_keeps_its_first_config_and_lists_every_start(tmp_path: Path) -> None:
    for steps in (3, 6):
        cfg = {"seed": 0, "trainer": {"max_steps": steps, **({"devices": 2} if steps == 6 else {})}}
        run = runfolder.record(tmp_path, cfg, resumed=steps > 3)
    assert run["config"]["trainer"]["max_steps"] == 6 and run["command"] == run["starts"][1]["command"]
    changed = {"trainer.devices": [None, 2], "trainer.max_steps": [3, 6]}
    assert [start["changed"] for start in run["starts"]] == [{}, changed]
    assert all(start["git"] and start["packages"]["torch"] for start in run["starts"])
    assert "max_steps: 3" in (tmp_path / "config.yaml").read_text()
    again = runfolder.record(tmp_path, {"seed": 1})
    assert len(again["starts"]) == 1 and (tmp_path / "config.yaml").read_text() == "seed: 1\n"


def test_the_start_of_a_run_from_before_starts_were_listed_is_kept(tmp_path: Path) -> None:
    runfolder.write_json(tmp_path / "run.json", {"git": {"commit": "abc"}, "config": {"seed": 0}})
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    run = runfolder.record(tmp_path, {"seed": 1}, resumed=True)
    assert run["starts"][0] == {"git": {"commit": "abc"}}
    assert run["starts"][1]["changed"] == {"seed": [0, 1]}


def test_damaged_records_of_a_resumed_run_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match=r"config.yaml is not valid yaml"):
        runfolder.record(tmp_path, {"seed": 1}, resumed=True)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"run.json does not describe a run"):
        runfolder.record(tmp_path, {"seed": 1}, resumed=True)


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    runfolder.write_json(path, [1])
    with pytest.raises(ValueError, match="nan"):
        runfolder.write_json(path, [float("nan")])
    assert runfolder.read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("{")
    with pytest.raises(ValueError, match=r"numbers.json is not valid json"):
        runfolder.read_json(path)


def test_the_doctor_knows_every_extra_and_names_what_one_lacks(monkeypatch) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {*doctor.EXTRAS, "cuda", "dev"} == set(project["optional-dependencies"])
    version = metadata.version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "submitit" else version(name))
    found = {finding.name: finding for finding in doctor._optional()}
    assert found["extra lora"].ok and found["extra lora"].detail.startswith("peft ")
    lacking = "no submitit, so without launcher=slurm: pip install -e .[slurm]"
    assert (found["extra slurm"].ok, found["extra slurm"].detail) == (False, lacking)


def test_the_doctor_finds_what_the_tests_need(capsys) -> None:
    assert doctor.doctor() == 0
    out = capsys.readouterr().out
    for name in ("python", "torch", "decoder decord", "encoder libx264", "flash-attn", "disk", "toy weights"):
        assert f"\n{name} " in "\n" + out
    row = next(line for line in out.splitlines() if line.startswith("decoder PyAV "))
    assert "  ok " in row and "reads files from outside, in a child process" in row


def test_the_doctor_says_which_shipped_model_does_not_load(tmp_path: Path, monkeypatch, capsys) -> None:
    weights = tmp_path / "experiments" / "toy" / "weights"
    weights.mkdir(parents=True)
    for name in ("tae.json", "tae.safetensors"):
        (weights / name).write_text("{}")
    monkeypatch.setattr(doctor, "REPOSITORY", tmp_path)
    doctor.doctor()
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("toy weights tae"))
    assert "\nbroken: toy weights tae\n" in out
    assert "BROKEN" in row and "tae.json does not describe a model" in row


def test_help_offers_a_recipe_to_the_command_that_it_is_for(capsys) -> None:
    offered = {}
    for name in ("train", "demo", "encode"):
        assert cli.main([name, "--help"]) == 0
        rows = capsys.readouterr().out.splitlines()
        offered[name] = next(row.split(maxsplit=1)[1] for row in rows if row.startswith("  experiments"))
    assert {"toy/t2v", "toy/tae"} <= set(offered["train"].split(", "))
    assert "toy/finetune" not in offered["train"]
    assert (offered["demo"], offered["encode"]) == ("toy/finetune", "(none)")


def test_the_doctor_reports_a_broken_package_and_exits_1(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    assert doctor.doctor() == 1
    assert "missing and required: decoder decord" in capsys.readouterr().out


def test_without_the_decoder_of_files_from_outside_the_doctor_exits_1(monkeypatch, capsys) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [check for check in doctor.CHECKS if check[0] == "decoder PyAV"])
    monkeypatch.setitem(sys.modules, "av", None)
    assert doctor.doctor() == 1
    assert "missing and required: decoder PyAV" in capsys.readouterr().out


def _raiser(error: BaseException):
    def function() -> None:
        raise error

    return function
